"""The tables of a run and run.json, read back by their own libraries."""

from __future__ import annotations

import csv
import json
import os
import re
import stat
import tracemalloc
import unicodedata

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from rbc_engine.sinks.out_folder import claim
from rbc_engine.sinks.output import RunOutput
from rbc_engine.sinks.run_json import RunRecord
from rbc_engine.sinks.tables.csv_file import CsvFile
from rbc_engine.sinks.tables.regions_parquet import RegionsParquet
from rbc_engine.stats.counts import SlideTally
from rbc_engine.text import csv_text, plain_text
from rbc_engine.types.frames import FileStamp
from rbc_engine.types.regions import RegionFlag

TYPES = ("disc", "sickle", "burr")  # of toy_pack
ALL_FILES = [
    ".run.files",
    "cells.parquet",
    "fields.csv",
    "regions.parquet",
    "run.json",
    "slides.csv",
]
NAMES = st.text(st.characters(), max_size=20)  # with surrogates, controls, anything


def read_csv(path):
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_regions_read_back_as_they_were(tmp_path, toy_pack, make_result, make_failure):
    results = [make_result(field="a/1.jpg", count=4), make_failure(), make_result(count=0)]
    results += [make_result("s2", "a/2.jpg", count=7)]
    with RunOutput(claim(tmp_path), toy_pack) as output:
        for result in results:
            output.write(result)
        output.finish(RunRecord.of(toy_pack))
    table = pq.read_table(tmp_path / "regions.parquet")
    assert table.schema.names == [
        *("slide", "field", "region", "x0", "y0", "x1", "y1", "score", "kind"),
        *("p_disc", "p_sickle", "p_burr", "has_disc", "has_sickle", "has_burr"),
        *("abnormal_p", "abnormal", "cells_low", "cells_high", "flags"),
    ]
    kinds = {name: str(table.schema.field(name).type) for name in table.schema.names}
    assert {kinds.pop(name) for name in ("slide", "field", "kind", "flags")} == {"string"}
    assert {kinds.pop(name) for name in ("region", "cells_low", "cells_high")} == {"int32"}
    assert {kinds.pop(name) for name in list(kinds) if "has_" in name} == {"bool"}
    assert kinds.pop("abnormal") == "bool"
    assert set(kinds.values()) == {"float"}
    described = {key: table.schema.metadata[f"rbc_engine.pack.{key}".encode()] for key in
                 ("name", "version", "sha256")}  # fmt: skip
    assert described == {"name": b"toy", "version": b"1.2.3", "sha256": b"ab" * 32}

    rows = iter(table.to_pylist())
    for result in results:
        for index in range(len(result.regions) if result.regions else 0):
            row, regions = next(rows), result.regions
            assert (row["slide"], row["field"], row["region"]) == (
                result.slide,
                result.field,
                index,
            )
            assert [row[side] for side in ("x0", "y0", "x1", "y1")] == regions.boxes[index].tolist()
            assert row["score"] == regions.scores[index]
            assert [row[f"p_{t}"] for t in TYPES] == regions.probabilities[index].tolist()
            assert [row[f"has_{t}"] for t in TYPES] == regions.has[index].tolist()
            assert row["abnormal_p"] == regions.abnormal_p[index]
            assert row["abnormal"] == regions.abnormal[index]
            assert row["cells_low"] == regions.cells_low[index]
            assert row["cells_high"] == regions.cells_high[index]
            names = {1: "border", 2: "clump", 4: "blurred", 8: "unsure"}
            set_ = [name for bit, name in names.items() if regions.flags[index] & bit]
            assert row["flags"] == ";".join(set_)
    assert next(rows, None) is None


def test_a_run_without_regions_has_all_files(tmp_path, toy_pack, make_failure):
    with RunOutput(claim(tmp_path / "new" / "out"), toy_pack) as output:
        output.write(make_failure())
        output.finish(RunRecord.of(toy_pack))
    out = tmp_path / "new" / "out"
    assert names(out) == ALL_FILES
    table = pq.read_table(out / "regions.parquet")
    assert (table.num_rows, table.num_columns) == (0, 20)
    [slide] = read_csv(out / "slides.csv")
    assert (slide["fields"], slide["failed"], slide["regions"]) == ("1", "1", "0")
    assert [slide[c] for c in ("abnormal_fraction", "ci_low", "ci_high")] == ["", "", ""]
    assert [slide[f"n_{t}"] for t in TYPES] == ["0", "0", "0"]
    mask = os.umask(0)
    os.umask(mask)
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()} == {0o666 & ~mask}


