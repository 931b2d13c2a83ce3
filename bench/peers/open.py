"""Opens a peer by its name: the table of all there are, and what each needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec

from rbc_engine.bench.peers.base import Peer, PeerMissingError
from rbc_engine.packs.pack import Pack

__all__ = ["open_peer"]

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
    """threads: CPU threads that it may use, all cores.

    Raises PeerMissingError if something that it needs is not here.
    """
    missing = [module for module in _NEEDS[name] if find_spec(module) is None]
    if missing:
        raise PeerMissingError(
            f"{', '.join(missing)} is not installed; pip install 'rbc-engine[bench]'"
        )
    module, kind = _MODULES[name]
    peer: Peer = getattr(import_module(module), kind)(pack, threads=threads)
    return peer
