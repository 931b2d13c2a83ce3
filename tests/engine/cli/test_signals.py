"""Signals at any moment: during imports, while native code runs, and twice."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ...waits import LONG_S

STUCK = """
import ctypes, threading
from unittest import mock
import typer
import rbc_engine.cli as cli
from rbc_engine.__main__ import main
app = typer.Typer()
@app.command()
def wait():
    threading.Timer(0.5, print, ["waiting"], {"flush": True}).start()
    # Native code that never gives the main thread back to Python, though it lets others run.
    mutex = ctypes.create_string_buffer(128)
    ctypes.CDLL(None).pthread_mutex_lock(mutex)
    ctypes.CDLL(None).pthread_mutex_lock(mutex)
with mock.patch.object(cli, "app", app):
    main()
"""


def started(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_second_sigterm_ends_the_program_whatever_native_code_does():
    process = started("-c", STUCK)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=LONG_S) == 130
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_imports_ends_it_without_a_traceback(
    tmp_path: Path, number: signal.Signals
):
    """The moment is when numpy is looked for, which a run imports among the first."""
    slow = tmp_path / "slow" / "numpy"
    slow.mkdir(parents=True)
    (slow / "__init__.py").write_text(
        "import sys, time\nprint('importing', flush=True)\ntime.sleep(60)\n"
    )
    code = (
        f"import sys, runpy; sys.path.insert(0, {str(slow.parent)!r}); "
        f"sys.argv = ['rbc-engine', 'run', {str(tmp_path)!r}, '--out', {str(tmp_path / 'out')!r}]; "
        "runpy.run_module('rbc_engine', run_name='__main__', alter_sys=True)"
    )
    process = started("-c", code)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        begun = time.perf_counter()
        process.send_signal(number)
        _, errors = process.communicate(timeout=LONG_S)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert time.perf_counter() - begun < 10


def test_quiet_says_what_failed(tmp_path: Path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(b"no picture")
    command = [sys.executable, "-m", "rbc_engine", "run", str(folder), "--quiet", "--device", "cpu"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0] == "rbc-engine: every one of 2 fields failed"
    assert len(lines) == 3
    for name, line in zip(("a.jpg", "b.jpg"), lines[1:], strict=True):
        assert line.startswith("rbc-engine: failed: ")
        assert name in line
