"""The bench of formats, as it is run."""

from __future__ import annotations

import json
import subprocess
import sys


def test_each_format_is_measured_and_nothing_is_left(tmp_path):
    command = [
        sys.executable,
        "-m",
        "rbc_engine.bench.studies.format_cost",
        "--formats",
        "patches,csv",
    ]
    command += ["--regions", "300", "--per-field", "50", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    measured = [json.loads(line) for line in done.stdout.splitlines()]
    assert [figures["format"] for figures in measured] == ["patches", "csv"]
    for figures in measured:
        assert figures["regions"] == 300
        assert figures["written_mb"] > 0
        assert 20 < figures["peak_mb"] < 500
    assert list(tmp_path.iterdir()) == []
