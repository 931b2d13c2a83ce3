"""Statistics, fits, counted work, the plan and the bottleneck: against numpy, published counts and
arithmetic by hand.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st

from rbc_engine.bench.chapters.bottleneck import find_bottleneck
from rbc_engine.bench.chapters.planning import Assumptions, make_plan
from rbc_engine.bench.chapters.scaling import field_counts
from rbc_engine.bench.chapters.stage_times import Part, StageReport
from rbc_engine.bench.instruments.bounds import Limits
from rbc_engine.bench.instruments.spreads import (
    fit_power,
    in_turn,
    ratio_spread,
    spread,
    time_passes,
)
from rbc_engine.bench.instruments.work import Work, network_work
from rbc_engine.errors import UsageError
from rbc_engine.runs.bound import bound_record, speedup


@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=50))
def test_spread_is_numpys(values):
    got = spread(values)
    assert got.median == pytest.approx(np.median(values))
    assert (got.q1, got.q3) == pytest.approx(tuple(np.percentile(values, [25, 75])))
    assert (got.min, got.max, got.n) == (min(values), max(values), len(values))


def test_spread_of_nothing_is_refused():
    with pytest.raises(UsageError, match="at least one measurement"):
        spread([])


def test_ratios_are_of_neighbours():
    # Both became twice as slow in the second pass: the ratio is the same.
    assert ratio_spread([6.0, 12.0], [2.0, 4.0]).median == 3.0
    assert ratio_spread([6.0, 12.0], [2.0, 4.0]).min == 3.0


def test_passes_are_taken_in_turn_after_the_warm_up():
    calls = []
    seconds = in_turn(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, warm_up=1, repeats=2
    )
    assert calls == ["a", "b", "a", "b", "a", "b"]
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}


def test_time_of_a_pass_is_measured():
    assert min(time_passes(lambda: time.sleep(0.02), warm_up=0, repeats=2)) >= 0.02


@given(st.floats(-2, 3), st.floats(0.01, 100))
def test_fit_finds_a_power_law(exponent, factor):
    sizes = [1.0, 3.0, 10.0, 40.0]
    got = fit_power(sizes, [factor * size**exponent for size in sizes])
    assert got.exponent == pytest.approx(exponent, abs=1e-6)
    assert got.factor == pytest.approx(factor, rel=1e-6)
    assert got.error == pytest.approx(0, abs=1e-6)


def test_fit_and_its_error_are_those_of_numpy():
    rng = np.random.default_rng(0)
    sizes = np.array([10, 32, 100, 316, 1000.0])
    costs = 0.1 * sizes * np.exp(rng.normal(0, 0.1, 5))
    (slope, offset), covariance = np.polyfit(np.log(sizes), np.log(costs), 1, cov=True)
    got = fit_power(sizes, costs)
    assert got.exponent == pytest.approx(slope)
    assert got.factor == pytest.approx(np.exp(offset))
    assert got.error == pytest.approx(np.sqrt(covariance[0, 0]))


@pytest.mark.parametrize(("sizes", "costs"), [([1], [1]), ([2, 2], [1, 1]), ([0, 1], [1, 1])])
def test_fit_without_two_sizes_is_refused(sizes, costs):
    with pytest.raises(UsageError, match="two or more positive sizes"):
        fit_power(sizes, costs)


def test_field_counts_reach_what_was_asked_for():
    assert field_counts(1000) == [10, 32, 100, 316, 1000]
    assert field_counts(20) == [10, 20]


# The older exporter is quicker, and what it is to give here is only the graph.
_OLD_EXPORT = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")


def _onnx(module, example, name):
    import io

    file = io.BytesIO()
    torch.onnx.export(
        module.eval(), (example,), file, dynamo=False, input_names=[name], opset_version=17
    )
    return file.getvalue()


@_OLD_EXPORT
def test_resnet50_has_its_published_operations():
    """4.09 G multiply-adds at 224 px: torchvision's table of models."""
    graph = _onnx(torchvision.models.resnet50(), torch.zeros(1, 3, 224, 224), "x")
    work = network_work(graph, {"x": (1, 3, 224, 224)}, bytes_per_value=4)
    published = torchvision.models.ResNet50_Weights.IMAGENET1K_V2.meta["_ops"]
    assert work.flops / 2 == pytest.approx(published * 1e9, rel=0.01)
    eight = network_work(graph, {"x": (1, 3, 224, 224)}, bytes_per_value=1)
    assert eight.bytes == work.bytes / 4


