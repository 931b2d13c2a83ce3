"""The whole engine on a real GPU, against the CPU. Run with `pytest -m gpu` where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rbc_engine import Engine
from rbc_engine.devices.cuda import device as cuda_device
from rbc_engine.devices.cuda.needs import gpu_problems
from rbc_engine.packs.golden import ExpectedRegions, compare_at_precision
from rbc_engine.sources.find import find_fields
from rbc_engine.sources.images.dali import DaliSource
from rbc_engine.sources.open import dali_remedy
from rbc_engine.sources.synthetic.field import render_field
from rbc_engine.types.frames import Decoded, FieldRef, Frame, Place
from rbc_engine.types.results import FieldResult

pytestmark = pytest.mark.gpu

LEAK_FRAMES = 10_000


@pytest.fixture(scope="module", autouse=True)
def _needs_a_gpu() -> None:
    if problems := gpu_problems(0):
        pytest.skip("; ".join(problems))


def rendered(count: int, *, width: int = 640, height: int = 480) -> list[Decoded]:
    items = []
    for index in range(count):
        pixels = render_field(seed=index, width=width, height=height, cells=20 + index % 30).pixels
        ref = FieldRef(slide="s", field=f"{index}", path=Path(f"{index}.jpg"))
        items.append(Decoded(ref=ref, frame=Frame(pixels=pixels, slide="s", field=f"{index}")))
    return items


@pytest.fixture(scope="module")
def frames() -> list[Decoded]:
    return [
        *rendered(20),
        *rendered(5, width=500, height=700),
        *rendered(3, width=1280, height=960),
    ]


@pytest.fixture(scope="module")
def from_cpu(frames: list[Decoded]) -> list[FieldResult]:
    with Engine.open("chula12", device="cpu", precision="fp32") as engine:
        return list(engine.run(frames))


def check(results: Iterator[FieldResult], expected: list[FieldResult], threshold: float) -> None:
    for mine, theirs in zip(results, expected, strict=True):
        assert (mine.field, mine.error) == (theirs.field, None)
        regions = theirs.regions
        assert regions is not None
        wanted = ExpectedRegions(
            boxes=regions.boxes,
            scores=regions.scores,
            probabilities=regions.probabilities,
            abnormal_p=regions.abnormal_p,
        )
        problems = compare_at_precision(
            wanted, mine.regions, precision="fp16", score_threshold=threshold
        )
        assert problems == [], mine.field


@pytest.mark.parametrize("lanes", [1, 2, 4])
@pytest.mark.parametrize("graphs", [True, False])
def test_answers_are_the_cpus(frames, from_cpu, monkeypatch, lanes: int, graphs: bool) -> None:
    opened = cuda_device.open_gpu
    monkeypatch.setattr(
        cuda_device, "open_gpu", lambda *args, **options: opened(*args, **options, graphs=graphs)
    )
    with Engine.open("chula12", device="cuda", lanes=lanes) as engine:
        threshold = engine.pack.manifest.detector.score_threshold
        check(engine.run(frames), from_cpu, threshold)
        assert engine.lanes == lanes
        assert engine.notes == []


def test_the_same_frames_give_the_same_bits(frames) -> None:
    with Engine.open("chula12", device="cuda") as engine:
        first, second = list(engine.run(frames)), list(engine.run(frames))
    assert len(first) == len(frames)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.regions.boxes, b.regions.boxes)
        np.testing.assert_array_equal(a.regions.probabilities, b.regions.probabilities)


@pytest.mark.real
def test_real_smears_are_as_on_the_cpu(real_data: Path) -> None:
    entries = find_fields([real_data / "slides"]).entries
    with Engine.open("chula12", device="cpu", precision="fp32") as engine:
        threshold = engine.pack.manifest.detector.score_threshold
        from rbc_engine.sources.images.files import FileSource

        with FileSource(entries, workers=2, ahead=4) as source:
            items = list(source)
        expected = list(engine.run(items))
    with Engine.open("chula12", device="cuda") as engine:
        check(engine.run(items), expected, threshold)


@pytest.mark.slow
def test_ten_thousand_frames_leak_nothing() -> None:
    frames = rendered(64)
    with Engine.open("chula12", device="cuda") as engine:
        for _ in engine.run(frames):  # every buffer has its size, every graph is captured
            pass
        device = engine.choice.device
        device.enter()
        before = device.free_bytes()
        for _ in range(LEAK_FRAMES // len(frames)):
            for result in engine.run(frames):
                assert result.ok
        device.enter()
        lost = before - device.free_bytes()
    assert lost < 16 << 20, f"{lost >> 20} MiB of GPU memory are gone after {LEAK_FRAMES} frames"


def test_dali_leaves_the_frames_on_the_gpu(repository: Path) -> None:
    remedy = dali_remedy()
    if remedy is not None:
        pytest.skip(remedy)
    entries = find_fields([repository / "samples"]).entries
    with Engine.open("chula12", device="cuda") as engine:
        source = DaliSource(
            entries,
            places=[Place("cuda", 0)],
            batch_size=engine.choice.lane_frames,
            workers=4,
            ahead=16,
        )
        with source:
            items = list(source)
        jpegs = [d for d in items if d.ref.path.suffix == ".jpg"]
        assert jpegs
        assert all(d.frame.place == Place("cuda", 0) for d in jpegs)
        on_gpu = list(engine.run(items))
        on_host = list(
            engine.run(
                Decoded(ref=d.ref, frame=d.frame.on_host() if d.frame else None, error=d.error)
                for d in items
            )
        )
    assert any(result.ok for result in on_gpu)
    for a, b in zip(on_gpu, on_host, strict=True):
        if a.ok:
            np.testing.assert_array_equal(a.regions.boxes, b.regions.boxes)


def test_a_second_opening_compiles_nothing() -> None:
    said: list[str] = []

    class Watch:
        def line(self, text: str) -> None:
            said.append(text)

        def progress(self, phase: str, done: int, total: int) -> bool:
            return True

    with Engine.open("chula12", device="cuda"):
        pass
    with Engine.open("chula12", device="cuda", watch=Watch()):
        assert said == []