def test_fields_csv_has_a_row_an_image(tmp_path, toy_pack, make_result, make_failure):
    stamp = FileStamp(12345, 1_700_000_000_123_456_789)
    done = make_result(count=5, saturated=True, stamp=stamp)
    with RunOutput(claim(tmp_path), toy_pack) as output:
        output.write(done)
        output.write(make_failure(error='no "image", see\nthere'))
        output.finish(RunRecord.of(toy_pack))
    first, second = read_csv(tmp_path / "fields.csv")
    assert first == {
        "slide": "s", "field": "f.jpg", "path": "/in/f.jpg", "width": "640", "height": "480",
        "status": "done", "error": "", "regions": "5", "saturated": "true", "seconds": "0.250000",
        "abnormal": str(int(done.regions.abnormal.sum())),
        "bytes": "12345", "modified": "2023-11-14T22:13:20.123456789Z",
        "um_per_px": "", "um_per_px_from": "assumed", "cells": str(len(done.regions.cells)),
        "unfamiliar_distance": "", "uncovered": "", "flags": "",
    }  # fmt: skip
    assert (second["status"], second["error"]) == ("failed", 'no "image", see\nthere')
    assert {
        second[c] for c in ("width", "height", "regions", "abnormal", "saturated", "cells")
    } == {""}
    assert (tmp_path / "fields.csv").read_bytes().count(b"\r\n") == 3


def test_slides_csv_adds_up_fields(tmp_path, toy_pack, make_result, make_failure):
    results = [make_result("z", "1", 40), make_failure("z"), make_result("a", "1", 9)]
    results += [make_result("z", "2", 25)]
    tally = SlideTally()
    with RunOutput(claim(tmp_path), toy_pack) as output:
        for result in results:
            output.write(result)
            tally.add(result)
        output.finish(RunRecord.of(toy_pack))
    rows = read_csv(tmp_path / "slides.csv")
    assert [row["slide"] for row in rows] == ["z", "a"] == [row.slide for row in tally.rows()]
    for row, counts in zip(rows, tally.rows(), strict=True):
        mine = [r for r in results if r.slide == row["slide"]]
        regions = [r.regions for r in mine if r.regions]
        assert [int(row[c]) for c in ("fields", "failed", "regions", "abnormal", "cells")] == [
            len(mine), sum(not r.ok for r in mine), sum(len(r) for r in regions),
            sum(int(r.abnormal.sum()) for r in regions), sum(len(r.cells) for r in regions),
        ]  # fmt: skip
        clear = [r.take(r.flags & RegionFlag.BORDER == 0) for r in regions]
        whole = sum(len(r) for r in clear)
        abnormal = sum(int(r.abnormal.sum()) for r in clear)
        assert int(row["border"]) == sum(len(r) for r in regions) - whole
        assert int(row["whole_abnormal"]) == abnormal
        interval = binomtest(abnormal, whole).proportion_ci(method="wilson")
        shares = (abnormal / whole, interval.low, interval.high)
        unknown = (
            "abnormal_corrected",
            "corrected_low",
            "corrected_high",
            "white_cells",
            "platelets",
        )
        assert (
            {row[c] for c in unknown}
            == {""}
            == {row[f"{c}_per_100_red"] for c in ("white", "platelets")}
        )
        written = [float(row[c]) for c in ("abnormal_fraction", "ci_low", "ci_high")]
        assert written == pytest.approx(shares, abs=1e-6)
        assert (counts.abnormal_fraction, counts.ci_low, counts.ci_high) == pytest.approx(shares)
        for index, name in enumerate(TYPES):
            assert int(row[f"n_{name}"]) == sum(int(r.has[:, index].sum()) for r in regions)


