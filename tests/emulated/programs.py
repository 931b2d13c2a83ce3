"""Compiles the programs of this folder: a kernel's own source, launcher and CPU op, over the
emulator.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

FOLDER = Path(__file__).parent
REPOSITORY = FOLDER.parents[1]

FLAVOURS = {
    # Fibers in several orders; reads and writes outside of arrays and undefined arithmetic are
    # found.
    "fibers": ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
    # A thread a CUDA thread; reads and writes that no barrier separates are found.
    "threads": ["-fsanitize=thread", "-DRBC_EMULATOR_THREADS"],
    # Fibers alone, quick to compile.
    "plain": [],
}

OPS = (
    "resize_letterbox",
    "crop_resize",
    "roi_align",
    "generate_proposals",
    "postprocess_detections",
    "fused_heads",
)


def compile_program(op: str, flavour: str, out: Path, *, kernels: Path | None = None) -> Path:
    """emulate_<op>.cpp, compiled to a file in `out`. `kernels` stands in for the repository's own
    kernels/.
    """
    program = out / f"{op}-{flavour}"
    # Includes name files of kernels/ with and without their folder.
    folder = kernels or REPOSITORY / "kernels"
    includes = [FOLDER, FOLDER / "emulator", folder.parent, folder]
    command = [
        os.environ.get("CXX") or shutil.which("g++") or "c++",
        "-std=c++20",
        "-O1",
        "-ffp-contract=off",
        *("-Wall", "-Wextra", "-Werror"),
        *FLAVOURS[flavour],
        *(f"-I{path}" for path in includes),
        str(FOLDER / f"emulate_{op}.cpp"),
        *("-pthread", "-o", str(program)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return program


def run_program(
    program: Path, *arguments: object, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [program, *map(str, arguments)], input=stdin, capture_output=True, timeout=300, check=False
    )
