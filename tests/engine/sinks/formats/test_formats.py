"""Every format read back by the library that people open it with."""

from __future__ import annotations

import dataclasses
import gc
import json
import math
import os
import re
import runpy
import tarfile
from collections import Counter

import anndata
import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import shapely.geometry
import webdataset
from PIL import Image
from pycocotools.coco import COCO

from rbc_engine.lanes.canvas import fit_canvas
from rbc_engine.lanes.stages.crop import crop_windows
from rbc_engine.sinks.files import work_behind
from rbc_engine.sinks.formats.geojson import type_colours
from rbc_engine.sinks.formats.table import FORMATS
from rbc_engine.sinks.formats.webdataset import WebDatasetFolder
from rbc_engine.sinks.out_folder import claim
from rbc_engine.sinks.output import RunOutput
from rbc_engine.sinks.own_files import OWN_FILES
from rbc_engine.sinks.run_json import RunRecord
from rbc_engine.text import plain_text
from rbc_engine.types.frames import Frame
from rbc_engine.types.regions import RegionFlag

TYPES = ("disc", "sickle", "burr")  # of toy_pack
TABLES = {"cells.parquet", "fields.csv", "regions.parquet", "run.json", "slides.csv"}
HOSTILE = [
    '"quoted"',
    "<script>alert(1)</script>",
    "two\nlines",
    "n" * 250,
    "\udc80",
    "../up",
    "=1",
]


