"""Counters of the machine, real ones and folders that look like them."""

from __future__ import annotations

import gc
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rbc_engine.bench.instruments import counters
from rbc_engine.bench.instruments.counters import counted, read_energy_uj
from rbc_engine.bench.instruments.machine import cache_bytes, describe_machine
from rbc_engine.devices.cpu.kind import cores_here
from rbc_engine.devices.cuda.driver import DriverReport, Gpu


def _rapl(folder, *values):
    for number, value in enumerate(values):
        package = folder / f"intel-rapl:{number}"
        package.mkdir(exist_ok=True)
        (package / "energy_uj").write_text(f"{value}\n")
        (package / "max_energy_range_uj").write_text("1000000\n")
    # A part of a package: it is in the package's count already.
    part = folder / "intel-rapl:0:0"
    part.mkdir(exist_ok=True)
    (part / "energy_uj").write_text("5\n")


def test_energy_is_the_sum_over_packages(tmp_path):
    _rapl(tmp_path, 100_000, 200_000)
    with counted(powercap=tmp_path) as got:
        _rapl(tmp_path, 600_000, 300_000)
    assert got.energy_joules == pytest.approx(0.6)


def test_energy_of_a_counter_that_began_again(tmp_path):
    _rapl(tmp_path, 900_000)
    with counted(powercap=tmp_path) as got:
        _rapl(tmp_path, 100_000)
    assert got.energy_joules == pytest.approx(0.2)


def test_no_counter_and_no_permission_are_stated(tmp_path, monkeypatch):
    assert "no RAPL counter" in read_energy_uj(tmp_path)
    _rapl(tmp_path, 1)
    read_text = type(tmp_path).read_text

    def refuse(path, *args, **options):
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return read_text(path, *args, **options)

    monkeypatch.setattr(type(tmp_path), "read_text", refuse)
    with counted(powercap=tmp_path) as got:
        pass
    assert got.energy_joules is None
    assert any("no permission" in gap and "run as root" in gap for gap in got.gaps)


def test_busy_cores_and_peak_memory_are_of_the_block():
    gc.collect()  # what earlier tests left would be freed in between
    with counted() as idle:
        time.sleep(0.1)
    with counted() as busy:
        until = time.process_time() + 0.2
        block = np.ones(400_000_000, np.uint8)
        while time.process_time() < until:
            pass
    assert block[0] == 1
    assert busy.cpu_busy * cores_here() * busy.seconds >= 0.15
    assert idle.cpu_busy * cores_here() * idle.seconds < 0.15
    if not any(gap.startswith("peak memory") for gap in busy.gaps):
        assert busy.peak_bytes - idle.peak_bytes > 250_000_000


class _Nvml:
    """Two GPUs: one half busy at 100 W, one idle at 20 W."""

    class NVMLError(Exception):
        pass

    nvmlInit = staticmethod(lambda: None)  # noqa: N815
    nvmlDeviceGetCount = staticmethod(lambda: 2)  # noqa: N815
    nvmlDeviceGetHandleByIndex = staticmethod(lambda index: index)  # noqa: N815
    nvmlDeviceGetUtilizationRates = staticmethod(  # noqa: N815
        lambda index: SimpleNamespace(gpu=[50, 0][index])
    )
    nvmlDeviceGetMemoryInfo = staticmethod(  # noqa: N815
        lambda index: SimpleNamespace(used=[1000, 24][index])
    )
    nvmlDeviceGetPowerUsage = staticmethod(lambda h: [100_000, 20_000][h])  # noqa: N815


def test_gpu_figures_are_asked_of_nvml(monkeypatch):
    gpu = Gpu(number=0, name="x", capability=(9, 0), total_bytes=1, free_bytes=1)
    monkeypatch.setattr(counters, "ask_driver", lambda: DriverReport(gpus=(gpu,)))
    monkeypatch.setattr(counters, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "pynvml", _Nvml)
    with counted() as got:
        time.sleep(0.3)
    assert got.gpu_busy == pytest.approx(0.25)
    assert got.gpu_peak_bytes == 1024
    assert got.gpu_joules == pytest.approx(120 * got.seconds, rel=0.2)


def test_gpu_gaps_are_stated(monkeypatch):
    monkeypatch.setattr(counters, "ask_driver", lambda: DriverReport(problem="no driver"))
    with counted() as got:
        pass
    assert "GPU: not available: no driver" in got.gaps
    monkeypatch.setattr(counters, "ask_driver", lambda: DriverReport())
    monkeypatch.setattr(counters, "find_spec", lambda name: None)
    with counted() as got:
        pass
    assert any("nvidia-ml-py is not installed" in gap for gap in got.gaps)


def test_caches_are_read_from_the_kernels_tables(tmp_path):
    for index, (level, kind, size) in enumerate(
        [(1, "Data", "32K"), (1, "Instruction", "64K"), (3, "Unified", "32M")]
    ):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        for name, value in {"level": level, "type": kind, "size": size}.items():
            (folder / name).write_text(f"{value}\n")
    assert cache_bytes(tmp_path) == {"L1d": 32 * 1024, "L1i": 64 * 1024, "L3": 32 * 2**20}
    assert cache_bytes(tmp_path / "nothing") == {}


def test_machine_tells_nothing_of_its_user():
    machine = describe_machine()
    assert machine["cores_used"] == cores_here()
    assert machine["memory_bytes"] > 2**28
    assert machine["libraries"]["numpy"] == np.__version__
    text = repr(machine)
    for secret in (str(Path.home()), os.uname().nodename, str(Path.cwd())):
        assert secret not in text or secret == "/"