def test_run_json_is_strict_json(tmp_path, toy_pack):
    run = RunRecord.of(toy_pack, device="é \udc80")
    with RunOutput(claim(tmp_path), toy_pack) as output:
        output.finish(run)
    data = (tmp_path / "run.json").read_bytes()
    held = json.loads(data.decode("utf-8"))
    assert list(held)[:3] == ["schema", "pack", "program"]
    assert held["device"] == "é \\udc80"
    assert RunRecord.read(tmp_path / "run.json") == run.changed(files=held["files"])
    assert "é".encode() in data
    with pytest.raises(ValueError), RunOutput(claim(tmp_path, "overwrite"), toy_pack) as output:
        output.finish(run.changed(wall_seconds=float("nan")))
    assert (tmp_path / "run.json").read_bytes() == data
    assert names(tmp_path) == ALL_FILES


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(NAMES, NAMES, NAMES), min_size=1, max_size=4))
def test_any_name_comes_back_in_safe_text(
    tmp_path_factory, toy_pack, make_result, make_failure, texts
):
    out = tmp_path_factory.mktemp("names")
    with RunOutput(claim(out), toy_pack) as output:
        for slide, field, error in texts:
            output.write(make_failure(slide, field, error or "?"))
            output.write(make_result(slide, field, 1, path=field))
        output.finish(RunRecord.of(toy_pack))

    def held(text):
        return text.encode("utf-8", "backslashreplace").decode("utf-8")

    def shown(text):
        hidden = "\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e"
        hidden += "\u2066\u2067\u2068\u2069\ufeff"
        return "".join(
            c.encode("unicode_escape").decode()
            if c in hidden or (unicodedata.category(c) == "Cc" and c not in "\t\r\n")
            else c
            for c in held(text)
        )

    table = pq.read_table(out / "regions.parquet")
    assert table["field"].to_pylist() == [held(field) for _, field, _ in texts]
    rows = read_csv(out / "fields.csv")
    assert len(rows) == 2 * len(texts)
    for row, (slide, field, error) in zip(rows[::2], texts, strict=True):
        for name, text in (("slide", slide), ("field", field), ("error", error or "?")):
            assert not row[name].lstrip().startswith(("=", "+", "-", "@"))
            assert plain_text(row[name]) == shown(text)
            for part in re.split(r"[;|\t\r\n]", row[name]):
                assert not part.lstrip(' "').startswith(("=", "+", "-", "@"))
    slides = [row["slide"] for row in read_csv(out / "slides.csv")]
    assert slides == list(dict.fromkeys(row["slide"] for row in rows))


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "\uff1d1", "'=1"]
)
def test_formulas_become_text(text):
    assert csv_text(text).startswith("'")
    assert plain_text(csv_text(text)) == text


@pytest.mark.parametrize("separator", [";", "|", "\t", "\n", "\r\n"])
@pytest.mark.parametrize("formula", ["=1+1", " +1", "-1", '"@SUM(A1)', "'=1", "''", "\uff1d1"])
def test_formulas_become_text_where_a_cell_is_split(separator, formula):
    text = f"a{separator}{formula}{separator}b; c"
    cell = csv_text(text)
    assert cell == f"a{separator}'{formula}{separator}b; c"
    assert plain_text(cell) == text


def test_cells_move_no_cursor_and_turn_no_writing():
    assert csv_text("a\x1b[2J\x9b\u202eb\x7f\x00") == r"a\x1b[2J\x9b\u202eb\x7f\x00"


def test_regions_are_written_as_they_come(tmp_path, toy_pack, make_result):
    fields, per_field = 400, 1000
    tracemalloc.start()
    sink = RegionsParquet(tmp_path, toy_pack)
    for field in range(fields):
        sink.write(make_result(field=f"{field}.jpg", count=per_field, seed=field))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    sink.finish()
    file = pq.ParquetFile(tmp_path / "regions.parquet")
    groups = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
    assert sum(groups) == fields * per_field
    assert max(groups) < 60_000
    arrays = (a for a in vars(make_result(count=1).regions).values() if isinstance(a, np.ndarray))
    region_bytes = sum(a.nbytes for a in arrays)
    assert peak_bytes < fields * per_field * region_bytes / 2


def test_csv_text_is_quoted_as_rfc_4180_says(tmp_path):
    file = CsvFile(tmp_path / "x.csv", ["a", "b"])
    file.write_row(['say "hi"', "1,2\r\n3"])
    file.finish()
    assert (tmp_path / "x.csv").read_bytes() == b'\xef\xbb\xbfa,b\r\n"say ""hi""","1,2\r\n3"\r\n'


def test_tables_begin_with_a_mark_by_which_spreadsheets_know_utf8(tmp_path):
    file = CsvFile(tmp_path / "a.csv", ["Müller"])
    file.write_row(["ผู้ป่วย"])
    file.finish()
    data = (tmp_path / "a.csv").read_bytes()
    assert data == b"\xef\xbb\xbf" + "Müller\r\nผู้ป่วย\r\n".encode()