def framed(result, *, width=480, height=480):
    rng = np.random.default_rng(result.seed if hasattr(result, "seed") else 7)
    coarse = rng.integers(60, 200, (height // 16, width // 16, 3), np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    frame = Frame(pixels=np.asarray(smooth), slide=result.slide, field=result.field)
    return dataclasses.replace(result, frame=frame, width=width, height=height)


def write(out, pack, results, *names, **options):
    with RunOutput(claim(out, **options), pack, formats=names) as output:
        for result in results:
            output.write(framed(result) if output.needs_frames and result.ok else result)
        output.finish(RunRecord.of(pack))


def files(folder):
    return sorted(
        p.relative_to(folder).as_posix()
        for p in folder.rglob("*")
        if p.is_file() and p.name != OWN_FILES
    )


@pytest.fixture(scope="module")
def results(make_result, make_failure):
    """Make three slides: a failed field, one without regions, and fields with hostile names."""
    some = [
        make_result("a", "a/1.jpg", 5),
        make_failure("a", "a/2.jpg"),
        make_result("a", "a/3", 0),
    ]
    some += [make_result("b/c", "b/c/x/1.jpg", 40, seed=1)]
    return some + [
        make_result("evil", f"evil/{name}", 3, seed=index) for index, name in enumerate(HOSTILE)
    ]


@pytest.fixture(scope="module")
def out(tmp_path_factory, toy_pack, results):
    """A run in every format."""
    folder = tmp_path_factory.mktemp("formats") / "out"
    write(folder, toy_pack, results, *FORMATS)
    return folder


def regions_of(results):
    """(result, index) of every region, in the order of regions.parquet."""
    return [(result, i) for result in results if result.ok for i in range(len(result.regions))]


def test_a_run_in_every_format_makes_what_they_say(out):
    expected = TABLES | {chosen.output for chosen in FORMATS.values()}
    assert {path.name for path in out.iterdir()} == expected | {OWN_FILES}
    for chosen in FORMATS.values():
        assert (out / chosen.output).is_dir() == (chosen.suffix is not None)
        if chosen.suffix is not None:
            assert all(path.endswith(chosen.suffix) for path in files(out / chosen.output))


def test_csv_has_the_rows_of_parquet(out):
    text = pyarrow.csv.ParseOptions(newlines_in_values=True)
    table = pyarrow.csv.read_csv(out / "regions.csv", parse_options=text)
    expected = pq.read_table(out / "regions.parquet")
    assert set(table.column_names) == {*expected.column_names, "type"}
    assert table.column_names[:5] == ["slide", "field", "region", "type", "abnormal"]
    for name in expected.column_names:
        got, want = table[name].to_pylist(), expected[name].to_pylist()
        if name in ("slide", "field"):
            got = [plain_text(value) for value in got]
        if expected.schema.field(name).type == "float":
            half = 0.051 if name in ("x0", "y0", "x1", "y1") else 0.000051
            np.testing.assert_allclose(got, want, rtol=0, atol=half)
        else:
            assert got == want
    assert b'"\'=1"' not in (out / "regions.csv").read_bytes()  # the slide comes before it
    assert not re.search(rb'^"?[=+@-]', (out / "regions.csv").read_bytes(), re.MULTILINE)


def test_qupath_reads_every_region_as_a_detection(out, results, repository):
    read_objects = runpy.run_path(str(repository / "examples" / "read_geojson.py"))["read_objects"]
    paths = {
        path.relative_to(out / "geojson").as_posix(): path
        for path in (out / "geojson").rglob("*.geojson")
    }
    done = [result for result in results if result.ok]
    assert len(paths) == len(done)
    assert {"a/1.jpg.geojson", "a/3.geojson", "b_c/x_1.jpg.geojson"} <= paths.keys()
    by_field = {
        (about["slide"], about["field"]): path
        for path in paths.values()
        for about in [json.loads(path.read_text())["rbc_engine"]]
    }
    ids, colours = Counter(), {}
    for result in done:
        field = result.field.encode("utf-8", "backslashreplace").decode()
        objects = read_objects(by_field[result.slide, field])
        assert len(objects) == len(result.regions)
        for index, found in enumerate(objects):
            regions = result.regions
            assert found.object_type == "detection"
            polygon = shapely.geometry.Polygon(*found.rings)
            assert polygon.is_valid
            np.testing.assert_allclose(polygon.bounds, regions.boxes[index], atol=0.006)
            held = tuple(t for t, has in zip(TYPES, regions.has[index], strict=True) if has)
            if held:
                assert found.names == held
                assert colours.setdefault(found.names, found.color) == found.color
            else:
                assert found.names is found.color is None
            values = {
                "score": regions.scores[index],
                **{f"p {t}": p for t, p in zip(TYPES, regions.probabilities[index], strict=True)},
                "abnormal p": regions.abnormal_p[index],
                "abnormal": regions.abnormal[index],
                "cells low": regions.cells_low[index],
                "cells high": regions.cells_high[index],
                "border": bool(regions.flags[index] & RegionFlag.BORDER),
                "clump": bool(regions.flags[index] & RegionFlag.CLUMP),
                "blurred": bool(regions.flags[index] & RegionFlag.BLURRED),
                "unsure": bool(regions.flags[index] & RegionFlag.UNSURE),
            }
            assert list(found.measurements) == list(values)
            assert found.measurements == pytest.approx(
                {k: float(v) for k, v in values.items()}, rel=1e-6
            )
            ids[found.id] += 1
    assert set(ids.values()) == {1}


def test_colours_of_types_differ():
    types = [f"type_{index}" for index in range(12)]
    colours = type_colours(types, abnormal=types[1:])
    assert colours[0] == (0, 114, 178)
    far = [
        sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5
        for index, one in enumerate(colours)
        for other in colours[:index]
    ]
    assert min(far) > 20


def test_coco_tools_read_every_region(out, results, capsys):
    coco = COCO(str(out / "coco.json"))
    done = [result for result in results if result.ok]
    images = coco.loadImgs(coco.getImgIds())
    names = [
        result.field
        if result.field.startswith(f"{result.slide}/")
        else f"{result.slide}/{result.field}"
        for result in done
    ]
    assert [image["file_name"] for image in images] == [
        name.encode("utf-8", "backslashreplace").decode() for name in names
    ]
    assert len(set(names)) == len(names)
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(TYPES)
    annotations = coco.loadAnns(coco.getAnnIds())
    assert [a["id"] for a in annotations] == list(range(1, len(annotations) + 1))
    for annotation, (result, index) in zip(annotations, regions_of(done), strict=True):
        regions = result.regions
        assert images[annotation["image_id"] - 1]["slide"] == result.slide
        x, y, width, height = annotation["bbox"]
        np.testing.assert_allclose([x, y, x + width, y + height], regions.boxes[index], atol=0.02)
        assert annotation["area"] == pytest.approx(width * height, abs=1e-3)
        p, has = regions.probabilities[index], regions.has[index]
        likeliest = int(np.where(has, p, 0).argmax() if has.any() else p.argmax())
        assert annotation["category_id"] == likeliest + 1
        more = annotation["attributes"]
        assert more["types"] == [t for t, held in zip(TYPES, has, strict=True) if held]
        assert more["p"] == pytest.approx(p.tolist(), rel=1e-6)
        assert more["abnormal"] is bool(regions.abnormal[index])
        assert more["abnormal_p"] == pytest.approx(regions.abnormal_p[index], rel=1e-6)
        assert (more["cells_low"], more["cells_high"]) == (
            regions.cells_low[index],
            regions.cells_high[index],
        )
        assert more["flags"] == RegionFlag(int(regions.flags[index])).names()
    assert coco.loadRes(annotations).getAnnIds() == coco.getAnnIds()


def test_anndata_reads_every_region(out, toy_pack, results):
    found = anndata.read_h5ad(out / "regions.h5ad")
    table = pq.read_table(out / "regions.parquet").to_pandas()
    assert found.shape == (len(table), len(TYPES))
    assert found.X.dtype == np.float32
    np.testing.assert_array_equal(found.X, table[[f"p_{t}" for t in TYPES]])
    np.testing.assert_array_equal(found.layers["has"], table[[f"has_{t}" for t in TYPES]])
    boxes = table[["x0", "y0", "x1", "y1"]].to_numpy()
    np.testing.assert_array_equal(found.obsm["spatial"], (boxes[:, :2] + boxes[:, 2:]) / 2)
    others = [name for name in table if not name.startswith(("p_", "has_"))]
    assert list(found.obs) == others
    for name in others:
        assert found.obs[name].tolist() == table[name].tolist()
        if name not in ("slide", "field", "kind", "flags"):
            assert found.obs[name].dtype == table[name].dtype
    assert found.obs_names.is_unique
    assert list(found.var_names) == list(TYPES)
    assert found.var["abnormal"].tolist() == [False, True, True]
    assert found.uns["rbc_engine"]["pack"]["sha256"] == toy_pack.sha256


def pixels_of(result, index, pack):
    """The window of a region, pixel by pixel."""
    frame, settings = result.frame, pack.manifest
    fit = fit_canvas((frame.height, frame.width), pixel_um=None, settings=settings.detector)
    [window] = crop_windows(
        result.regions.boxes[index : index + 1],
        canvas_scale=fit.scale,
        settings=settings.classifier,
    ).tolist()
    x0, y0 = max(math.floor(window[0]), 0), max(math.floor(window[1]), 0)
    x1, y1 = min(math.ceil(window[2]), frame.width), min(math.ceil(window[3]), frame.height)
    return frame.pixels[y0:y1, x0:x1].astype(int)


def test_patches_are_what_the_classifier_saw(out, toy_pack, results):
    expected = {}
    for slide, field, result in [
        ("a", "1.jpg", results[0]),
        ("b_c", "x_1.jpg", results[3]),
        ("evil", "_quoted_", results[4]),
    ]:
        for index in range(len(result.regions)):
            expected[f"{slide}/{field}/{index:06d}.jpg"] = framed(result), index
    found = files(out / "patches")
    assert expected.keys() <= set(found)
    assert len(found) == len(regions_of(results))
    for name, (result, index) in expected.items():
        pixels = np.asarray(Image.open(out / "patches" / name)).astype(int)
        want = pixels_of(result, index, toy_pack)
        assert pixels.shape == want.shape
        assert np.abs(pixels - want).mean() < 2
    assert not (out / "patches/a/3").exists()


# The library leaves closing its shard to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_every_region(out, toy_pack, results):
    [shard] = (out / "webdataset").glob("*.tar")
    assert shard.name == "patches-000000.tar"
    samples = list(webdataset.WebDataset(str(shard), shardshuffle=False).decode("rgb8"))
    gc.collect()
    for number, (sample, (result, index)) in enumerate(
        zip(samples, regions_of(results), strict=True)
    ):
        assert sample["__key__"] == f"{number:09d}"
        about, regions = sample["json"], result.regions
        assert about["field"] == result.field.encode("utf-8", "backslashreplace").decode()
        assert (about["slide"], about["region"]) == (result.slide, index)
        np.testing.assert_allclose(about["box"], regions.boxes[index], atol=0.006)
        assert about["p"] == pytest.approx(regions.probabilities[index].tolist(), rel=1e-6)
        assert about["abnormal"] is bool(regions.abnormal[index])
        assert about["types"] == [t for t, h in zip(TYPES, regions.has[index], strict=True) if h]
        assert about["cells_low"] == regions.cells_low[index]
        assert about["cells_high"] == regions.cells_high[index]
        assert about["flags"] == RegionFlag(int(regions.flags[index])).names()
        want = pixels_of(framed(result), index, toy_pack)
        assert sample["jpg"].shape == want.shape
        assert np.abs(sample["jpg"].astype(int) - want).mean() < 2


def test_webdataset_shards_are_bounded(tmp_path, toy_pack, make_result):
    sink = WebDatasetFolder(tmp_path, toy_pack, shard_bytes=100_000)
    sink.write(framed(make_result(count=200)))
    sink.complete()
    sink.finish()
    shards = sorted((tmp_path / "webdataset").iterdir())
    assert [shard.name for shard in shards] == [f"patches-{i:06d}.tar" for i in range(len(shards))]
    assert len(shards) > 3
    assert max(shard.stat().st_size for shard in shards) < 110_000
    members = []
    for shard in shards:
        with tarfile.open(shard) as tar:
            members += tar.getnames()
    assert members == [f"{i:09d}.{end}" for i in range(200) for end in ("jpg", "json")]


@pytest.mark.parametrize("name", ["patches", "webdataset"])
def test_what_is_written_does_not_depend_on_the_threads(
    tmp_path, toy_pack, make_result, monkeypatch, name
):
    results = [make_result("s", f"s/{i}.png", count=(i * 37) % 150, seed=i) for i in range(12)]
    written = []
    for workers in (1, 4):
        monkeypatch.setattr(work_behind, "_MOST_WORKERS", workers)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
        folder = tmp_path / str(workers)
        write(folder, toy_pack, results, name)
        written.append({path: (folder / name / path).read_bytes() for path in files(folder / name)})
    assert written[0] == written[1]
    assert written[0]


def test_fields_of_one_name_are_kept_apart(tmp_path, toy_pack, make_result):
    fields = ["a/b", "a:b", "a_b", "a_b~2", "", "", "A_B", "n" * 250, "n" * 251]
    results = [make_result("s", field, 2, seed=i) for i, field in enumerate(fields)]
    write(tmp_path, toy_pack, results, "geojson", "patches")
    assert len(files(tmp_path / "geojson")) == len(fields)
    assert len(files(tmp_path / "patches")) == 2 * len(fields)
    assert max(len(part) for path in files(tmp_path) for part in path.split("/")) < 200


def test_overwrite_removes_every_format_of_an_earlier_run(tmp_path, toy_pack, results):
    write(tmp_path, toy_pack, results, *FORMATS)
    mine = tmp_path / "patches/a/1.jpg/mine.txt"
    mine.write_text("mine")
    elsewhere = tmp_path.with_name("elsewhere")
    elsewhere.mkdir(exist_ok=True)
    (elsewhere / "kept.geojson").write_text("mine")
    (tmp_path / "geojson/linked").symlink_to(elsewhere)
    write(tmp_path, toy_pack, results[:1], "csv", mode="overwrite")
    assert set(files(tmp_path)) == TABLES | {"regions.csv", "patches/a/1.jpg/mine.txt"}
    assert (elsewhere / "kept.geojson").exists()
    assert not (tmp_path / "webdataset").exists()
