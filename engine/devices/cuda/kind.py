"""The record of NVIDIA GPUs. Imports nothing of NVIDIA's before one is opened."""

from __future__ import annotations

from collections.abc import Sequence

from rbc_engine.devices.base import BuildWatch, Device, DeviceChoice, DeviceKind
from rbc_engine.devices.cuda.driver import ask_driver
from rbc_engine.devices.cuda.frame import CudaFrame
from rbc_engine.devices.cuda.needs import gpu_needs, gpu_problems, usable_gpus
from rbc_engine.devices.cuda.plan_cache import cache_folder

__all__ = ["CUDA"]

_LANES = 4
_FRAMES = 8
_PATCHES = (8, 32, 128)

_DLPACK_TYPE = 2


def _found() -> Sequence[int]:
    return [gpu.number for gpu in usable_gpus()]


def _problems(number: int) -> Sequence[str]:
    return gpu_problems(number)


def _precisions(number: int) -> Sequence[str]:
    from rbc_engine.devices.cuda.device import FP8_CAPABILITY, GPU_PRECISIONS

    capability = next((gpu.capability for gpu in ask_driver().gpus if gpu.number == number), (0, 0))
    return [name for name in GPU_PRECISIONS if name != "fp8" or capability >= FP8_CAPABILITY]


def _needs() -> Sequence[str]:
    driver = ask_driver()
    lines = [
        str(need)
        for number in range(max(len(driver.gpus), 1))
        for need in gpu_needs(number, driver=driver)
    ]
    # Each line once: what the GPUs share is said for the first.
    return [*dict.fromkeys(lines), f"compiled networks: {cache_folder()}"]


def _open(
    number: int,
    *,
    precision: str,
    lanes: int | None,
    notes: Sequence[str],
    cache_name: str,
    watch: BuildWatch | None,
) -> DeviceChoice:
    from rbc_engine.devices.cuda.device import open_gpu
    from rbc_engine.devices.cuda.memory import CudaArray

    gpu = open_gpu(number, precision=precision, cache_name=cache_name, watch=watch)
    gpu.notes += notes
    device: Device[CudaArray] = gpu.lane()
    return DeviceChoice(
        device=device,
        kind=CUDA,
        place=gpu.place,
        lanes=lanes or _LANES,
        threads=1,
        lane_frames=_FRAMES,
        batch_frames=_FRAMES,
        batch_patches=_PATCHES,
        notes=gpu.notes,  # the list itself: what a lane gives up later is added to it
        refuse=gpu.refuse,
    )


CUDA = DeviceKind(
    name="cuda",
    numbered=True,
    keeps_networks=True,
    decodes=True,
    found=_found,
    problems=_problems,
    precisions=_precisions,
    needs=_needs,
    open=_open,
    dlpack_type=_DLPACK_TYPE,
    adopt=CudaFrame,
)
