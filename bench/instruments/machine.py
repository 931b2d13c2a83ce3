"""Describe the measured machine, as far as speed depends on it, without paths or user names."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rbc_engine.devices.cpu.kind import cores_here
from rbc_engine.devices.cuda.driver import ask_driver

__all__ = ["LIBRARIES", "cache_bytes", "describe_machine"]

LIBRARIES = (
    *("numpy", "openvino", "treelite", "pyarrow", "simplejpeg", "pillow", "tifffile"),
    *("torch", "torchvision", "scikit-learn", "onnx", "onnxruntime", "opencv-python-headless"),
    *("tensorrt", "torch-tensorrt", "nvidia-ml-py"),
)
"""Packages whose versions change a measured speed."""

_CPU = Path("/proc/cpuinfo")
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


def describe_machine() -> dict[str, Any]:
    """Describe `machine` of bench.json; what cannot be found out is None."""
    driver = ask_driver()
    return {
        "cpu": _cpu_model(),
        "cores_used": cores_here(),
        "cores": os.cpu_count(),
        "caches_bytes": cache_bytes(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load_1min": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "gpus": [{"name": gpu.name, "memory_bytes": gpu.total_bytes} for gpu in driver.gpus],
        "gpu_problem": driver.problem,
        "libraries": {name: found for name in LIBRARIES if (found := _version(name))},
    }


def cache_bytes(folder: Path = _CACHES) -> dict[str, int]:
    """Return sizes of the caches that the first core sees, as {'L1d': 32768, ...}."""
    sizes = {}
    for cache in sorted(folder.glob("index*")):
        try:
            level, kind, size = (
                (cache / name).read_text().strip() for name in ("level", "type", "size")
            )
        except OSError:
            continue
        suffix = {"Data": "d", "Instruction": "i"}.get(kind, "")
        unit = _UNITS.get(size[-1:])
        if size.rstrip("KMG").isdecimal():
            sizes[f"L{level}{suffix}"] = int(size.rstrip("KMG")) * (unit or 1)
    return sizes


def _cpu_model() -> str | None:
    try:
        lines = _CPU.read_text().splitlines()
    except OSError:
        return platform.processor() or None
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
