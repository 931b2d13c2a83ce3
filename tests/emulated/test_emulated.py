"""The real __global__ functions and launchers, run on the CPU by the emulator.

Each program compares an op with its CPU version on random inputs, among them none at all, boxes without area, NaN,
infinity, ties, more candidates than the caps; outputs and scratch memory start out as garbage.
"""

from pathlib import Path

import numpy as np
import pytest

from .programs import OPS, compile_program, run_program

H = np.float16

FLAVOURS = ["fibers", pytest.param("threads", marks=pytest.mark.slow)]


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("op", [op for op in OPS if op != "fused_heads"])
def test_equals_the_cpu(op: str, flavour: str, tmp_path: Path) -> None:
    done = run_program(compile_program(op, flavour, tmp_path))
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


def reference_heads(feature_map, first_weight, first_bias, second_weight, second_bias):
    """float64 but for the pooled features, which the exported graph and the kernel keep in fp16."""
    pooled = feature_map.astype(np.float64).mean(axis=2).astype(H).astype(np.float64)
    types, hidden = second_weight.shape
    units = pooled @ first_weight.astype(np.float64).T + first_bias.astype(np.float64)
    units = np.maximum(units, 0).reshape(-1, types, hidden)
    logits = (units * second_weight.astype(np.float64)).sum(axis=2) + second_bias.astype(np.float64)
    return 1 / (1 + np.exp(-logits))


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_fused_heads_equals_numpy(flavour: str, tmp_path: Path) -> None:
    program = compile_program("fused_heads", flavour, tmp_path)
    cases = [
        (3, 4, 192, 128, 1, "nchw"),  # more steps of features than stages, two slices
        (1, 1, 64, 64, 1, "nchw"),  # fewer steps than stages
        (70, 4, 128, 128, 3, "nchw"),  # a tile of patches and a part of one
        (64, 9, 192, 64, 12, "nhwc"),
    ]
    for patches, pixels, features, hidden, types, layout in cases[
        : 1 if flavour == "threads" else None
    ]:
        rng = np.random.default_rng(patches)
        feature_map = rng.gamma(1.0, 1.0, (patches, features, pixels)).astype(H)
        weights = [
            (rng.standard_normal((types * hidden, features)) / features**0.5).astype(H),
            (rng.standard_normal(types * hidden) * 0.3).astype(H),
            (rng.standard_normal((types, hidden)) / hidden**0.5 * 2).astype(H),
            rng.standard_normal(types).astype(H),
        ]
        in_memory = feature_map if layout == "nchw" else feature_map.transpose(0, 2, 1)
        stdin = in_memory.tobytes() + b"".join(array.tobytes() for array in weights)
        done = run_program(program, patches, pixels, features, hidden, types, layout, stdin=stdin)
        assert done.returncode == 0, (done.stdout + done.stderr).decode()
        probabilities = np.frombuffer(done.stdout, np.float32).reshape(patches, types)
        expected = reference_heads(feature_map, *weights)
        assert (
            expected.size == 1 or expected.std() > 0.1
        )  # far from one half everywhere, or any kernel would do
        np.testing.assert_allclose(probabilities, expected, atol=2e-4)
