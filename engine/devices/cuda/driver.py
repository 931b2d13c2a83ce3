"""Ask the NVIDIA driver for its GPUs, through its own library alone: it is safe to ask where there
is none.

TensorRT ends the process if it finds no GPU, so nothing of NVIDIA's is imported before this has
found one.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

__all__ = ["DriverReport", "Gpu", "ask_driver"]

_LIBRARY = "libcuda.so.1"
_NO_DEVICE = 100
_COMPUTE_MAJOR, _COMPUTE_MINOR = 75, 76


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """Describe a GPU. number: as in --device cuda:N, after CUDA_VISIBLE_DEVICES. capability:
    compute capability, e.g. (8, 9).
    """

    number: int
    name: str
    capability: tuple[int, int]
    total_bytes: int
    free_bytes: int | None
    """None if the driver did not report it."""


@dataclass(frozen=True, kw_only=True)
class DriverReport:
    """Report the driver. cuda: the newest CUDA that it runs, e.g. (13, 0); None if there is no
    driver.
    problem: why there are no GPUs, if there are none.
    """

    cuda: tuple[int, int] | None = None
    gpus: tuple[Gpu, ...] = ()
    problem: str | None = None


def ask_driver(library: str = _LIBRARY) -> DriverReport:
    """Look for the driver and its GPUs. Never raises, and imports nothing."""
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return DriverReport(
            problem=f"no NVIDIA driver ({library} is not installed); install driver 580 or newer, "
            f"in a container start it with --gpus all"
        )
    version = ctypes.c_int()
    if driver.cuDriverGetVersion(ctypes.byref(version)) or not version.value:
        return DriverReport(problem="the NVIDIA driver does not report its version; reinstall it")
    cuda = (version.value // 1000, version.value % 1000 // 10)
    status = driver.cuInit(0)
    count = ctypes.c_int()
    status = status or driver.cuDeviceGetCount(ctypes.byref(count))
    if status == _NO_DEVICE or (not status and not count.value):
        return DriverReport(
            cuda=cuda,
            problem="the NVIDIA driver sees no GPU; check nvidia-smi and CUDA_VISIBLE_DEVICES",
        )
    if status:
        return DriverReport(
            cuda=cuda,
            problem=f"the NVIDIA driver does not start ({_reason(driver, status)}); check "
            f"nvidia-smi, and restart the machine if the driver was changed",
        )
    gpus = tuple(_ask_gpu(driver, number) for number in range(count.value))
    return DriverReport(cuda=cuda, gpus=gpus)


def _ask_gpu(driver: ctypes.CDLL, number: int) -> Gpu:
    handle = ctypes.c_int()
    driver.cuDeviceGet(ctypes.byref(handle), number)
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGetName(name, len(name), handle)
    major, minor = ctypes.c_int(), ctypes.c_int()
    driver.cuDeviceGetAttribute(ctypes.byref(major), _COMPUTE_MAJOR, handle)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), _COMPUTE_MINOR, handle)
    total = ctypes.c_size_t()
    driver.cuDeviceTotalMem_v2(ctypes.byref(total), handle)
    return Gpu(
        number=number,
        name=name.value.decode("utf-8", "replace"),
        capability=(major.value, minor.value),
        total_bytes=total.value,
        free_bytes=_free_bytes(driver, handle),
    )


def _free_bytes(driver: ctypes.CDLL, handle: ctypes.c_int) -> int | None:
    """Return the free memory, which only a context knows. The primary one, which others will use
    too, is taken and released.
    """
    context = ctypes.c_void_p()
    if driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), handle):
        return None
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    status = driver.cuCtxPushCurrent_v2(context)
    if not status:
        status = driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
        driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
    driver.cuDevicePrimaryCtxRelease_v2(handle)
    return None if status else free.value


def _reason(driver: ctypes.CDLL, status: int) -> str:
    text = ctypes.c_char_p()
    driver.cuGetErrorString(status, ctypes.byref(text))
    return text.value.decode("utf-8", "replace") if text.value else f"error {status}"
