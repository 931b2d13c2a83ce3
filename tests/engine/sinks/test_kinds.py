"""White cells, platelets and single cells in all outputs of a run, nowhere counted as red."""

from __future__ import annotations

import csv
import json
import tarfile
from dataclasses import replace

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

from rbc_engine.runs.compare.compare import compare_runs
from rbc_engine.runs.finished.finished_run import FinishedRun
from rbc_engine.sinks.formats.overlay.drawing import (
    ABNORMAL_RGB,
    KIND_RGB,
    NORMAL_RGB,
    UNSURE_RGB,
    OverlayStyle,
    draw_overlay,
)
from rbc_engine.sinks.formats.table import FORMATS
from rbc_engine.sinks.out_folder import claim
from rbc_engine.sinks.output import RunOutput
from rbc_engine.sinks.run_json import RunRecord
from rbc_engine.stats.counts import SlideCounts
from rbc_engine.stats.drift import Drift
from rbc_engine.stats.grade import type_shares
from rbc_engine.stats.monitor import SlideMonitor
from rbc_engine.types.kinds import KIND_LABELS, Kind
from rbc_engine.types.regions import RegionFlag

TYPES = ("disc", "sickle", "burr")  # of toy_pack


@pytest.fixture(scope="module")
def results(make_mixed, make_failure, with_frame):
    some = [with_frame(make_mixed("a", f"a/{i}.png", 20, seed=i)) for i in range(3)]
    some.append(with_frame(make_mixed("b", "b/0.png", 30, seed=9)))
    return [*some, make_failure("b", "b/1.png"), with_frame(make_mixed("b", "b/2.png", 0))]


@pytest.fixture(scope="module")
def out(tmp_path_factory, toy_cell_pack, results):
    folder = tmp_path_factory.mktemp("kinds") / "out"
    done = [result.regions for result in results if result.ok]
    counts = {
        "fields": len(results),
        "failed": 1,
        "regions": sum(map(len, done)),
        "abnormal": sum(int(regions.abnormal.sum()) for regions in done),
    }
    with RunOutput(claim(folder), toy_cell_pack, formats=list(FORMATS)) as output:
        for result in results:
            output.write(result)
        output.finish(RunRecord.of(toy_cell_pack, counts=counts))
    return folder


def done(results):
    return [result for result in results if result.ok]


def test_cells_parquet_has_a_row_a_cell(out, results):
    table = pq.read_table(out / "cells.parquet")
    assert table.column_names == [
        *("slide", "field", "region", "x0", "y0", "x1", "y1", "score", "kind"),
    ]
    rows = iter(table.to_pylist())
    for result in done(results):
        cells = result.regions.cells
        for index in range(len(cells)):
            row = next(rows)
            assert (row["slide"], row["field"]) == (result.slide, result.field)
            assert row["region"] == cells.region[index]
            assert [row[side] for side in ("x0", "y0", "x1", "y1")] == cells.boxes[index].tolist()
            assert row["score"] == cells.scores[index]
            assert row["kind"] == KIND_LABELS[cells.kinds[index]]
    assert next(rows, None) is None


def test_regions_have_their_kind_and_only_red_ones_types(out, results):
    rows = pq.read_table(out / "regions.parquet").to_pylist()
    kinds = [KIND_LABELS[kind] for result in done(results) for kind in result.regions.kinds]
    assert [row["kind"] for row in rows] == kinds
    for row in rows:
        if row["kind"] != "red":
            assert not any(row[f"p_{name}"] or row[f"has_{name}"] for name in TYPES)
            assert row["abnormal_p"] == 0
            assert row["abnormal"] is False
    cells = pq.read_table(out / "cells.parquet").to_pandas()
    per_region = cells.groupby(["field", "region"]).size()
    assert [per_region[row["field"], row["region"]] for row in rows] == [
        row["cells_high"] for row in rows
    ]


