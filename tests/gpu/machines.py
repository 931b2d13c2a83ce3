"""Where kernels run: a GPU, through cuda.core, or the emulator. Both offer memory by address, and a
stream.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import pybind11

from rbc_engine import _kernels

if TYPE_CHECKING:
    from cuda.core import Buffer

GARBAGE = 0x5B


class Emulator:
    """Device memory is the host's."""

    is_gpu = False

    def __init__(self, repository: Path, folder: Path) -> None:
        self.cuda = compile_module(repository, folder)
        self._alive: list[np.ndarray] = []

    def put(self, array: np.ndarray) -> int:
        """The address of a copy."""
        memory = np.empty(array.nbytes + 256, np.uint8)
        first = -memory.ctypes.data % 256
        memory[first : first + array.nbytes] = (
            np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        )
        self._alive.append(memory)
        return memory.ctypes.data + first

    def get(self, address: int, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        array = np.empty(shape, dtype)
        ctypes.memmove(array.ctypes.data, address, array.nbytes)
        return array

    def run(self, launch: Callable[[int], None]) -> None:
        launch(0)


class Gpu:
    """The first GPU. Raises whatever cuda.core raises where there is none.

    recorded: launch through a CUDA graph.
    """

    is_gpu = True

    def __init__(self, *, recorded: bool) -> None:
        from cuda.core import Device, LegacyPinnedMemoryResource

        self.device = Device(0)
        self.device.set_current()
        self.recorded = recorded
        self.cuda = _kernels.cuda
        self.stream = self.device.create_stream()
        self._host = LegacyPinnedMemoryResource()
        self._buffers: dict[int, Buffer] = {}

    def put(self, array: np.ndarray) -> int:
        array = np.ascontiguousarray(array)
        staging = self._host.allocate(max(array.nbytes, 1))
        ctypes.memmove(int(staging.handle), array.ctypes.data, array.nbytes)
        memory = self.device.allocate(max(array.nbytes, 1), stream=self.stream)
        memory.copy_from(staging, stream=self.stream)
        self.stream.sync()
        address = int(memory.handle)
        self._buffers[address] = memory
        return address

    def get(self, address: int, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        array = np.empty(shape, dtype)
        staging = self._host.allocate(max(array.nbytes, 1))
        self._buffers[address].copy_to(staging, stream=self.stream)
        self.stream.sync()
        ctypes.memmove(array.ctypes.data, int(staging.handle), array.nbytes)
        return array

    def run(self, launch: Callable[[int], None]) -> None:
        """Once, as the first launch loads its kernel; if recorded, twice more by a graph."""
        launch(int(self.stream.handle))
        if self.recorded:
            self.stream.sync()
            builder = self.stream.create_graph_builder().begin_building("thread_local")
            launch(int(builder.stream.handle))
            graph = builder.end_building().complete()
            graph.launch(self.stream)
            graph.launch(self.stream)
        self.stream.sync()


def compile_module(repository: Path, folder: Path) -> ModuleType:
    library = folder / "emulated.so"
    emulated = repository / "tests" / "emulated"
    includes = [emulated, emulated / "emulator", repository, repository / "kernels"]
    command = [
        os.environ.get("CXX") or shutil.which("g++") or "c++",
        *("-std=c++20", "-O1", "-ffp-contract=off", "-fvisibility=hidden", "-shared", "-fPIC"),
        *(f"-I{path}" for path in (*includes, pybind11.get_include())),
        f"-I{sysconfig.get_path('include')}",
        *(str(repository / "tests" / "gpu" / "emulated.cpp"), "-o", str(library)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    spec = importlib.util.spec_from_file_location("emulated", library)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
