"""Counting a slide while it is looked at: each cell once, and an interval that covers the truth."""

from __future__ import annotations

import numpy as np
import pytest

from rbc_engine.errors import UsageError
from rbc_engine.stats.monitor import SlideMonitor
from rbc_engine.stats.stage_map import StageMap
from rbc_engine.stats.wilson import wilson_interval
from rbc_engine.types.ends import Ended, FrameStatus
from rbc_engine.types.regions import RegionFlag, Regions
from rbc_engine.types.results import FieldResult

TYPES = ("disc", "sickle")
HW = (480, 640)
PIXEL_UM = 0.2


def field(boxes, *, abnormal=None, border=None, name="f"):
    count = len(boxes)
    bad = np.zeros(count, np.bool_) if abnormal is None else np.array(abnormal, np.bool_)
    flags = np.zeros(count, np.uint8)
    if border is not None:
        flags[np.array(border, np.bool_)] = RegionFlag.BORDER
    regions = Regions.by_area(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.ones(count, np.float32),
        probabilities=np.stack([~bad, bad], axis=1).astype(np.float32).reshape(-1, 2),
        has=np.stack([~bad, bad], axis=1).reshape(-1, 2),
        abnormal_p=bad.astype(np.float32),
        abnormal=bad,
        flags=flags,
    )
    return FieldResult(slide="s", field=name, height=HW[0], width=HW[1], regions=regions)


def cells(rng, count, extent_um, *, size_um=8.0):
    """Boxes in µm of cells that do not touch: on a jittered grid."""
    side = int(np.sqrt(count))
    step = extent_um / side
    assert step > 1.5 * size_um
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2)
    corners = grid * step + rng.random((len(grid), 2)) * (step - size_um - 1)
    return np.concatenate([corners, corners + size_um], axis=1)


def seen_from(
    boxes_um, bad, position_um, *, matrix=((PIXEL_UM, 0), (0, PIXEL_UM)), noise_um=0.0, rng=None
):
    """Return the field that a stage at this position shows, cells at the border cut."""
    inverse = np.linalg.inv(np.array(matrix))
    corners = boxes_um[:, [[0, 1], [2, 3]]] - np.array(position_um)
    if noise_um:
        corners = corners + rng.normal(0, noise_um, 2)  # the stage says that it is elsewhere
    px = corners @ inverse.T + np.array([HW[1], HW[0]]) / 2
    boxes = np.concatenate([px.min(axis=1), px.max(axis=1)], axis=1)
    inside = np.clip(boxes, 0, [HW[1], HW[0]] * 2)
    sides = inside[:, 2:] - inside[:, :2]
    visible = (sides > 4).all(axis=1)
    cut = (inside != boxes).any(axis=1)
    return field(inside[visible], abnormal=bad[visible], border=cut[visible]), visible


def test_shares_are_wilsons():
    monitor = SlideMonitor(TYPES)
    assert monitor.share().fraction is None
    assert (monitor.share().low, monitor.share().high) == (0.0, 1.0)
    boxes = [(i, 0, i + 1, 1) for i in range(40)]
    monitor.add_result(field(boxes, abnormal=[i < 10 for i in range(40)]))
    for name, count in (("abnormal", 10), ("sickle", 10), ("disc", 30)):
        share = monitor.share(name)
        assert (share.count, share.regions) == (count, 40)
        assert (share.low, share.high) == wilson_interval(count, 40)
    assert list(monitor.shares()) == ["abnormal", "disc", "sickle"]
    assert monitor.fields == 1
    monitor.clear()
    assert monitor.regions == 0


def test_enough_needs_a_tight_interval_and_cells():
    monitor = SlideMonitor(TYPES)
    boxes = [(i, 0, i + 1, 1) for i in range(100)]
    while monitor.regions < 1900:
        monitor.add_result(field(boxes, abnormal=[i < 5 for i in range(100)]))
        low, high = wilson_interval(monitor.share().count, monitor.regions)
        expected = high - low <= 0.02 and monitor.regions >= 500
        assert monitor.enough(width=0.02, min_cells=500) == expected
    assert monitor.enough(width=0.02, min_cells=500)
    assert not monitor.enough(width=0.02, min_cells=5000)
    assert not SlideMonitor(TYPES).enough(width=1.0, min_cells=0)


def test_wrong_arguments_are_named(make_result):
    monitor = SlideMonitor(TYPES, stage=StageMap.of_pixel(PIXEL_UM))
    with pytest.raises(UsageError, match="ovalocyte"):
        monitor.share("ovalocyte")
    with pytest.raises(UsageError, match="width"):
        monitor.enough(width=0)
    with pytest.raises(UsageError, match="no position_um"):
        monitor.add_result(field([(0, 0, 9, 9)]))
    with pytest.raises(UsageError, match=r"2 types .got 3"):
        monitor.add_result(make_result(), position_um=(0, 0))
    with pytest.raises(UsageError, match="abnormal"):
        SlideMonitor(("abnormal",))
    with pytest.raises(UsageError, match="inverted"):
        StageMap(matrix_um=((0.0, 0.0), (0.0, 0.0)))