@_OLD_EXPORT
def test_grouped_convolution_and_product_are_counted():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.grouped = torch.nn.Conv2d(8, 16, 3, groups=4, padding=1, bias=False)
            self.linear = torch.nn.Linear(16, 5, bias=False)

        def forward(self, x):
            return self.linear(self.grouped(x).mean((2, 3)))

    work = network_work(
        _onnx(Net(), torch.zeros(2, 8, 6, 7), "x"), {"x": (2, 8, 6, 7)}, bytes_per_value=2
    )
    assert work.flops == 2 * (2 * 16 * 6 * 7 * (8 // 4) * 9) + 2 * (2 * 5 * 16)
    moved = (2 * 8 * 42 + 16 * 2 * 9 + 2 * 16 * 42) + (2 * 16 + 16 * 5 + 2 * 5)
    assert work.bytes == 2 * moved


def test_a_limit_is_the_longer_of_two_times():
    limits = Limits(flops_per_s={"fp32": 100.0}, bytes_per_s=10.0)
    assert limits.seconds(Work(flops=400, bytes=10), precision="fp32") == 4.0
    assert limits.seconds(Work(flops=400, bytes=90), precision="fp32") == 9.0
    # Where the rate is not known, the bytes alone limit.
    assert limits.seconds(Work(flops=400, bytes=10), precision="int8") == 1.0


def test_speedup_is_amdahls():
    assert speedup(0.5) == pytest.approx(1 / 0.75)
    assert speedup(1.0, factor=4.0) == 4.0
    assert speedup(0.0) == 1.0


def test_bound_of_a_run_names_the_longest_stage():
    got = bound_record({"decode": 1.0, "detect": 6.0, "classify": 3.0})
    assert got == {"stage": "detect", "share": 0.6, "speedup_if_twice_as_fast": 1 / 0.7}
    assert bound_record({"decode": 0.0, "detect": 0.0})["share"] == 0.0


def _part(name, seconds, wall, limit=None):
    of_limit = None if limit is None else limit / seconds
    return Part(
        name=name,
        seconds=seconds,
        share=seconds / wall,
        flops=0,
        bytes=0,
        limit_seconds=limit,
        of_limit=of_limit,
    )


def test_bottleneck_of_a_run_taken_apart():
    parts = [
        _part("decode", 0.1, 1.0),
        _part("network A", 0.3, 1.0, 0.2),
        _part("classifier", 0.5, 1.0, 0.25),
    ]
    got = find_bottleneck(
        StageReport(wall_seconds=1.0, parts=parts, idle=0.1, networks_alone_seconds=0.8)
    )
    assert (got.part, got.share, got.of_limit) == ("classifier", 0.5, 0.5)
    assert got.if_twice_as_fast == pytest.approx(1 / 0.75)
    assert got.at_its_limit == pytest.approx(1 / 0.75)
    assert got.all_at_their_limits == pytest.approx(1 / 0.65)
    assert got.outside_networks == pytest.approx(0.2)
    assert got.wall_over_networks == pytest.approx(1.25)


def test_plan_by_hand():
    assumed = Assumptions(
        fields_per_slide=100, slides_per_hour=36, scanners=(1,), slides=1000, days=1, used=0.5
    )
    scanner, archive = make_plan(
        fields_per_s=0.5, image_bytes=1e6, result_bytes=1e4, assumed=assumed
    )
    assert scanner.fields_per_s == 1.0
    assert scanner.machines == 4
    assert scanner.image_terabytes == pytest.approx(3600 * 1e6 / 1e12)
    assert archive.machines == 5  # 100,000 fields a day are 1.16 a second
    assert archive.machine_hours == pytest.approx(100_000 / 0.25 / 3600)
    assert archive.result_gigabytes == pytest.approx(1.0)
