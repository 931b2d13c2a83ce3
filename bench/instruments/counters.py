"""Count over a block: busy cores, peak memory, energy, and what the GPUs did."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rbc_engine.devices.cpu.kind import cores_here
from rbc_engine.devices.cuda.driver import ask_driver

__all__ = ["Counted", "Gap", "counted", "read_energy_uj", "spent_joules"]

_POWERCAP = Path("/sys/class/powercap")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_SAMPLE_S = 0.05

Gap = str
"""Why a figure is missing."""


@dataclass(kw_only=True)
class Counted:
    """Hold the counts of a block.

    seconds: of the block. cpu_busy: 0..1, of the cores that this process may use. peak_bytes: of
    host memory.
    energy_joules: of the processor packages, everything on the machine included. gpu_busy: 0..1,
        mean over time and GPUs. gpu_peak_bytes: over all GPUs. gpu_joules: likewise. None if `gaps`
        says why.
    """

    seconds: float = 0.0
    cpu_busy: float = 0.0
    peak_bytes: int = 0
    energy_joules: float | None = None
    gpu_busy: float | None = None
    gpu_peak_bytes: int | None = None
    gpu_joules: float | None = None
    gaps: list[Gap] = field(default_factory=list)


@contextmanager
def counted(*, powercap: Path = _POWERCAP) -> Iterator[Counted]:
    """Count over a block; the figures are available after it."""
    result = Counted()
    before_uj = read_energy_uj(powercap)
    if isinstance(before_uj, Gap):
        result.gaps.append(f"energy: {before_uj}")
    gpus = _open_gpus()
    if isinstance(gpus, Gap):
        result.gaps.append(f"GPU: {gpus}")
    peak_is_own = _reset_peak()
    if not peak_is_own:
        result.gaps.append(
            "peak memory: since the start of the process, the kernel does not reset it"
        )
    times = os.times()
    began = time.perf_counter()
    with gpus if isinstance(gpus, _GpuSampler) else _nothing():
        yield result
    result.seconds = time.perf_counter() - began
    now = os.times()
    used_s = now.user + now.system - times.user - times.system
    result.cpu_busy = used_s / result.seconds / cores_here()
    result.peak_bytes = _peak_bytes()
    if not isinstance(before_uj, Gap):
        after_uj = read_energy_uj(powercap)
        if isinstance(after_uj, Gap):
            result.gaps.append(f"energy: {after_uj}")
        else:
            result.energy_joules = spent_joules(before_uj, after_uj, powercap=powercap)
    if isinstance(gpus, _GpuSampler):
        result.gpu_busy, result.gpu_peak_bytes, result.gpu_joules = gpus.figures()


def read_energy_uj(powercap: Path = _POWERCAP) -> dict[str, int] | Gap:
    """Return the counters of all processor packages in µJ, by folder name; or why there are
    none.
    """
    packages = sorted(powercap.glob("intel-rapl:?")) + sorted(powercap.glob("intel-rapl:??"))
    if not packages:
        return "not available: this machine shows no RAPL counter (virtual machines hide it)"
    try:
        return {path.name: int((path / "energy_uj").read_text()) for path in packages}
    except PermissionError:
        return "not available: no permission to read RAPL's energy_uj; only root may, run as root"
    except (OSError, ValueError) as error:
        return f"not available: RAPL's energy_uj cannot be read ({error.__class__.__name__})"


def spent_joules(
    before: dict[str, int], after: dict[str, int], *, powercap: Path = _POWERCAP
) -> float:
    """Return the energy between two readings of the counters."""
    spent = 0
    for name, start in before.items():
        delta = after.get(name, start) - start
        if delta < 0:  # the counter wrapped around
            with suppress(OSError, ValueError):
                delta += int((powercap / name / "max_energy_range_uj").read_text())
        spent += delta
    return spent / 1e6


def _reset_peak() -> bool:
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:
        return False
    return True


def _peak_bytes() -> int:
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def _nothing() -> Iterator[None]:
    yield


class _GpuSampler:
    """Poll NVML in a thread. nvml: the module pynvml, initialised. handles: of the GPUs."""

    def __init__(self, nvml: Any, handles: list[Any]) -> None:
        self._nvml = nvml
        self._handles = handles
        self._busy: list[float] = []
        self._peak_bytes = 0
        self._watts: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="rbc-nvml", daemon=True)
        self._seconds = 0.0

    def __enter__(self) -> _GpuSampler:
        self._seconds = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._seconds = time.perf_counter() - self._seconds

    def figures(self) -> tuple[float | None, int | None, float | None]:
        """Return busy share, peak bytes and joules."""
        if not self._busy:
            return None, None, None
        busy = sum(self._busy) / len(self._busy)
        watts = sum(self._watts) / len(self._watts) if self._watts else None
        return busy, self._peak_bytes, None if watts is None else watts * self._seconds

    def _sample(self) -> None:
        nvml, error = self._nvml, self._nvml.NVMLError
        while not self._stop.wait(_SAMPLE_S):
            with suppress(error):
                rates = [nvml.nvmlDeviceGetUtilizationRates(handle) for handle in self._handles]
                self._busy.append(sum(rate.gpu for rate in rates) / 100 / len(rates))
                used = sum(nvml.nvmlDeviceGetMemoryInfo(handle).used for handle in self._handles)
                self._peak_bytes = max(self._peak_bytes, int(used))
            with suppress(error):
                milliwatts = [nvml.nvmlDeviceGetPowerUsage(handle) for handle in self._handles]
                self._watts.append(sum(milliwatts) / 1000)


def _open_gpus() -> _GpuSampler | Gap:
    problem = ask_driver().problem
    if problem is not None:
        return f"not available: {problem}"
    if find_spec("pynvml") is None:
        return "not available: nvidia-ml-py is not installed; pip install 'rbc-engine[bench]'"
    import pynvml

    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        return _GpuSampler(pynvml, [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(count)])
    except pynvml.NVMLError as error:
        return f"not available: NVML does not answer: {error}"
