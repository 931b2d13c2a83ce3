"""Cases for fused_heads, and what numpy says to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .programs import run_program

H = np.float16

# patches, pixels, features, hidden, types, layout
CASES = [
    (3, 4, 192, 128, 1, "nchw"),  # more steps of features than stages, two slices
    (1, 1, 64, 64, 1, "nchw"),  # fewer steps than stages
    (70, 4, 128, 128, 3, "nchw"),  # a tile of patches and a part of one
    (64, 9, 192, 64, 12, "nhwc"),
]


def reference_heads(feature_map, first_weight, first_bias, second_weight, second_bias):
    """float64 but for the pooled features, which the exported graph and the kernel keep in fp16."""
    pooled = feature_map.astype(np.float64).mean(axis=2).astype(H).astype(np.float64)
    types, hidden = second_weight.shape
    units = pooled @ first_weight.astype(np.float64).T + first_bias.astype(np.float64)
    units = np.maximum(units, 0).reshape(-1, types, hidden)
    logits = (units * second_weight.astype(np.float64)).sum(axis=2) + second_bias.astype(np.float64)
    return 1 / (1 + np.exp(-logits))


def random_heads(patches, pixels, features, hidden, types):
    """A feature map [patches, features, pixels] and the four arrays of weights, fp16. One patch
    holds a NaN.
    """
    rng = np.random.default_rng(patches)
    feature_map = rng.gamma(1.0, 1.0, (patches, features, pixels)).astype(H)
    if patches > 1:
        feature_map[1, features // 2, 0] = np.nan
    return [
        feature_map,
        (rng.standard_normal((types * hidden, features)) / features**0.5).astype(H),
        (rng.standard_normal(types * hidden) * 0.3).astype(H),
        (rng.standard_normal((types, hidden)) / hidden**0.5 * 2).astype(H),
        rng.standard_normal(types).astype(H),
    ]


def fault_of_heads(program: Path, case) -> str:
    """What is wrong with the program's answer, or nothing."""
    *sizes, layout = case
    feature_map, *weights = random_heads(*sizes)
    in_memory = feature_map if layout == "nchw" else feature_map.transpose(0, 2, 1)
    stdin = b"".join(array.tobytes() for array in (in_memory, *weights))
    done = run_program(program, *sizes, layout, stdin=stdin)
    if done.returncode != 0:
        return (done.stdout + done.stderr).decode(errors="replace")
    expected = reference_heads(feature_map, *weights)
    # Far from one half everywhere, or any kernel would do.
    assert expected.size < 9 or np.nanstd(expected) > 0.1
    got = np.frombuffer(done.stdout, np.float32).reshape(expected.shape)
    same = np.allclose(got, expected, rtol=0, atol=2e-4, equal_nan=True)
    return "" if same else f"differs: {got} not {expected}"
