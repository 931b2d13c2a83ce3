"""The suite as a shell starts it in the background: with interrupts ignored."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

CTRL_C = "tests/engine/sources/images/test_ahead.py::test_ctrl_c_stops_the_threads_promptly"


def test_interrupts_work_where_they_were_ignored(repository: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "--rootdir", repository, "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-c", repository / "pyproject.toml", repository / CTRL_C],
        cwd=tmp_path,  # not the checkout, whose packages are not those installed
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
