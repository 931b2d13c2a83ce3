"""`rbc-engine build`, and what `run` and `doctor` say where there is no GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rbc_engine import DeviceError, UsageError
from rbc_engine.cli import app
from rbc_engine.cli.terminal.compile_watch import CompileWatch
from rbc_engine.devices.cuda import kind as cuda_kind
from rbc_engine.devices.cuda import needs
from rbc_engine.devices.cuda.driver import DriverReport
from rbc_engine.engine import Engine
from rbc_engine.errors import OutputError
from rbc_engine.runs.run import run_entries
from rbc_engine.sinks.out_folder import claim

from ..fakes.scripted import ScriptedDevice, scripted_pack
from ..lanes.test_lanes import source

NO_DRIVER = DriverReport(problem="no NVIDIA driver; install one")


@pytest.fixture
def no_gpu(monkeypatch) -> None:
    monkeypatch.setattr(needs, "ask_driver", lambda: NO_DRIVER)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(
    "command",
    [["build", "--device", "cuda"], ["run", "samples", "--out", "out", "--device", "cuda"]],
)
def test_without_a_gpu_it_says_what_is_missing(
    command: list[str], repository: Path, monkeypatch, tmp_path: Path
) -> None:
    (tmp_path / "samples").symlink_to(repository / "samples")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, DeviceError)
    assert "--device cuda: no NVIDIA driver; install one; " in str(result.exception)
    assert "or use --device cpu" in str(result.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", ["1920", "x", "0x100", "1920x", "-1x5", "1920x1080x3"])
def test_wrong_frame_sizes_are_refused(size: str) -> None:
    result = CliRunner().invoke(app, ["build", f"--frame={size}"])
    assert isinstance(result.exception, UsageError)
    assert "--frame must be WIDTHxHEIGHT" in str(result.exception)


def test_on_a_cpu_it_proves_the_golden_inputs() -> None:
    result = CliRunner().invoke(
        app, ["build", "--device", "cpu", "--precision", "fp32", "--frame", "320x240"]
    )
    assert result.exit_code == 0, result.output
    assert "golden inputs agree" in result.output
    assert "nothing is stored: on a CPU" in result.output


def test_doctor_says_what_a_gpu_needs(monkeypatch) -> None:
    monkeypatch.setattr(cuda_kind, "gpu_problems", lambda number: ["no NVIDIA driver"])
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.output)
    names = [line.partition(":")[0] for line in report["gpu"]]
    assert {"driver", "kernels", "cuda.core", "TensorRT", "DALI", "compiled networks"} <= set(names)
    assert report["notes"][0] == "device cpu: no NVIDIA driver"


def test_the_watch_prints_lines_and_goes_on(capsys) -> None:
    with CompileWatch() as watch:
        watch.line("cuda:0: compiling [patches] (not compiled yet)")
        assert watch.progress("Building", 1, 3)
    assert "compiling [patches]" in capsys.readouterr().err
    with CompileWatch(quiet=True) as watch:
        watch.line("nothing")
    assert capsys.readouterr().err == ""


def test_a_run_whose_gpu_is_lost_keeps_what_was_done(tmp_path: Path) -> None:
    pack = scripted_pack()
    steps = 0

    def script(device: ScriptedDevice, name: str) -> None:
        nonlocal steps
        steps += name == "patches"
        if steps > 6:
            raise DeviceError("the GPU has fallen off the bus")

    def run(out: Path) -> None:
        device = ScriptedDevice(pack, script)
        with Engine.on(pack, device.choice(1)) as engine:
            run_entries(engine, list(source(40)), claim(out))

    out = tmp_path / "out"
    with pytest.raises(DeviceError, match="stage classify on scripted:0: the GPU has fallen"):
        run(out)
    summary = json.loads((out / "run.json").read_text())
    assert 0 < summary["counts"]["failed"] < summary["counts"]["fields"] < 40
    assert any(
        line.startswith("ended early: ") and "stage classify" in line
        for line in summary["warnings"]
    )
    # Where nothing at all was done, nothing is written.
    with pytest.raises(DeviceError):
        run(tmp_path / "empty")
    assert not (tmp_path / "empty" / "run.json").exists()
    assert not issubclass(DeviceError, OutputError)
