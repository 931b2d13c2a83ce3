"""Measure the correction of a field's probabilities; no library has it."""

from __future__ import annotations

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from rbc_engine.lanes.stages.field_prior import FieldPrior
from rbc_engine.packs.pack import Pack

REGIONS = 80  # per field


@pytest.mark.parametrize("fields", [1, 4, 32])
def test_engine(benchmark: BenchmarkFixture, pack: Pack, fields: int) -> None:
    prior = FieldPrior.of(pack.manifest.classifier)
    assert prior is not None
    benchmark.group = f"field prior, {fields} fields of {REGIONS} regions"
    rng = np.random.default_rng(0)
    logits = rng.normal(-4, 2, (fields * REGIONS, len(pack.types)))
    logits[np.arange(len(logits)), rng.integers(len(pack.types), size=len(logits))] += 6
    p = (1 / (1 + np.exp(-logits))).astype(np.float32)
    benchmark(prior, p, np.ones(len(p), np.bool_), [REGIONS] * fields)
