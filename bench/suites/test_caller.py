"""Compare the caller with scikit-learn's model and treelite's predictor."""

from __future__ import annotations

import numpy as np
import pytest
import treelite
from pytest_benchmark.fixture import BenchmarkFixture

from rbc_engine.bench.peers.boosting import sklearn_caller
from rbc_engine.lanes.stages.call import Caller
from rbc_engine.packs.pack import Pack
from rbc_engine.types.arrays import Float32


@pytest.fixture(scope="module", params=[60, 6000])
def probabilities(request: pytest.FixtureRequest, pack: Pack) -> Float32:
    """Return random probabilities, float32 [R, T]."""
    return np.random.default_rng(0).random((request.param, len(pack.types)), np.float32)


@pytest.fixture(autouse=True)
def _group(benchmark: BenchmarkFixture, probabilities: Float32) -> None:
    benchmark.group = f"caller, {len(probabilities)} regions"


def test_engine(benchmark: BenchmarkFixture, pack: Pack, probabilities: Float32) -> None:
    benchmark(Caller(pack), probabilities)


def test_treelite(benchmark: BenchmarkFixture, pack: Pack, probabilities: Float32) -> None:
    model = treelite.Model.deserialize_bytes(pack.read("caller.treelite"))
    benchmark(treelite.gtil.predict, model, probabilities, nthread=1)


def test_sklearn(benchmark: BenchmarkFixture, pack: Pack, probabilities: Float32) -> None:
    benchmark(sklearn_caller(pack).predict_proba, probabilities)
