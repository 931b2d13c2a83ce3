"""Measures of whole evaluations, against pycocotools and on fields worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn.metrics import roc_auc_score

from rbc_engine.training.datasets.base import LabelledField
from rbc_engine.training.evaluation.cell_types import measure_types
from rbc_engine.training.evaluation.detection import measure_detections
from rbc_engine.training.evaluation.findings import Findings, measure
from rbc_engine.training.evaluation.measures.bootstrap import Bootstrap
from rbc_engine.training.evaluation.samples import detection_sample, type_sample
from rbc_engine.types.kinds import Kind
from rbc_engine.types.regions import Regions

TYPES = ("good", "bad")
ONCE = {"resamples": 2, "seed": 0}


def make_field(boxes, *, types=None, cells=None, known=None, centres=(), group="1"):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    count = len(boxes)
    return LabelledField(
        path=Path("a.jpg"),
        group=group,
        boxes=boxes,
        types=np.zeros((count, 2), bool) if types is None else np.array(types, bool),
        cells=np.ones(count, np.int64) if cells is None else np.array(cells),
        centres=np.array(centres, np.float32).reshape(-1, 2),
        known=np.ones(count, bool) if known is None else np.array(known, bool),
        labelled=True,
    )


def make_regions(boxes, scores, probabilities=None, abnormal_p=None, kinds=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    count = len(boxes)
    p = np.zeros((count, 2)) if probabilities is None else np.array(probabilities)
    abnormal_p = np.zeros(count) if abnormal_p is None else np.array(abnormal_p)
    return Regions.by_area(
        boxes=boxes,
        scores=np.array(scores, np.float32),
        probabilities=p.astype(np.float32),
        has=p >= 0.5,
        abnormal_p=abnormal_p.astype(np.float32),
        abnormal=abnormal_p >= 0.5,
        flags=np.zeros(count, np.uint8),
        kinds=None if kinds is None else np.array(kinds, np.uint8),
    )


def measures(fields, found, score_threshold):
    sample = detection_sample(
        Findings.matched(fields, found, saturated=0), score_threshold=score_threshold
    )
    return measure_detections(sample, Bootstrap(sample.groups, **ONCE))


def random_field(rng):
    """Boxes on a field, and detections: jittered copies, some twice, and some anywhere."""
    corners = rng.uniform(0, 200, (rng.integers(1, 12), 2))
    truth = np.concatenate([corners, corners + rng.uniform(10, 40, corners.shape)], axis=1)
    copies = np.repeat(truth, rng.integers(0, 3, len(truth)), axis=0)
    copies = copies + rng.normal(0, rng.uniform(0.2, 6), copies.shape)
    stray = rng.uniform(0, 200, (rng.integers(0, 5), 2))
    found = np.concatenate([copies, np.concatenate([stray, stray + 25], axis=1)])
    return make_field(truth), make_regions(found, rng.random(len(found)))


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_ap_equals_pycocotools(seed):
    rng = np.random.default_rng(seed)
    fields, found = zip(*(random_field(rng) for _ in range(3)), strict=True)
    got = measures(fields, found, 0.5)["all"]

    def xywh(box):
        return [float(v) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])]

    truths = [
        {"image_id": image, "bbox": xywh(box), "area": 1.0, "iscrowd": 0}
        for image, field in enumerate(fields)
        for box in field.boxes
    ]
    detections = [
        {"image_id": image, "bbox": xywh(box), "area": 1.0, "iscrowd": 0, "score": float(score)}
        for image, regions in enumerate(found)
        for box, score in zip(regions.boxes, regions.scores, strict=True)
    ]
    truth_coco, found_coco = coco(truths, len(fields)), coco(detections, len(fields))
    evaluator = COCOeval(truth_coco, found_coco, "bbox")
    evaluator.params.maxDets = [1000]
    evaluator.params.areaRng, evaluator.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluator.evaluate()
    evaluator.accumulate()
    precision = evaluator.eval["precision"][:, :, 0, 0, 0]
    assert got.ap50_95.value == pytest.approx(precision.mean(), abs=1e-9)
    # The whole area under the curve, of which COCO takes 101 points.
    assert got.ap50.value == pytest.approx(precision[0].mean(), abs=0.02)
    # Every detection counts at COCO's lowest score.
    everything = measures(fields, found, 0.0)["all"]
    assert everything.found.value == pytest.approx(evaluator.eval["recall"][0, 0, 0, 0])


def coco(annotations, images):
    index = COCO()
    index.dataset = {
        "images": [{"id": number} for number in range(images)],
        "categories": [{"id": 1}],
        "annotations": [
            {"id": number, "category_id": 1, **annotation}
            for number, annotation in enumerate(annotations, 1)
        ],
    }
    index.createIndex()
    return index


def test_subsets_by_hand():
    """Make a single cell, a clump of two, and a region of uncounted cells; five detections."""
    single, clump, unsure = [0, 0, 10, 10], [20, 0, 40, 10], [50, 0, 60, 10]
    field = make_field(
        [single, clump, unsure],
        cells=[1, 2, 1],
        known=[True, True, False],
        centres=[[5, 5], [25, 5], [35, 5], [55, 5], [90, 90]],
    )
    found = make_regions(
        [
            single,
            [20, 0, 29, 10],  # a part of the clump: IoU 0.45
            unsure,
            [80, 80, 95, 95],  # on background, but around a labelled cell
            clump,
        ],
        [0.9, 0.8, 0.7, 0.6, 0.4],
    )
    got = measures([field], [found], 0.5)

    assert [got[name].regions for name in got] == [1, 1, 3]
    assert [got[name].found.value for name in got] == [1, 0, pytest.approx(2 / 3)]
    assert [got[name].labelled_cells for name in got] == [1, 2, 5]
    # The part of the clump covers one of its two centres.
    assert [got[name].centres_hit.value for name in got] == [1, 0.5, pytest.approx(4 / 5)]
    # At the threshold. In single: the cell and the background. In several: the part and the
    # background.
    assert [got[name].detections for name in got] == [2, 2, 4]
    assert [got[name].unmatched.value for name in got] == [0.5, 1, 0.5]
    assert [got[name].on_background.value for name in got] == [0.5, 0.5, 0.25]
    # In several: found third of three. In all: precisions 1, 2/3 and 3/5 at recalls 1/3, 2/3 and 1.
    ap50 = [got[name].ap50.value for name in got]
    assert ap50 == [1, pytest.approx(1 / 3), pytest.approx((1 + 2 / 3 + 3 / 5) / 3)]


def test_a_region_found_twice_is_false_once():
    box = [0, 0, 10, 10]
    got = measures([make_field([box])], [make_regions([box, box], [0.9, 0.8])], 0.5)["single_cell"]
    assert (got.found.value, got.unmatched.value, got.on_background.value) == (1, 0.5, 0)


def test_nothing_found_and_nothing_there():
    empty, one = make_field([]), make_field([[0, 0, 10, 10]])
    nothing = make_regions([], [])
    got = measures([empty, one], [nothing, nothing], 0.5)
    assert (got["all"].ap50.value, got["all"].found.value) == (0, 0)
    assert got["all"].unmatched.value is None
    assert got["several_cells"].ap50.value is None


def typed_findings():
    """Two smears; four typed regions, of which one is missed, and one region of unknown types."""
    boxes = [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 60, 10]]
    first = make_field(boxes, types=[[1, 0], [0, 1], [1, 1]], cells=[1, 1, 2], group="a")
    second = make_field(
        boxes[:2], types=[[1, 0], [0, 1]], cells=[1, 1], known=[True, False], group="b"
    )
    found = [
        make_regions(
            boxes,
            [0.9, 0.8, 0.3],
            probabilities=[[0.7, 0.1], [0.6, 0.9], [0.9, 0.9]],
            abnormal_p=[0.2, 0.8, 0.9],
        ),
        make_regions(
            boxes[:2],
            [0.9, 0.9],
            probabilities=[[0.2, 0.4], [0.1, 0.9]],
            abnormal_p=[0.6, 0.9],
        ),
    ]
    return Findings.matched([first, second], found, saturated=0)


def types_section(findings):
    sample = type_sample(findings, score_threshold=0.5, abnormal_types=np.array([False, True]))
    return measure_types(sample, TYPES, Bootstrap(2, **ONCE))


def test_types_by_hand():
    section = types_section(typed_findings())
    measured, single = section.subsets["all"], section.single_cells
    assert measured.regions == 3  # the clump scores too little, one region is not known
    assert measured.exact_match.value == pytest.approx(1 / 3)
    assert measured.exact_match_missed_wrong.value == pytest.approx(1 / 4)
    assert measured.abnormal_accuracy.value == pytest.approx(2 / 3)
    assert measured.abnormal_auc.value == 1
    assert [measured.per_type[name].examples for name in TYPES] == [2, 1]
    expected = roc_auc_score([1, 0, 1], [0.7, 0.6, 0.2])
    assert measured.per_type["good"].auc.value == pytest.approx(expected)
    # good: held, not, held, in this order of probability.
    assert measured.per_type["good"].average_precision.value == pytest.approx((1 + 2 / 3) / 2)
    calibration = (abs(0.7 - 1) + abs(0.6 - 0) + abs(0.2 - 1)) / 3
    assert measured.per_type["good"].calibration_error.value == pytest.approx(calibration)
    assert (measured.mean_auc_types, measured.mean_auc.value) == (0, None)
    assert (measured.worst_type, measured.worst_auc.value) == (None, None)

    assert single.regions == 3
    assert single.confusion == [[1, 1], [0, 1]]
    assert single.accuracy.value == pytest.approx(2 / 3)
    assert single.macro_f1.value == pytest.approx(2 / 3)
    clumps = section.subsets["several_cells"]
    assert (clumps.regions, clumps.exact_match.value) == (0, None)
    assert clumps.exact_match_missed_wrong.value == 0


def test_white_cells_and_platelets_count_nowhere():
    """A white cell on a normal region would pass for a correct call, a platelet on background for a
    false region.
    """
    boxes, platelet = [[0, 0, 10, 10], [20, 0, 30, 10]], [60, 0, 70, 10]
    fields = [
        make_field(boxes, types=[[1, 0], [0, 1]], cells=[1, 1], group=group) for group in "ab"
    ]
    red = make_regions(boxes[1:], [0.8], [[0.2, 0.9]], [0.9])
    mixed = make_regions(
        [*boxes, platelet],
        [0.9, 0.8, 0.95],
        [[0, 0], [0.2, 0.9], [0, 0]],
        [0, 0.9, 0],
        kinds=[Kind.WHITE_CELL, Kind.RED, Kind.PLATELET],
    )
    assert measures(fields, [mixed, mixed], 0.5) == measures(fields, [red, red], 0.5)
    found = [Findings.matched(fields, [regions] * 2, saturated=0) for regions in (mixed, red)]
    assert types_section(found[0]) == types_section(found[1])
    values = [
        measure(one, score_threshold=0.5, types=TYPES, abnormal=TYPES[1:], digits=6)
        for one in found
    ]
    assert values[0] == values[1]
    assert values[0]["typed_regions"] == 2
    assert values[0]["false_region_share_at_score_threshold"] == 0


@pytest.mark.parametrize(("others", "rare"), [(19, 0), (20, 1), (40, 1)])
def test_a_type_is_rare_where_under_a_twentieth_of_its_field_holds_it(others: int, rare: int):
    """The same bad cell, called good, beside so many good ones; and a field of bad cells alone."""
    boxes = [[20 * i, 0, 20 * i + 10, 10] for i in range(others + 1)]
    types = [[0, 1], *[[1, 0]] * others]
    field = make_field(boxes, types=types, cells=[1] * len(boxes), group="a")
    called_good = [[0.9, 0.1]] * len(boxes)
    found = make_regions(
        boxes, [0.9] * len(boxes), probabilities=called_good, abnormal_p=[0.1] * len(boxes)
    )
    bad = make_field(boxes[:1], types=[[0, 1]], cells=[1], group="b")
    alone = make_regions(boxes[:1], [0.9], probabilities=[[0.9, 0.1]], abnormal_p=[0.1])
    single = types_section(Findings.matched([field, bad], [found, alone], saturated=0)).single_cells
    assert single.rare == rare
    assert single.rare_accuracy.value == (0 if rare else None)
    assert single.accuracy.value == pytest.approx(others / (others + 2))


def test_mean_and_worst_auc_take_types_with_enough_examples():
    """The two smears thirty times over: 60 examples of good, 30 of bad; ten times: 20 and 10."""
    findings = typed_findings()

    def repeated(times):
        return types_section(
            replace(
                findings,
                fields=findings.fields * times,
                found=findings.found * times,
                matches=findings.matches * times,
            )
        ).subsets["all"]

    many, few = repeated(30), repeated(10)
    good, bad = (many.per_type[name].auc.value for name in TYPES)
    assert good < bad
    assert (many.mean_auc_types, many.mean_auc.value) == (2, pytest.approx((good + bad) / 2))
    assert (many.worst_type, many.worst_auc.value) == ("good", pytest.approx(good))
    assert (few.mean_auc_types, few.mean_auc.value) == (1, pytest.approx(good))
    assert few.worst_type is None
