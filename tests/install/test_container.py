"""The Containerfile and the script of the wheels, as far as that goes without a registry."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path


def test_each_container_runs_run_and_nothing_else(repository: Path) -> None:
    text = (repository / "Containerfile").read_text("utf-8")
    stages = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]
    named = {re.search(r" AS (\S+)", stage)[1]: stage for stage in stages}
    assert set(named) == {"cpu-wheel", "cuda-wheel", "cpu", "cuda"}
    for target, cuda in (("cpu", "OFF"), ("cuda", "ON")):
        stage = named[target]
        assert stage.rstrip().endswith('ENTRYPOINT ["/opt/rbc/bin/rbc-engine", "run"]')
        assert "g++" not in stage
        assert "USER 1000:1000" in stage
        assert f"from={target}-wheel" in stage
        assert f"RBC_CUDA={cuda}" in named[f"{target}-wheel"]


def test_wheels_need_no_compiler_and_ci_makes_one(repository: Path) -> None:
    script = repository / ".ci" / "wheels"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert "(3.10 3.11 3.12 3.13)" in script.read_text("utf-8")
    ci = (repository / ".ci" / "run").read_text("utf-8")
    assert ".ci/wheels" in ci
    assert ".ci/newcomer" in ci
