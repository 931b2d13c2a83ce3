"""The real __global__ functions and launchers, run on the CPU by the emulator.

Each program compares an op with its CPU version on random inputs, among them none at all, boxes
without area, NaN, infinity, ties, more candidates than the caps; outputs and scratch memory start
out as garbage.
"""

from pathlib import Path

import pytest

from .faults import FAULTS, Fault
from .heads import CASES, fault_of_heads
from .programs import OPS, compile_program, run_program

pytestmark = pytest.mark.slow  # each compiles a program of its own


def fault_of(op: str, program: Path, flavour: str) -> str:
    """What a program finds wrong, or nothing."""
    if op == "fused_heads":
        # Real threads take long: one case has all that they could run into.
        cases = CASES[:1] if flavour == "threads" else CASES
        return next(filter(None, (fault_of_heads(program, case) for case in cases)), "")
    done = run_program(program)
    if done.returncode == 0:
        return ""
    return (done.stdout + done.stderr).decode(errors="replace") or f"ended with {done.returncode}"


@pytest.mark.parametrize("flavour", ["fibers", "threads"])
@pytest.mark.parametrize("op", OPS)
def test_equals_the_reference(op: str, flavour: str, tmp_path: Path) -> None:
    assert fault_of(op, compile_program(op, flavour, tmp_path), flavour) == ""


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_finds_planted_faults(fault: Fault, tmp_path: Path) -> None:
    kernels = fault.plant(tmp_path)
    program = compile_program(fault.op, fault.flavour, tmp_path, kernels=kernels)
    found = fault_of(fault.op, program, fault.flavour)
    assert found
    assert fault.shows_as in found