def test_slides_count_kinds_apart(out, results):
    with (out / "slides.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = {row["slide"]: row for row in csv.DictReader(file)}
    assert set(rows) == {result.slide for result in results}
    for slide, row in rows.items():
        mine = [result.regions for result in done(results) if result.slide == slide]
        white = sum(int((regions.kinds == Kind.WHITE_CELL).sum()) for regions in mine)
        platelets = sum(int((regions.kinds == Kind.PLATELET).sum()) for regions in mine)
        red_cells = sum(int((regions.cells.kinds == Kind.RED).sum()) for regions in mine)
        whole = [regions.take(regions.red & (regions.flags & 1 == 0)) for regions in mine]
        abnormal = sum(int(regions.abnormal.sum()) for regions in whole)
        assert int(row["cells"]) == sum(len(regions.cells) for regions in mine)
        assert (int(row["white_cells"]), int(row["platelets"])) == (white, platelets)
        assert float(row["white_per_100_red"]) == pytest.approx(100 * white / red_cells, abs=1e-6)
        assert float(row["platelets_per_100_red"]) == pytest.approx(
            100 * platelets / red_cells, abs=1e-6
        )
        share = abnormal / sum(map(len, whole))
        assert float(row["abnormal_fraction"]) == pytest.approx(share, abs=1e-6)
        corrected = min(max((share + 0.9 - 1) / 0.8, 0), 1)
        assert float(row["abnormal_corrected"]) == pytest.approx(corrected, abs=1e-6)
        assert (
            0
            <= float(row["corrected_low"])
            <= float(row["abnormal_corrected"])
            <= float(row["corrected_high"])
            <= 1
        )


def test_fields_say_where_their_scale_comes_from(out, results):
    with (out / "fields.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    names = ("um_per_px", "um_per_px_from", "unfamiliar_distance", "uncovered", "flags")
    for row, result in zip(rows, results, strict=True):
        described = [row[name] for name in names]
        assert described == (
            ["0.125", "estimated", "1.5", "0.25", "unfamiliar"] if result.ok else [""] * 5
        )
        assert row["cells"] == (str(len(result.regions.cells)) if result.ok else "")


def test_coco_has_a_category_a_kind_and_crowds(out, results):
    coco = json.loads((out / "coco.json").read_text())
    names = {category["id"]: category["name"] for category in coco["categories"]}
    assert names == dict(enumerate([*TYPES, "white_cell", "platelet"], 1))
    assert [c["supercategory"] for c in coco["categories"]][3:] == ["other", "other"]
    regions = [(r.regions, i) for r in done(results) for i in range(len(r.regions))]
    for annotation, (found, index) in zip(coco["annotations"], regions, strict=True):
        kind = KIND_LABELS[found.kinds[index]]
        assert annotation["attributes"]["kind"] == kind
        assert (names[annotation["category_id"]] == kind) == (kind != "red")
        assert annotation["iscrowd"] == int((found.cells.region == index).sum() > 1)


def test_geojson_is_classified_by_kind(out, results):
    assert {kind for r in done(results) for kind in r.regions.kinds} > {Kind.RED, Kind.WHITE_CELL}
    for result in done(results):
        path = out / "geojson" / f"{result.field}.geojson"
        features = json.loads(path.read_text())["features"]
        for feature, kind, has in zip(
            features, result.regions.kinds, result.regions.has, strict=True
        ):
            held = ": ".join(name for name, one in zip(TYPES, has, strict=True) if one)
            given = feature["properties"].get("classification", {"name": ""})
            assert given["name"] == (held if kind == Kind.RED else KIND_LABELS[kind])
            if kind != Kind.RED:
                assert tuple(given["color"]) == KIND_RGB[Kind(kind)]


def test_anndata_has_the_kind(out, results):
    with h5py.File(out / "regions.h5ad") as file:
        kinds = file["obs"]["kind"]
        names = kinds["categories"].asstr()[:]
        got = [names[code] for code in kinds["codes"][:]]
    assert got == [KIND_LABELS[kind] for r in done(results) for kind in r.regions.kinds]


def test_patches_and_samples_are_of_red_regions(out, results):
    wanted = [
        (result.field, index)
        for result in done(results)
        for index in np.flatnonzero(result.regions.red).tolist()
    ]
    patches = {
        path.relative_to(out / "patches").as_posix() for path in (out / "patches").rglob("*.jpg")
    }
    assert patches == {f"{field}/{index:06d}.jpg" for field, index in wanted}
    [shard] = (out / "webdataset").glob("*.tar")
    with tarfile.open(shard) as tar:
        described = [json.load(tar.extractfile(one)) for one in tar if one.name.endswith(".json")]
        keys = [one.name for one in tar if one.name.endswith(".jpg")]
    assert [(one["field"], one["region"]) for one in described] == wanted
    assert keys == [f"{number:09d}.jpg" for number in range(len(wanted))]
    held = [r.regions.has[i] for r in done(results) for i in np.flatnonzero(r.regions.red)]
    assert [one["types"] for one in described] == [
        [name for name, has in zip(TYPES, row, strict=True) if has] for row in held
    ]


def some(make_mixed, kinds, *, unsure=(), abnormal=()):
    """Regions side by side, 60 px wide, each of one cell."""
    count = len(kinds)
    regions = make_mixed(count=count).regions
    boxes = np.array([(20 + 80 * i, 20, 80 + 80 * i, 80) for i in range(count)], np.float32)
    cells = regions.cells.of_regions(np.arange(count), regions=count)
    first = np.flatnonzero(np.diff(cells.region, prepend=-1))
    kinds = np.array(kinds, np.uint8)
    flags = np.zeros(count, np.uint8)
    flags[list(unsure)] = RegionFlag.UNSURE
    marked = np.isin(np.arange(count), abnormal)
    one = replace(
        cells,
        boxes=boxes,
        scores=cells.scores[first],
        kinds=kinds,
        region=np.arange(count, dtype=np.int32),
    )
    ones = np.ones(count, np.int32)
    return replace(
        regions, boxes=boxes, kinds=kinds, flags=flags, abnormal=marked, cells=one, cells_low=ones,
        abnormal_p=marked.astype(np.float32), cells_high=ones,
    )  # fmt: skip


def test_overlays_draw_kinds_apart(make_mixed, toy_cell_pack):
    regions = some(make_mixed, [0, 0, 1, 2, 3, 0], unsure=[5], abnormal=[1, 5])
    pixels = np.full((120, 520, 3), 200, np.uint8)
    picture = np.asarray(draw_overlay(pixels, regions, style=OverlayStyle.of(toy_cell_pack)))
    colours = [NORMAL_RGB, ABNORMAL_RGB, *KIND_RGB.values(), UNSURE_RGB]
    for box, colour in zip(regions.boxes.astype(int), colours, strict=True):
        x0, y0, x1, y1 = box
        assert (picture[y0:y1, x0] == colour).all()
        assert (picture[y0:y1, x1 - 1] == colour).all()


def test_overlays_show_the_cells_of_a_region_of_several(make_mixed, toy_cell_pack):
    regions = some(make_mixed, [0])
    cells = replace(
        regions.cells,
        boxes=np.float32([[20, 20, 50, 80], [50, 20, 80, 80]]),
        scores=np.float32([0.9, 0.8]),
        kinds=np.zeros(2, np.uint8),
        region=np.zeros(2, np.int32),
    )
    regions = replace(regions, cells=cells, cells_high=np.array([2], np.int32))
    pixels = np.full((120, 160, 3), 200, np.uint8)
    picture = np.asarray(draw_overlay(pixels, regions, style=OverlayStyle.of(toy_cell_pack)))
    for x in (20, 49, 50, 79):
        assert (picture[40:80, x] == NORMAL_RGB).all()


def test_grades_and_the_monitor_leave_other_kinds_out(make_mixed):
    fields = [make_mixed("s", str(i), 25, seed=i) for i in range(4)]
    counts, monitor = SlideCounts(slide="s"), SlideMonitor(TYPES)
    for field in fields:
        counts.add(field)
        monitor.add_result(field)
    red = [field.regions.take(field.regions.red) for field in fields]
    assert monitor.regions == sum(map(len, red)) == counts.red_regions < counts.regions
    shares = type_shares(counts, TYPES, abnormal=TYPES)
    whole = [each.take(each.flags & RegionFlag.BORDER == 0) for each in red]
    share = monitor.share()
    assert share.count == sum(int(each.abnormal.sum()) for each in whole) == counts.whole_abnormal
    assert share.regions == sum(map(len, whole)) == counts.whole
    assert monitor.border == counts.border > 0
    for index, share in enumerate(shares):
        held = sum(int(each.has[:, index].sum()) for each in whole)
        assert share.share == pytest.approx(held / sum(map(len, whole)))
    assert counts.cells_high == sum(len(each.cells) for each in red) == counts.red_cells


def test_another_kind_is_another_label(tmp_path, results, toy_cell_pack, make_mixed):
    regions = some(make_mixed, [0, 0, 1])
    other = some(make_mixed, [0, 1, 1])
    regions, other = (
        replace(each, has=np.zeros((3, 3), bool), probabilities=np.zeros((3, 3), np.float32))
        for each in (regions, other)
    )
    drift = Drift(types=TYPES)
    drift.add(regions, other)
    assert (drift.lost, drift.gained, drift.relabelled) == (0, 0, 1)

    def written(name, found):
        field = replace(results[0], regions=found, frame=None)
        folder = tmp_path / name
        counts = {"fields": 1, "failed": 0, "regions": 3, "abnormal": 0}
        with RunOutput(claim(folder), toy_cell_pack) as output:
            output.write(field)
            output.finish(RunRecord.of(toy_cell_pack, counts=counts))
        return FinishedRun(folder)

    changes = []
    with written("a", regions) as a, written("b", other) as b:
        found = compare_runs(a, b, on_change=changes.append)
    assert (found.regions.matched, found.regions.relabelled) == (3, 1)
    assert [(change.kind, change.types) for change in changes] == [
        ("relabelled", ("", "white_cell"))
    ]


def test_a_finished_run_is_read_with_its_cells(out, results):
    assert any(result.ok and len(result.regions.cells) for result in results)
    with FinishedRun(out) as run:
        for result, again in zip(results, run.results(), strict=True):
            if result.ok:
                np.testing.assert_array_equal(again.regions.cells.boxes, result.regions.cells.boxes)
