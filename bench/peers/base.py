"""Define peers, and open one by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol

from rbc_engine.errors import RbcError
from rbc_engine.packs.pack import Pack
from rbc_engine.types.frames import FieldRef
from rbc_engine.types.results import Regions

__all__ = ["Peer", "PeerMissingError", "open_peer"]


class PeerMissingError(RbcError):
    """Say why a peer cannot be measured here."""


class Peer(Protocol):
    """Run a pipeline that is open, with its networks loaded.

    name: one of rbc_engine.bench.settings.PEERS. precision: in which its networks compute.
    description: what it is, for the report.
    """

    name: str
    precision: str
    description: str

    def analyze(self, ref: FieldRef) -> Regions:
        """Return the regions of one image file, read from disk, as the engine gives them."""
        ...

    def close(self) -> None: ...


_MODULES: Mapping[str, tuple[str, str]] = {
    "reference": ("rbc_engine.bench.peers.reference", "ReferencePeer"),
    "compiled": ("rbc_engine.bench.peers.compiled", "CompiledPeer"),
    "onnxruntime": ("rbc_engine.bench.peers.onnxruntime", "OnnxRuntimePeer"),
    "torch-tensorrt": ("rbc_engine.bench.peers.torch_tensorrt", "TorchTensorRtPeer"),
}
_TORCH = ("torch", "torchvision", "sklearn", "onnx", "PIL")
_NEEDS: Mapping[str, Sequence[str]] = {
    "reference": _TORCH,
    "compiled": _TORCH,
    "onnxruntime": ("onnxruntime", "onnx"),
    "torch-tensorrt": _TORCH,
}


def open_peer(name: str, pack: Pack, *, threads: int) -> Peer:
    """Open a peer. threads: CPU threads that it may use, all cores.

    Raises PeerMissingError if something that it needs is missing.
    """
    missing = [module for module in _NEEDS[name] if find_spec(module) is None]
    if missing:
        raise PeerMissingError(
            f"{', '.join(missing)} is not installed; pip install 'rbc-engine[bench]'"
        )
    module, kind = _MODULES[name]
    peer: Peer = getattr(import_module(module), kind)(pack, threads=threads)
    return peer
