"""A pack without networks, results without images, and sessions on lanes that sleep."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rbc_engine.bench.instruments.stub_engine import stub_engine
from rbc_engine.packs.manifest import FILES, CallerSettings, Manifest
from rbc_engine.packs.pack import Pack
from rbc_engine.types.cells import Cells
from rbc_engine.types.frames import Frame
from rbc_engine.types.kinds import Kind
from rbc_engine.types.regions import RegionFlag, Regions
from rbc_engine.types.results import FieldFlag, FieldResult

from ..waits import LONG_S

_TYPES = ("disc", "sickle", "burr")


@pytest.fixture(scope="session")
def toy_pack() -> Pack:
    """Types disc, sickle and burr, of which all but the first are abnormal."""
    manifest = Manifest.model_validate(
        {
            "schema": 1,
            "name": "toy",
            "version": "1.2.3",
            "licence": "MIT",
            "types": _TYPES,
            "abnormal": _TYPES[1:],
            "detector": {
                "short_side_px": 480,
                "mean_rgb": (0, 0, 0),
                "strides_px": (4,),
                "anchor_sizes_px": ((32.0,),),
                "anchor_aspect_ratios": (1.0,),
                "proposals_per_level": 10,
                "proposals": 10,
                "proposal_nms_iou": 0.7,
                "roi_levels": 1,
                "feature_channels": 8,
                "score_threshold": 0.5,
                "nms_iou": 0.5,
                "max_regions": 10,
            },
            "classifier": {
                "patch_px": 96,
                "window_canvas_px": None,
                "window_margin": 1.0,
                "mean_rgb": (0.0, 0.0, 0.0),
                "std_rgb": (1.0, 1.0, 1.0),
                "thresholds": (0.5, 0.5, 0.5),
            },
            "caller": {"threshold": 0.5},
            "files": {name: {"sha256": "0" * 64, "bytes": 1} for name in FILES},
        }
    )
    return Pack(Path(), manifest, "ab" * 32, {})


@pytest.fixture(scope="session")
def toy_cell_pack(toy_pack: Pack) -> Pack:
    """Return the toy pack with a detector of single cells of three kinds, and its error rates."""
    manifest = toy_pack.manifest
    detector = manifest.detector.model_copy(
        update={"kinds": ("red", "white_cell", "platelet"), "unit": "cell"}
    )
    rate = {"value": 0.9, "successes": 180, "trials": 200}
    caller = CallerSettings(threshold=0.5, sensitivity=rate, specificity=rate)
    classifier = manifest.classifier.model_copy(update={"unsure_below": 0.3})
    update = {"detector": detector, "caller": caller, "classifier": classifier}
    return replace(toy_pack, manifest=manifest.model_copy(update=update))


def cells_in(rng, boxes, kinds, *, most=6):
    """Make single cells for regions, one or up to `most` for a red one, within its box."""
    counts = np.where(kinds == Kind.RED, rng.integers(1, most + 1, len(boxes)), 1)
    region = np.repeat(np.arange(len(boxes)), counts)
    low, sides = boxes[region, :2], boxes[region, 2:] - boxes[region, :2]
    corners = np.sort(rng.random((len(region), 2, 2), np.float32), axis=1)
    # The first of each region reaches to its ends, so that their union is its box.
    firsts = np.cumsum(counts) - counts
    corners[firsts] = [[0, 0], [1, 1]]
    inner = np.concatenate([low + corners[:, 0] * sides, low + corners[:, 1] * sides], axis=1)
    inner[firsts] = boxes
    return Cells.in_order(
        boxes=inner.astype(np.float32),
        scores=rng.uniform(0.3, 1, len(region)).astype(np.float32),
        kinds=kinds[region],
        region=region,
    )


@pytest.fixture(scope="session")
def make_mixed(make_result):
    """Make a result as of a detector of cells: red regions of up to six, white cells, platelets."""

    def make(slide="s", field="f.jpg", count=3, *, seed=0, **more):
        result = make_result(slide, field, count, seed=seed, **more)
        rng = np.random.default_rng((count, seed, 7))
        regions = result.regions
        kinds = rng.choice(3, count, p=(0.6, 0.2, 0.2)).astype(np.uint8)
        red = kinds == Kind.RED
        cells = cells_in(rng, regions.boxes, kinds)
        sure = np.bincount(cells.region[cells.scores >= 0.5], minlength=count)
        marks = np.where(red & (rng.random(count) < 0.3), RegionFlag.UNSURE, 0)
        flags = (regions.flags & ~np.uint8(RegionFlag.UNSURE)) | marks.astype(np.uint8)
        return replace(
            result,
            um_per_px=0.125,
            um_per_px_from="estimated",
            unfamiliar_distance=1.5,
            uncovered=0.25,
            flags=FieldFlag.UNFAMILIAR,
            regions=replace(
                regions,
                kinds=kinds,
                probabilities=regions.probabilities * red[:, None],
                has=regions.has & red[:, None],
                abnormal_p=regions.abnormal_p * red,
                abnormal=regions.abnormal & red,
                flags=flags,
                cells_low=np.maximum(sure, 1).astype(np.int32),
                cells_high=cells.per_region(count),
                cells=cells,
            ),
        )

    return make


@pytest.fixture(scope="session")
def make_result():
    """A field that was done, with random regions: of the toy pack's types, called at 0.5."""

    def make(slide="s", field="f.jpg", count=3, *, seed=0, **more):
        rng = np.random.default_rng((count, seed))
        probabilities = rng.random((count, len(_TYPES)), np.float32)
        abnormal_p = rng.random(count, np.float32)
        corners, sides = rng.random((count, 2)) * 400, 10 + rng.random((count, 2)) * 60
        regions = Regions.by_area(
            boxes=np.concatenate([corners, corners + sides], axis=1).astype(np.float32),
            scores=rng.random(count, np.float32),
            probabilities=probabilities,
            has=probabilities >= 0.5,
            abnormal_p=abnormal_p,
            abnormal=abnormal_p >= 0.5,
            flags=rng.integers(0, 16, count, np.uint8),
        )
        values = {"path": f"/in/{field}", "width": 640, "height": 480, "seconds": 0.25} | more
        return FieldResult(slide=slide, field=field, regions=regions, **values)

    return make


