"""nvcc takes every kernel without a warning, and none of them spills registers to memory."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

# An H100's, an A100's and a consumer card's: what is between them compiles with the package.
ARCHITECTURES = (80, 90, 120)
OPS = (
    "resize_letterbox",
    "crop_resize",
    "roi_align",
    "generate_proposals",
    "postprocess_detections",
    "fused_heads",
)
RESOURCES = re.compile(
    r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
)


@pytest.mark.slow
@pytest.mark.parametrize("op", OPS)
def test_compiles_without_spills(op: str, repository: Path, tmp_path: Path) -> None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc on PATH")
    command = [
        *(nvcc, "--threads", "2", "-std=c++17", "-O3", "--fmad=false"),
        *("-Werror", "all-warnings", "-Xcompiler=-Wall,-Wextra,-Werror", "-Xptxas", "-v"),
        *(f"-gencode=arch=compute_{sm},code=sm_{sm}" for sm in ARCHITECTURES),
        *("-c", str(repository / "kernels" / f"{op}.cu"), "-o", str(tmp_path / "kernel.o")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    kernels = RESOURCES.findall(done.stdout + done.stderr)
    assert len(kernels) >= len(ARCHITECTURES)
    assert set(kernels) == {("0", "0", "0")}, done.stderr
