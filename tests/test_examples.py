"""The examples run as they stand, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def run(repository: Path, name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(repository / "examples" / name), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_has_its_test(repository: Path) -> None:
    names = {path.name for path in (repository / "examples").glob("*.py")}
    assert names == {"embed.py", "live_demo_camera.py", "stop_when_sure.py"}


def test_embed_is_twenty_lines_and_runs(repository: Path) -> None:
    assert len((repository / "examples" / "embed.py").read_text().splitlines()) <= 20
    printed = run(repository, "embed.py")
    assert printed.count("done") == 7  # six fields, and the counts
    assert "'submitted': 6, 'done': 6" in printed


def test_live_demo_camera_counts_every_frame(repository: Path) -> None:
    pytest.importorskip("pymmcore_plus")
    assert "'submitted'" in run(repository, "live_demo_camera.py", "1.5")


def test_stop_when_sure_stops_early_and_counts_once(repository: Path) -> None:
    pytest.importorskip("pymmcore_plus")
    printed = run(repository, "stop_when_sure.py")
    fields, cells = int(printed.split()[0]), int(printed.split()[4])
    assert 2 <= fields < 36
    assert cells >= 50
    assert " 0 seen twice" not in printed