@pytest.fixture(scope="session")
def make_failure():
    """A field that failed."""

    def make(slide="s", field="bad.jpg", error="bad.jpg: damaged"):
        return FieldResult(slide=slide, field=field, path=f"/in/{field}", error=error)

    return make


@pytest.fixture(scope="session")
def with_frame():
    """Make a result for sinks that need frames: smooth noise, with its regions within it."""

    def make(result, *, width=160, height=120):
        rng = np.random.default_rng(
            list(f"{result.slide}/{result.field}".encode("utf-8", "backslashreplace"))
        )
        coarse = Image.fromarray(rng.integers(60, 230, (6, 8, 3), np.uint8))
        pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
        sides = np.sort(rng.random((len(result.regions), 2, 2)), axis=1)
        boxes = (sides * (width, height)).reshape(-1, 4).astype(np.float32)
        regions = result.regions
        # Each region has as many cells as before.
        cells = replace(regions.cells, boxes=boxes[regions.cells.region])
        return replace(
            result,
            width=width,
            height=height,
            regions=replace(regions, boxes=boxes, cells=cells),
            frame=Frame(pixels=pixels),
        )

    return make


class Gate:
    """A hook for stub lanes: holds every batch until it is opened, and remembers the batches."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.begun = threading.Semaphore(0)
        self.batches: list[list[str]] = []

    def __call__(self, batch):
        self.batches.append([decoded.ref.field for decoded in batch])
        if batch[0].ref.field.startswith("kill"):
            raise SystemExit("killed")
        if any(decoded.ref.field.startswith("fail") for decoded in batch):
            raise ValueError("cannot")
        self.begun.release()
        assert self.open.wait(LONG_S)


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.open.set()


@pytest.fixture
def open_session(gate, request):
    """Open sessions on an engine whose lanes wait at the gate, behind a first frame."""
    with ExitStack() as stack:

        def make(*, lanes=1, gated=True, frame_s=0.0, engine=None, **options):
            engine_options = {
                name: options.pop(name)
                for name in ("lane_frames", "batch_frames")
                if name in options
            }
            if engine is None:
                hook = gate if gated else None
                engine = stack.enter_context(
                    stub_engine(lanes=lanes, hook=hook, frame_s=frame_s, **engine_options)
                )
            gate_was_open = gate.open.is_set()
            gate.open.set()  # the warm-up passes, too
            session = engine.session(**options)
            session.wait_ready(timeout_s=LONG_S)
            stack.callback(session.close, drain=False, timeout_s=5)
            stack.callback(gate.open.set)
            if not gate_was_open:
                gate.open.clear()
            gate.batches.clear()
            while gate.begun.acquire(blocking=False):
                pass
            session.engine = engine
            return session

        yield make
