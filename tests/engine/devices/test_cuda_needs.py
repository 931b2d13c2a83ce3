"""What a GPU is reported to lack: driver, GPU, memory, libraries, kernels, with their remedies."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from rbc_engine import DeviceError, UsageError
from rbc_engine.devices import choose
from rbc_engine.devices.cuda import kind as cuda_kind
from rbc_engine.devices.cuda import needs
from rbc_engine.devices.cuda.driver import DriverReport, Gpu, ask_driver
from rbc_engine.devices.cuda.needs import gpu_needs
from rbc_engine.libraries import Library
from rbc_engine.types.frames import HOST

T4 = Gpu(number=0, name="Tesla T4", capability=(7, 5), total_bytes=16 << 30, free_bytes=15 << 30)
WHOLE = DriverReport(cuda=(13, 0), gpus=(T4,))
INSTALLED = {"tensorrt": "11.4.0.106", "cuda.core": "1.2.2"}

# As libcuda answers, from what the test defines.
DRIVER = r"""
#include <stddef.h>
#include <string.h>
int cuDriverGetVersion(int *v) { *v = VERSION; return 0; }
int cuInit(unsigned f) { return INIT; }
int cuDeviceGetCount(int *n) { *n = COUNT; return 0; }
int cuDeviceGet(int *d, int n) { *d = n + 100; return 0; }
int cuDeviceGetName(char *s, int n, int d) { strncpy(s, d == 100 ? "Zero" : "One", n); return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? 8 : 9; return 0; }
int cuDeviceTotalMem_v2(size_t *s, int d) { *s = 24ull << 30; return 0; }
int cuDevicePrimaryCtxRetain(void **c, int d) { *c = &c; return RETAIN; }
int cuDevicePrimaryCtxRelease_v2(int d) { return 0; }
int cuCtxPushCurrent_v2(void *c) { return 0; }
int cuCtxPopCurrent_v2(void **c) { return 0; }
int cuMemGetInfo_v2(size_t *f, size_t *t) { *f = 20ull << 30; return 0; }
int cuGetErrorString(int e, const char **s)
{ *s = "system has unsupported display driver"; return 0; }
"""


@pytest.fixture
def driver(tmp_path: Path):
    """Makes a library that answers like libcuda.so.1 on some machine."""

    def make(*, version: int = 13000, init: int = 0, count: int = 2, retain: int = 0) -> str:
        (tmp_path / "driver.c").write_text(DRIVER)
        library = tmp_path / "libcuda.so"
        compiler = shutil.which("cc") or shutil.which("gcc") or "c++"
        values = {"VERSION": version, "INIT": init, "COUNT": count, "RETAIN": retain}
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-o", library, tmp_path / "driver.c"]
            + [f"-D{name}={value}" for name, value in values.items()],
            check=True,
        )
        return str(library)

    return make


def test_no_driver_is_no_crash() -> None:
    report = ask_driver("libnothing.so.1")
    assert report.cuda is None
    assert report.gpus == ()
    assert "no NVIDIA driver" in (report.problem or "")
    assert "install driver 580" in (report.problem or "")


def test_gpus_are_described(driver) -> None:
    report = ask_driver(driver())
    assert report.problem is None
    assert report.cuda == (13, 0)
    assert [(gpu.number, gpu.name) for gpu in report.gpus] == [(0, "Zero"), (1, "One")]
    assert report.gpus[0].capability == (8, 9)
    assert (report.gpus[0].total_bytes, report.gpus[0].free_bytes) == (24 << 30, 20 << 30)


@pytest.mark.parametrize(
    ("machine", "says"),
    [
        ({"init": 100}, "sees no GPU; check nvidia-smi and CUDA_VISIBLE_DEVICES"),
        ({"count": 0}, "sees no GPU"),
        ({"init": 803}, "does not start (system has unsupported display driver); check nvidia-smi"),
        ({"version": 0}, "does not report its version"),
    ],
)
def test_what_stops_the_driver_is_said(driver, machine, says: str) -> None:
    report = ask_driver(driver(**machine))
    assert report.gpus == ()
    assert says in (report.problem or "")


def test_unknown_free_memory_is_no_failure(driver) -> None:
    report = ask_driver(driver(retain=2))
    assert report.gpus[0].free_bytes is None
    assert report.problem is None


def one_gpu(name: str, capability: tuple[int, int], *, free_bytes: int) -> Gpu:
    total_bytes = 16 << 30
    return Gpu(
        number=0,
        name=name,
        capability=capability,
        total_bytes=total_bytes,
        free_bytes=free_bytes,
    )


def driver_13(gpu: Gpu) -> DriverReport:
    return DriverReport(cuda=(13, 0), gpus=(gpu,))


def missing(number: int = 0, *, report=WHOLE, has_kernels=True, installed=INSTALLED) -> list[str]:
    needs = gpu_needs(
        number,
        driver=report,
        has_kernels=has_kernels,
        version_of=lambda library: installed.get(library.module),
    )
    assert all(str(need).startswith(f"{need.name}: ") for need in needs)
    return [need.missing for need in needs if need.missing]


def test_a_whole_machine_misses_nothing() -> None:
    assert missing() == []


@pytest.mark.parametrize(
    ("machine", "says"),
    [
        ({"report": DriverReport(problem="no NVIDIA driver; install")}, ["no NVIDIA driver"]),
        (
            {"report": DriverReport(cuda=(12, 8), gpus=(T4,))},
            ["driver is too old (for CUDA 12.8, but CUDA 13.0 is needed); install driver 580"],
        ),
        ({"number": 3}, ["there is no GPU 3; there are cuda:0 Tesla T4"]),
        (
            {"report": driver_13(one_gpu("GTX 1070", (6, 1), free_bytes=8 << 30))},
            ["GTX 1070 is too old (compute capability 6.1, but 7.5 is needed"],
        ),
        (
            {"report": driver_13(one_gpu("T4", (7, 5), free_bytes=1 << 30))},
            ["too little GPU memory (1024 of 16384 MiB free, but 2048 MiB are needed); end what"],
        ),
        ({"has_kernels": False}, ["no CUDA kernels; install it where nvcc 13 is"]),
        ({"installed": {"cuda.core": "1.2.2"}}, ["TensorRT is not installed; pip install"]),
        (
            {"installed": INSTALLED | {"tensorrt": "10.16.1.11"}},
            ["TensorRT 10.16.1.11 is too old, but 11.1 is needed; pip install"],
        ),
        ({"installed": INSTALLED | {"cuda.core": "0.3.2"}}, ["cuda.core 0.3.2 is too old"]),
        ({"installed": INSTALLED | {"tensorrt": "of unknown version"}}, []),
        (
            {"has_kernels": False, "installed": {}},
            ["no CUDA kernels", "cuda.core is not installed", "TensorRT is not installed"],
        ),
    ],
)  # fmt: skip
def test_each_missing_thing_has_its_line_and_remedy(machine, says: list[str]) -> None:
    lines = missing(**machine)
    assert len(lines) == len(says)
    for line, part in zip(lines, says, strict=True):
        assert part in line
        assert "\n" not in line


@pytest.mark.parametrize(
    ("module", "distributions", "version"),
    [
        ("numpy", ("numpy",), np.__version__),
        ("numpy", ("no-such-distribution", "numpy"), np.__version__),
        ("numpy", ("no-such-distribution",), "of unknown version"),
        ("no_such_module", ("numpy",), None),
        ("no_such_package.module", ("numpy",), None),
    ],
)
def test_libraries_are_found_without_importing_them(module, distributions, version) -> None:
    library = Library(name="X", module=module, distributions=distributions, remedy="pip install x")
    assert library.version() == version
    assert library.missing() == (None if version else "X is not installed; pip install x")
    assert str(library) == (f"X {version}" if version else library.missing())


def test_auto_takes_the_cpu_and_says_why(monkeypatch) -> None:
    monkeypatch.setattr(cuda_kind, "gpu_problems", lambda number: ["no NVIDIA driver; install one"])
    (choice,) = choose.open_devices("auto")
    with choice.device:
        assert choice.place == HOST
        assert choice.notes[0] == "device cpu: no NVIDIA driver; install one"


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:1", "cuda:0,1", "cuda:all"])
def test_a_gpu_that_was_asked_for_is_not_replaced(monkeypatch, device: str) -> None:
    monkeypatch.setattr(needs, "ask_driver", lambda: DriverReport(problem="no NVIDIA driver"))
    with pytest.raises(DeviceError, match=f"--device {device}: no NVIDIA driver.*use --device cpu"):
        choose.open_devices(device)


@pytest.mark.parametrize(
    "device",
    ["gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:0,", "cuda:0,0", "cuda:²", "auto:0", "cpu:", ""],
)
def test_wrong_names_are_refused(device: str) -> None:
    with pytest.raises(UsageError, match="--device"):
        choose.open_devices(device)
