"""A machine with GPUs, all of it fake, for the engine's own code to run on."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from rbc_engine.devices.cuda import device as cuda_device
from rbc_engine.devices.cuda import kind as cuda_kind
from rbc_engine.devices.cuda.driver import DriverReport, Gpu

from .cuda_core import Gpus, make_core, make_driver
from .kernels import make_kernels
from .tensorrt import make_tensorrt


class FakeMachine:
    """gpus: what happens on them. trt: the module tensorrt."""

    def __init__(self, count: int = 1, total_bytes: int = 1 << 40) -> None:
        self.gpus = Gpus(count, total_bytes)
        self.trt = make_tensorrt(self.gpus)
        self.libraries = cuda_device.Libraries(
            self.trt, make_core(self.gpus), make_driver(self.gpus), make_kernels(self.gpus)
        )

    def install(
        self, patch: pytest.MonkeyPatch, *, frames: int = 2, patches: Sequence[int] = (4, 16)
    ) -> FakeMachine:
        """Makes `--device cuda` find this machine.

        frames, patches: batch sizes, small ones for CPU time.
        """
        patch.setattr(cuda_device, "_libraries", self.libraries)
        patch.setattr(cuda_kind, "gpu_problems", lambda number: [])
        patch.setattr(cuda_kind, "usable_gpus", self.report().gpus.__iter__)
        patch.setattr(cuda_kind, "_FRAMES", frames)
        patch.setattr(cuda_kind, "_PATCHES", tuple(patches))
        return self

    def report(self) -> DriverReport:
        return DriverReport(
            cuda=(13, 0),
            gpus=tuple(
                Gpu(
                    number=number,
                    name=f"Fake GPU {number}",
                    capability=(8, 9),
                    total_bytes=self.gpus.total_bytes,
                    free_bytes=self.gpus.total_bytes,
                )
                for number in range(self.gpus.count)
            ),
        )
