"""A lane whose detector finds single cells: crops, types and counts, against cells alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from rbc_engine.devices.cpu.device import HostDevice
from rbc_engine.lanes.lane import Lane
from rbc_engine.lanes.stages.call import Caller
from rbc_engine.lanes.stages.classify import Classify
from rbc_engine.lanes.stages.detect import Detect, Detections
from rbc_engine.lanes.stages.field_prior import FieldPrior
from rbc_engine.meter import Meter
from rbc_engine.packs.pack import Pack, find_pack
from rbc_engine.sources.synthetic.field import render_field
from rbc_engine.types.frames import Decoded, FieldRef, Frame
from rbc_engine.types.kinds import Kind
from rbc_engine.types.regions import RegionFlag

CELL = 36.0
CHAIN = [(100 + 34 * i, 120) for i in range(6)]  # more than whole_up_to
PAIR = [(420, 300), (452, 300)]
ALONE = [(300, 400), (560, 100), (10, 240)]  # the last at the border
WHITE = [(480, 420), (285, 415)]  # the second touches a red cell
PLATELET = [(60, 400)]


@pytest.fixture(scope="module")
def frame():
    return render_field(seed=3, width=640, height=480, cells=80, cell_px=CELL).pixels


@pytest.fixture(scope="module")
def pack():
    pack = Pack.open(find_pack("chula12"))
    detector = pack.manifest.detector.model_copy(
        update={"unit": "cell", "kinds": ("platelet", "red", "white_cell")}
    )
    manifest = pack.manifest.model_copy(update={"detector": detector})
    return replace(pack, manifest=manifest)


def detections(groups):
    """groups: of a class of the detector, the centres of its cells."""
    centres = np.array([centre for _, cells in groups for centre in cells], np.float32).reshape(
        -1, 2
    )
    classes = np.array([code for code, cells in groups for _ in cells], np.uint8)
    return Detections(
        boxes=np.concatenate([centres - CELL / 2, centres + CELL / 2], axis=1).clip(0, None),
        scores=np.linspace(0.95, 0.4, len(centres)).astype(np.float32),
        classes=classes,
        saturated=False,
    )


@pytest.fixture(scope="module")
def analysed(pack, frame):
    """Analyse a field by a lane whose detector finds just this."""
    with HostDevice(precision="fp32", lanes=1, threads=1) as device:

        def analyse(found, *, field_prior=None, **settings):
            classifier = pack.manifest.classifier.model_copy(update=settings)
            manifest = pack.manifest.model_copy(update={"classifier": classifier})
            lane = Lane(
                device,
                replace(pack, manifest=manifest),
                Caller(pack),
                batch_frames=1,
                batch_patches=(8,),
                threads=1,
                meter=Meter(),
                field_prior=field_prior,
            )
            decoded = Decoded(
                ref=FieldRef(slide="s", field="f", path=Path()), frame=Frame(pixels=frame)
            )
            with mock.patch.object(Detect, "__call__", return_value=[found]):
                [result] = lane.analyze([decoded])
            return result

        yield analyse


def test_types_of_a_crowd_are_the_union_of_its_cells(analysed):
    every = [(1, [*CHAIN, *PAIR, *ALONE]), (2, WHITE), (0, PLATELET)]
    regions = analysed(detections(every)).regions
    counts = regions.cells.per_region(len(regions)).tolist()
    red = regions.red
    assert sorted(np.array(counts)[red].tolist()) == [1, 1, 1, 2, 6]
    assert sorted(regions.kinds.tolist()) == [0] * 5 + [1, 1, 2]
    alone = {cell: analysed(detections([(1, [cell])])).regions for cell in (*CHAIN, *ALONE)}
    crowd = counts.index(6)
    p = np.concatenate([alone[cell].probabilities for cell in CHAIN])
    np.testing.assert_allclose(regions.probabilities[crowd], p.max(axis=0), atol=1e-4)
    abnormal_p = max(float(alone[cell].abnormal_p[0]) for cell in CHAIN)
    assert regions.abnormal_p[crowd] == pytest.approx(abnormal_p, abs=1e-3)
    np.testing.assert_array_equal(
        regions.boxes[crowd], [100 - CELL / 2, 120 - CELL / 2, 270 + CELL / 2, 120 + CELL / 2]
    )
    # The pair is classified as a whole, which is neither of its cells.
    pair = counts.index(2)
    whole = analysed(detections([(1, PAIR)])).regions
    np.testing.assert_allclose(regions.probabilities[pair], whole.probabilities[0], atol=1e-4)
    apart = analysed(detections([(1, PAIR)]), whole_up_to=1).regions
    assert len(apart) == 1
    assert np.abs(apart.probabilities - whole.probabilities).max() > 1e-3


def test_what_is_not_red_is_not_classified(analysed):
    seen = []
    with mock.patch.object(
        Classify, "__call__", lambda self, patches: seen.append(len(patches)) or 1 / 0
    ):
        regions = analysed(detections([(2, WHITE), (0, PLATELET)])).regions
    assert seen == []
    assert regions.kinds.tolist() == [Kind.WHITE_CELL, Kind.WHITE_CELL, Kind.PLATELET]
    for name in ("probabilities", "abnormal_p", "has", "abnormal", "flags"):
        assert not getattr(regions, name).any()
    assert regions.cells_high.tolist() == [1, 1, 1]
    mixed = analysed(detections([(1, ALONE), (2, WHITE)]), at_least_one=True).regions
    others = mixed.take(~mixed.red)
    assert not others.has.any()
    assert mixed.take(mixed.red).has.any(axis=1).all()


def test_counts_are_of_sure_and_of_all_cells(analysed):
    regions = analysed(detections([(2, WHITE), (1, [*PAIR, *CHAIN])])).regions
    crowd = int(regions.cells_high.argmax())
    scores = regions.cells.scores[regions.cells.region == crowd]
    assert regions.cells_high[crowd] == 6
    assert 1 <= regions.cells_low[crowd] == (scores >= 0.5).sum() < 6
    assert regions.flags[crowd] & RegionFlag.CLUMP
    assert (np.diff(scores) <= 0).all()
    assert regions.scores[crowd] == scores[0]


def test_a_region_without_a_likely_type_is_unsure(analysed):
    found = detections([(1, [*CHAIN, *PAIR, *ALONE]), (2, WHITE)])
    sure = analysed(found).regions
    assert not (sure.flags & RegionFlag.UNSURE).any()
    likeliest = sure.probabilities.max(axis=1)
    line = float(np.median(likeliest[sure.red]))
    unsure = analysed(found, unsure_below=line).regions
    marked = unsure.flags & RegionFlag.UNSURE > 0
    np.testing.assert_array_equal(marked, unsure.red & (likeliest < np.float32(line)))
    assert 0 < marked.sum() < unsure.red.sum()


def test_cells_of_a_crowd_take_part_in_the_fields_mix(analysed, pack):
    """Each patch of the field, whole region or cell, counts in the field's types by itself."""
    asked = []

    class Prior(FieldPrior):
        def __call__(self, probabilities, informative, counts):
            asked.append((len(probabilities), informative.tolist(), counts))
            return super().__call__(probabilities, informative, counts)

    prior = Prior(pack.manifest.classifier.field_prior)
    found = detections([(1, [*ALONE, *CHAIN]), (2, WHITE)])
    analysed(found, field_prior=prior)
    [(patches, informative, counts)] = asked
    assert patches == len(ALONE) + len(CHAIN) == sum(counts)
    # Neither the one at the border nor those that are not sure.
    scores = found.scores[:patches]
    assert sum(informative) == int((scores >= 0.5).sum()) - 1


def test_the_scale_says_where_it_comes_from(analysed, pack):
    result = analysed(detections([(1, ALONE)]))
    um = pack.manifest.detector.um_per_canvas_px
    assert result.um_per_px_from == "assumed"
    assert result.um_per_px == pytest.approx(um * pack.manifest.detector.short_side_px / 480)