def test_ends_without_regions_add_nothing():
    monitor = SlideMonitor(TYPES)
    for status in FrameStatus:
        monitor.add(Ended(number=0, status=status, slide="s", field="f"))
    monitor.add_result(FieldResult(slide="s", field="f", error="damaged"))
    assert (monitor.fields, monitor.regions) == (0, 0)


@pytest.mark.parametrize(
    "matrix",
    [
        ((0.2, 0.0), (0.0, 0.2)),
        ((-0.2, 0.0), (0.0, 0.2)),
        ((0.0, 0.2), (-0.2, 0.0)),
        ((0.2, 0.01), (-0.01, 0.2)),
    ],
    ids=["straight", "mirrored", "turned", "askew"],
)
@pytest.mark.parametrize("noise_um", [0.0, 0.4])
def test_a_scan_with_overlaps_counts_each_cell_once(matrix, noise_um):
    """Against a simulated smear, with overlaps of a third and of nearly all, and stage errors."""
    rng = np.random.default_rng(5)
    truth = cells(rng, 900, 450.0)
    bad = rng.random(len(truth)) < 0.3
    monitor = SlideMonitor(TYPES, stage=StageMap(matrix_um=matrix))
    everything = SlideMonitor(TYPES)
    seen, whole = np.zeros((2, len(truth)), np.bool_)
    for y in np.arange(80, 380, 60):
        for x in np.arange(80, 380, 80):
            result, visible = seen_from(
                truth, bad, (x, y), matrix=matrix, noise_um=noise_um, rng=rng
            )
            monitor.add_result(result, position_um=(float(x), float(y)))
            everything.add_result(result)
            seen |= visible
            whole[visible] |= (result.regions.flags & RegionFlag.BORDER) == 0
    assert everything.regions > 1.5 * seen.sum()
    assert monitor.repeated == everything.regions - monitor.regions
    # Of a cell that the border cuts, a strip of a few pixels can look like part of its neighbour.
    slack = 0.01 * seen.sum()
    assert abs(monitor.regions - seen.sum()) <= slack
    assert abs(monitor.share().regions - whole.sum()) <= slack
    assert abs(monitor.share().count - bad[whole].sum()) <= slack
    assert 0 < monitor.border == monitor.regions - monitor.share().regions


def test_a_whole_cell_takes_the_place_of_a_cut_one():
    monitor = SlideMonitor(TYPES, stage=StageMap.of_pixel(1.0))
    cut = field([(600, 100, 640, 140)], abnormal=[True], border=[True])
    whole = field([(280, 100, 340, 140)], abnormal=[False])
    monitor.add_result(cut, position_um=(0.0, 0.0))
    assert (monitor.regions, monitor.border, monitor.share().regions) == (1, 1, 0)
    monitor.add_result(whole, position_um=(320.0, 0.0))
    assert (monitor.regions, monitor.share().count, monitor.share("disc").count) == (1, 0, 1)
    assert (monitor.border, monitor.share().regions) == (0, 1)
    monitor.add_result(cut, position_um=(0.0, 0.0))  # and it does not come back
    assert (monitor.regions, monitor.share().count, monitor.repeated) == (1, 0, 2)


def test_neighbours_stay_two():
    monitor = SlideMonitor(TYPES, stage=StageMap.of_pixel(0.2))
    monitor.add_result(field([(100, 100, 140, 140)]), position_um=(0.0, 0.0))
    monitor.add_result(field([(130, 100, 170, 140)]), position_um=(0.0, 0.0))
    assert monitor.regions == 2


def test_the_same_field_again_and_again_counts_once():
    monitor = SlideMonitor(TYPES, stage=StageMap.of_pixel(0.2))
    boxes = [(50 * i, 20, 50 * i + 40, 60) for i in range(10)]
    for _ in range(50):
        monitor.add_result(field(boxes), position_um=(7.0, 7.0))
    assert (monitor.fields, monitor.regions, monitor.repeated) == (50, 10, 490)


@pytest.mark.parametrize("share", [0.03, 0.2])
def test_stopping_when_sure_keeps_the_intervals_coverage(share):
    """How often an interval covers the truth if one looks after every field and stops early."""
    rng = np.random.default_rng(11)
    covered = 0
    trials = 600
    for _ in range(trials):
        regions = bad = 0
        while True:
            regions += 30
            bad += rng.binomial(30, share)
            low, high = wilson_interval(bad, regions)
            if regions >= 1000 and high - low <= 0.04:
                break
        covered += low <= share <= high
    assert covered / trials >= 0.92
