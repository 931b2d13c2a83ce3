"""The reference pipeline on a GPU, its networks compiled by torch-tensorrt."""

from __future__ import annotations

from importlib.util import find_spec

from rbc_engine.bench.peers.base import PeerMissingError
from rbc_engine.devices.cuda_driver import ask_driver
from rbc_engine.pack import Pack
from rbc_engine.types import FieldRef, Regions

__all__ = ["TorchTensorRtPeer"]
