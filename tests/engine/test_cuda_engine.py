"""The whole engine on fake GPUs: the same answers as on the CPU, and what happens when GPUs fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rbc_engine import Engine
from rbc_engine.golden import ExpectedRegions, compare
from rbc_engine.sources.synthetic import render_field
from rbc_engine.types import Decoded, FieldRef, FieldResult, Frame

from .fakes.machine import FakeMachine


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch) -> None:
    monkeypatch.setenv("RBC_ENGINE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def source(count: int, *, width: int = 320, height: int = 240) -> Iterator[Decoded]:
    for index in range(count):
        pixels = render_field(seed=index, width=width, height=height, cells=6).pixels
        ref = FieldRef(slide="s", field=f"{index}", path=Path(f"{index}.jpg"))
        yield Decoded(ref=ref, frame=Frame(pixels=pixels, slide="s", field=f"{index}"))


def assert_equal(results: list[FieldResult], engine: Engine) -> None:
    """To what the CPU says of the same frames, in order."""
    threshold = engine.pack.manifest.detector.score_threshold
    with Engine.open("chula12", device="cpu", precision="fp32") as other:
        for result, expected in zip(results, other.run(source(len(results))), strict=True):
            assert result.field == expected.field
            regions = expected.regions
            assert regions is not None
            wanted = ExpectedRegions(
                boxes=regions.boxes,
                scores=regions.scores,
                probabilities=regions.probabilities,
                abnormal_p=regions.abnormal_p,
            )
            assert compare(wanted, result.regions, score_threshold=threshold) == []


def test_answers_are_the_cpus(monkeypatch) -> None:
    machine = FakeMachine().install(monkeypatch)
    with Engine.open("chula12", device="cuda") as engine:
        assert_equal(list(engine.run(source(7))), engine)
        assert engine.choice.device.name == "cuda:0: Fake GPU 0"
        assert engine.choice.device.precision == "fp16"
        assert engine.notes == []
        builds = machine.trt.builds
        assert builds > 0
    # Compiled networks are found again.
    with Engine.open("chula12", device="cuda", lanes=1) as engine:
        assert engine.analyze(render_field(seed=0, width=320, height=240, cells=6).pixels).ok
    assert machine.trt.builds == builds
