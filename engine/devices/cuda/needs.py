"""What a GPU needs to run the engine: each thing present, or missing with its remedy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rbc_engine import _kernels
from rbc_engine.devices.cuda.driver import DriverReport, Gpu, ask_driver
from rbc_engine.libraries import Library

__all__ = ["CUDA_CORE", "TENSORRT", "Need", "gpu_needs", "gpu_problems", "usable_gpus"]

_MIN_CUDA = (13, 0)
_MIN_CAPABILITY = (7, 5)
_MIN_TENSORRT = (11, 1)
_MIN_CUDA_CORE = (1, 0)
_MIN_FREE_BYTES = 2 << 30

_INSTALL = "pip install 'rbc-engine[cuda]' --extra-index-url https://pypi.nvidia.com"

TENSORRT = Library(
    name="TensorRT",
    module="tensorrt",
    distributions=("tensorrt", "tensorrt-cu13", "tensorrt-cu13-bindings"),
    remedy=_INSTALL,
)
CUDA_CORE = Library(
    name="cuda.core", module="cuda.core", distributions=("cuda-core",), remedy=_INSTALL
)

VersionOf = Callable[[Library], str | None]


@dataclass(frozen=True, kw_only=True)
class Need:
    """Describe one thing that the engine needs on a GPU.

    missing: why it is not met, with the remedy; None if it is.
    """

    name: str
    found: str
    missing: str | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.missing or self.found}"


def gpu_needs(
    number: int = 0,
    *,
    driver: DriverReport | None = None,
    has_kernels: bool | None = None,
    version_of: VersionOf = Library.version,
) -> list[Need]:
    """List everything that `--device cuda:number` needs, in the order of installation."""
    driver = ask_driver() if driver is None else driver
    has_kernels = _kernels.has_cuda if has_kernels is None else has_kernels
    needs = [_driver_need(driver)]
    if not driver.problem:
        needs += _gpu_needs(driver, number)
    needs.append(
        Need(
            name="kernels",
            found="compiled in",
            missing=None
            if has_kernels
            else "this build of rbc-engine has no CUDA kernels; install it where nvcc 13 is, with "
            "-C cmake.define.RBC_CUDA=ON",
        )
    )
    for library, least in ((CUDA_CORE, _MIN_CUDA_CORE), (TENSORRT, _MIN_TENSORRT)):
        needs.append(_library_need(library.name, version_of(library), least))
    return needs


def gpu_problems(number: int) -> list[str]:
    """List what is missing for a GPU, each with its remedy; empty if nothing is."""
    return [need.missing for need in gpu_needs(number) if need.missing]


def usable_gpus() -> list[Gpu]:
    """Return the GPUs that are new enough."""
    return [gpu for gpu in ask_driver().gpus if gpu.capability >= _MIN_CAPABILITY]


def _driver_need(driver: DriverReport) -> Need:
    if driver.cuda is None or driver.problem:
        return Need(name="driver", found="", missing=driver.problem)
    shown = f"for CUDA {driver.cuda[0]}.{driver.cuda[1]}"
    if driver.cuda < _MIN_CUDA:
        return Need(
            name="driver",
            found=shown,
            missing=f"the NVIDIA driver is too old ({shown}, but CUDA "
            f"{_MIN_CUDA[0]}.{_MIN_CUDA[1]} is needed); install driver 580 or newer",
        )
    return Need(name="driver", found=shown)


def _gpu_needs(driver: DriverReport, number: int) -> list[Need]:
    here = {gpu.number: gpu for gpu in driver.gpus}
    if number not in here:
        names = ", ".join(f"cuda:{gpu.number} {gpu.name}" for gpu in driver.gpus)
        return [
            Need(name="GPU", found=names, missing=f"there is no GPU {number}; there are {names}")
        ]
    gpu = here[number]
    capability = f"{gpu.capability[0]}.{gpu.capability[1]}"
    shown = f"cuda:{number} {gpu.name}, compute capability {capability}"
    if gpu.capability < _MIN_CAPABILITY:
        return [
            Need(
                name="GPU",
                found=shown,
                missing=f"{gpu.name} is too old (compute capability {capability}, but 7.5 is "
                "needed: Turing, e.g. a T4)",
            )
        ]
    needs = [Need(name="GPU", found=shown)]
    if gpu.free_bytes is not None:
        memory = f"{gpu.free_bytes >> 20} of {gpu.total_bytes >> 20} MiB free"
        needs.append(
            Need(
                name="GPU memory",
                found=memory,
                missing=None
                if gpu.free_bytes >= _MIN_FREE_BYTES
                else f"too little GPU memory ({memory}, but {_MIN_FREE_BYTES >> 20} MiB are "
                f"needed); end what else runs on {gpu.name} (nvidia-smi shows it)",
            )
        )
    return needs


def _library_need(name: str, found: str | None, least: tuple[int, int]) -> Need:
    if found is None:
        return Need(name=name, found="", missing=f"{name} is not installed; {_INSTALL}")
    numbers = [int(part) for part in found.split(".")[:2] if part.isdecimal()]
    if len(numbers) == 2 and tuple(numbers) < least:
        return Need(
            name=name,
            found=found,
            missing=f"{name} {found} is too old, but {least[0]}.{least[1]} is needed; {_INSTALL}",
        )
    return Need(name=name, found=found)
