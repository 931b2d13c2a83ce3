"""Which types a region is said to have."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rbc_engine.lanes.stages.call import types_held
from rbc_engine.packs.manifest import ClassifierSettings

THRESHOLDS = (0.5, 0.25, 0.75)


def settings(at_least_one: bool) -> ClassifierSettings:
    return ClassifierSettings(
        patch_px=32,
        window_margin=1.1,
        mean_rgb=(1, 2, 3),
        std_rgb=(1, 1, 1),
        thresholds=THRESHOLDS,
        at_least_one=at_least_one,
    )


@given(
    hnp.arrays(
        np.float32, st.tuples(st.integers(0, 5), st.just(3)), elements=st.floats(0, 1, width=32)
    ),
    st.booleans(),
)
def test_types_are_those_over_their_threshold_or_the_likeliest(probabilities, at_least_one: bool):
    has = types_held(probabilities, settings=settings(at_least_one))
    assert has.shape == probabilities.shape
    assert has.dtype == bool
    for row, held in zip(probabilities.tolist(), has.tolist(), strict=True):
        expected = [p >= t for p, t in zip(row, THRESHOLDS, strict=True)]
        if at_least_one and not any(expected):
            expected[row.index(max(row))] = True
        assert held == expected
