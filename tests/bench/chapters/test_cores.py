"""Rates by cores, the model for more of them, and the plan for a laboratory."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from rbc_engine.bench.chapters import cores as chapter
from rbc_engine.bench.chapters.cores import CoreRate, with_model
from rbc_engine.bench.chapters.scaling import Point, fit_points
from rbc_engine.bench.chapters.site_plan import Workload, parse_workload, plan_site
from rbc_engine.cli import app
from rbc_engine.errors import UsageError

SERIAL_S, PARALLEL_S = 0.02, 0.4


def rate(cores, *, watts=None):
    fields_per_s = 1 / (SERIAL_S + PARALLEL_S / cores)
    return CoreRate(
        cores=cores, fields_per_s=fields_per_s, cells_per_s=20 * fields_per_s, watts=watts
    )


def test_the_model_finds_what_the_rates_were_made_by_and_is_marked():
    found = with_model([rate(1), rate(2), rate(4)], cells=20, precision="fp32")
    assert (found.serial_s, found.parallel_s) == pytest.approx((SERIAL_S, PARALLEL_S))
    assert [(each.cores, each.measured) for each in found.rates] == [
        (1, True), (2, True), (4, True), (8, False), (16, False),
    ]  # fmt: skip
    for each in found.rates:
        assert each.fields_per_s == pytest.approx(rate(each.cores).fields_per_s)
        assert each.cells_per_s == pytest.approx(20 * each.fields_per_s)


@pytest.mark.parametrize("rates", [(10, 25), (10, 5)])
def test_no_part_of_a_field_takes_less_than_no_time(rates):
    """More than twice as fast on two cores, and slower."""
    measured = [CoreRate(cores=n, fields_per_s=r, cells_per_s=r) for n, r in enumerate(rates, 1)]
    found = with_model(measured, cells=1, precision="fp32")
    assert min(found.serial_s, found.parallel_s) == 0


def test_one_number_of_cores_makes_no_model():
    found = with_model([rate(1)], cells=20, precision="fp32", gaps=["2 cores: none"])
    assert (found.serial_s, len(found.rates), found.gaps) == (None, 1, ["2 cores: none"])


def test_a_plan_adds_up():
    found = with_model([rate(1), rate(4, watts=50.0)], cells=20, precision="fp32")
    wanted = Workload(fields=100, cells=20, slides_per_hour=360, hours=8)
    plan = plan_site(wanted, found)
    assert plan.fields_per_s == pytest.approx(10)
    assert plan.rate == pytest.approx(1 / 0.12)
    assert plan.machines == 2  # 10 / (0.7 / 0.12) = 1.7
    assert plan.slides_per_machine_hour == pytest.approx(0.7 / 0.12 * 36)
    # A field takes 0.12 s at 50 W: 6 J, and there are 288,000 of them.
    assert plan.kwh_per_day == pytest.approx(6 * 288_000 / 3.6e6)
    # By the model 0.7 / (0.02 + 0.4 / c) >= 10 from c = 8 on.
    assert plan.modelled_cores == 8
    faster = Workload(fields=100, cells=20, slides_per_hour=3600, hours=8)
    assert plan_site(faster, found).modelled_cores is None  # no number of cores is enough
    with pytest.raises(UsageError, match="nothing was measured"):
        plan_site(wanted, with_model([], cells=20, precision="fp32", gaps=["1 cores: broken"]))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("fields=1", "missing: cells, slides-per-hour, hours"),
        ("fields=1,fields=2,cells=1,slides-per-hour=1,hours=1", "each once"),
        ("fields=0,cells=1,slides-per-hour=1,hours=1", "above 0"),
        ("fields=nan,cells=1,slides-per-hour=1,hours=1", "above 0"),
        ("fields=1,cells=9999,slides-per-hour=1,hours=1", "1..600"),
        ("fields=1,cells=1,slides=1,hours=1", "got 'slides=1'"),
    ],
)
def test_wrong_workloads_are_refused(text, why):
    with pytest.raises(UsageError, match=why):
        parse_workload(text)


def test_times_under_a_tenth_of_a_second_are_left_out_of_fits():
    points = [Point(size=size, seconds=0.01 * size) for size in (5, 50, 500)]
    points[0] = Point(size=5, seconds=0.09)  # mostly the clock
    fit = fit_points(points, measured_s=[point.seconds for point in points])
    assert fit.exponent == pytest.approx(1)
    assert fit_points(points[:2], measured_s=[0.09, 0.5]) is None


def test_bench_plan_prints_machines_and_what_it_rests_on(monkeypatch):
    def in_process(settings, *, cores, cells):
        assert cells == 60
        return {
            "fields_per_s": rate(cores).fields_per_s, "cells_per_s": 60 * rate(cores).fields_per_s,
            "watts": None, "gap": "not available: no counter", "precision": "int8",
        }  # fmt: skip

    monkeypatch.setattr(chapter, "_in_process", in_process)
    monkeypatch.setattr(chapter, "cores_here", lambda: 2)
    wanted = "fields=200,cells=60,slides-per-hour=36,hours=8"
    done = CliRunner().invoke(app, ["bench", "--plan", wanted])
    assert done.exit_code == 0, done.exception
    said = " ".join(done.stdout.split())
    assert "need 2.00 fields/s: 1 machine like this one" in said
    assert f"measured: {rate(2).fields_per_s:.2f} fields/s here" in said
    assert "int8, fields of 640x480 from memory" in said
    assert "assumed: machines used at 70% of that rate" in said
    assert "note: watts: not available: no counter" in said
    assert sum(line.rstrip(" │┃").endswith("model") for line in done.stdout.splitlines()) == 2
    found = json.loads(CliRunner().invoke(app, ["bench", "--plan", wanted, "--json"]).stdout)
    assert [each["measured"] for each in found["cores"]["rates"]] == [True, True, False, False]
    refused = CliRunner().invoke(app, ["bench", "--plan", wanted, "--out", "x"])
    assert isinstance(refused.exception, UsageError)
