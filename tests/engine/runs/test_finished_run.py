"""Reading a finished run back: all of it as it was, or refused."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rbc_engine.errors import ResultsError
from rbc_engine.runs.finished.finished_run import FinishedRun
from rbc_engine.sinks.out_folder import claim
from rbc_engine.sinks.output import RunOutput
from rbc_engine.sinks.run_json import RunRecord
from rbc_engine.types.cells import Cells
from rbc_engine.types.frames import FileStamp
from rbc_engine.types.regions import Regions
from rbc_engine.types.results import FieldResult


@pytest.fixture(params=["make_result", "make_mixed"])
def results(request, make_failure):
    make_result = request.getfixturevalue(request.param)
    stamp = FileStamp(12345, 1_700_000_000_123_456_789)
    counts = (3, 0, 40_000, 12_000, 7, 0, 1)
    return [
        *(make_result(slide=f"=s{i // 3}", field=f"'{i},\n\".jpg", count=count, seed=i, stamp=stamp)
        for i, count in enumerate(counts)),
        make_failure(slide="z"),
        make_result(slide="z", field="last", count=0),
    ]  # fmt: skip


def write(folder, pack, results, **changed):
    regions = [result.regions for result in results if result.regions is not None]
    counts = {
        "fields": len(results),
        "failed": sum(not result.ok for result in results),
        "regions": sum(map(len, regions)),
        "abnormal": sum(int(each.abnormal.sum()) for each in regions),
    }
    with RunOutput(claim(folder), pack) as output:
        for result in results:
            output.write(result)
        output.finish(RunRecord.of(pack, counts=counts, **changed))


def same(one: Regions | None, other: Regions | None) -> None:
    assert (one is None) == (other is None)
    if one is None:
        return
    for name in Regions.__dataclass_fields__.keys() - {"cells"}:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name in Cells.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(one.cells, name), getattr(other.cells, name))


def test_what_was_written_is_read(tmp_path, toy_pack, results):
    write(tmp_path, toy_pack, results)
    with FinishedRun(tmp_path) as run:
        assert run.types == toy_pack.types
        for name in ("run.json", "fields.csv", "regions.parquet", "cells.parquet"):
            assert run.sha256[name] == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        read = list(run.results())
        same(run.result(2).regions, results[2].regions)
        same(run.result(0).regions, results[0].regions)
    assert len(read) == len(results)
    for mine, theirs in zip(results, read, strict=True):
        for name in FieldResult.__dataclass_fields__.keys() - {"regions", "frame", "tiles"}:
            assert getattr(mine, name) == getattr(theirs, name)
        same(mine.regions, theirs.regions)


def test_rows_may_lie_across_row_groups(tmp_path, toy_pack, results):
    write(tmp_path, toy_pack, results)
    for name in ("regions.parquet", "cells.parquet"):
        path = tmp_path / name
        pq.write_table(pq.read_table(path), path, row_group_size=1001)
    accept(tmp_path)
    with FinishedRun(tmp_path) as run:
        for mine, theirs in zip(results, run.results(), strict=True):
            same(mine.regions, theirs.regions)


def accept(folder) -> None:
    """Makes run.json name what is there, as one who knows how would."""
    run = json.loads((folder / "run.json").read_text())
    for name in run["files"]:
        run["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "run.json").write_text(json.dumps(run))


def read_all(folder) -> None:
    with FinishedRun(folder) as run:
        list(run.results())


def change_column(table, name, value):
    column = table.column(name).to_pylist()
    column[5] = value
    kind = table.schema.field(name).type
    return table.set_column(table.schema.get_field_index(name), name, pa.array(column, kind))


HOSTILE = {
    "a probability of 2": lambda t: change_column(t, "p_burr", 2.0),
    "a probability that is none": lambda t: change_column(t, "p_burr", float("nan")),
    "a missing value": lambda t: change_column(t, "score", None),
    "a box turned over": lambda t: change_column(t, "x1", -5.0),
    "an endless box": lambda t: change_column(t, "x1", float("inf")),
    "another slide": lambda t: change_column(t, "slide", "other"),
    "another field": lambda t: change_column(t, "field", "other"),
    "another number": lambda t: change_column(t, "region", 77),
    "an unknown kind": lambda t: change_column(t, "kind", "blue"),
    "a white cell with types": lambda t: change_column(t, "kind", "white_cell"),
    "more cells than there may be": lambda t: change_column(t, "cells_high", 0),
    "fewer cells than none": lambda t: change_column(t, "cells_low", -1),
    "an unknown flag": lambda t: change_column(t, "flags", "<script>"),
    "fewer rows": lambda t: t.slice(1),
    "rows turned over": lambda t: t.take(pa.array(range(len(t) - 1, -1, -1))),
    "no column": lambda t: t.drop_columns(["has_burr"]),
    "other types": lambda t: t.cast(t.schema.set(3, pa.field("x0", pa.float64()))),
    "no types": lambda t: t.select(["slide", "field"]),
    "no pack": lambda t: t.replace_schema_metadata({}),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_hostile_tables_are_refused(tmp_path, toy_pack, make_result, change):
    write(tmp_path, toy_pack, [make_result(field=str(i), count=4) for i in range(5)])
    path = tmp_path / "regions.parquet"
    table = change(pq.read_table(path))
    pq.write_table(table, path)
    accept(tmp_path)
    with pytest.raises(ResultsError, match=rf"{tmp_path}.*(damaged or was changed)"):
        read_all(tmp_path)


HOSTILE_CELLS = {
    "a score of 2": lambda t: change_column(t, "score", 2.0),
    "a missing value": lambda t: change_column(t, "score", None),
    "a box turned over": lambda t: change_column(t, "x1", -5.0),
    "an endless box": lambda t: change_column(t, "x1", float("inf")),
    "another slide": lambda t: change_column(t, "slide", "other"),
    "another field": lambda t: change_column(t, "field", "other"),
    "a region that is none": lambda t: change_column(t, "region", 77),
    "a region before the first": lambda t: change_column(t, "region", -1),
    "another kind than its region": lambda t: change_column(t, "kind", "artefact"),
    "an unknown kind": lambda t: change_column(t, "kind", "blue"),
    "fewer rows": lambda t: t.slice(1),
    "rows turned over": lambda t: t.take(pa.array(range(len(t) - 1, -1, -1))),
    "no column": lambda t: t.drop_columns(["kind"]),
    "no pack": lambda t: t.replace_schema_metadata({}),
}


@pytest.mark.parametrize("change", HOSTILE_CELLS.values(), ids=HOSTILE_CELLS)
def test_hostile_cells_are_refused(tmp_path, toy_cell_pack, make_mixed, change):
    write(tmp_path, toy_cell_pack, [make_mixed(field=str(i), count=4, seed=i) for i in range(5)])
    path = tmp_path / "cells.parquet"
    pq.write_table(change(pq.read_table(path)), path)
    accept(tmp_path)
    with pytest.raises(ResultsError, match=rf"{tmp_path}.*(damaged or was changed)"):
        read_all(tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.125", "-1.0"),
        ("0.125", "nan"),
        ("0.125", "0.0"),
        ("estimated", "guessed"),
        ("estimated", ""),
        (",1.5,", ",inf,"),
        (",0.25,unf", ",1.25,unf"),
        ("unfamiliar\r", "odd\r"),
    ],
)
def test_hostile_scales_and_flags_are_refused(tmp_path, toy_cell_pack, make_mixed, old, new):
    write(tmp_path, toy_cell_pack, [make_mixed(count=4)])
    path = tmp_path / "fields.csv"
    text = path.read_bytes().decode()
    assert old in text
    path.write_bytes(text.replace(old, new, 1).encode())
    accept(tmp_path)
    with pytest.raises(ResultsError, match=rf"{tmp_path}"):
        read_all(tmp_path)


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (
            1,
            r"has schema 1, .*: rbc-engine 0.4.1 wrote it.*neither kinds nor cells.*run "
            r"--overwrite",
        ),
        (3, r"has schema 3, .*newer; upgrade with pip"),
        ("2", r".*it is not the run.json of a run"),
        (True, r".*it is not the run.json of a run"),
        (None, r".*it is not the run.json of a run"),
    ],
)
def test_a_run_of_another_schema_is_refused_by_name(tmp_path, toy_pack, make_result, schema, says):
    write(tmp_path, toy_pack, [make_result()], program={"version": "0.4.1"})
    path = tmp_path / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": schema}))
    with pytest.raises(ResultsError, match=rf"{tmp_path / 'run.json'} {says}"):
        FinishedRun(tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("done", "maybe"),
        ("640", "-1"),
        ("640", "1e3"),
        (",4,", ",5,"),
        (",4,", ",-4,"),
        ("0.25", "inf"),
        ("slide,field", "field,slide"),
        ("640,480", "640"),
        ("false", "no"),
        ("slide", '"'),
        (",4,", ",4" + "0" * 5000 + ","),
        (",4,", "," + "4" * 200_000 + ","),
    ],
)
def test_hostile_fields_are_refused(tmp_path, toy_pack, make_result, old, new):
    write(tmp_path, toy_pack, [make_result(field=str(i), count=4) for i in range(5)])
    path = tmp_path / "fields.csv"
    text = path.read_bytes().decode()
    assert old in text
    path.write_bytes(text.replace(old, new, 1).encode())
    accept(tmp_path)
    with pytest.raises(ResultsError, match=rf"{tmp_path}"):
        read_all(tmp_path)


@pytest.mark.parametrize("hostile", [["burr", "elf"], "burr", [["burr"]], {"burr": 1}, [0]])
def test_hostile_abnormal_types_are_refused(tmp_path, toy_pack, make_result, hostile):
    write(tmp_path, toy_pack, [make_result(count=4)])
    path = tmp_path / "run.json"
    run = json.loads(path.read_text())
    path.write_text(json.dumps(run | {"abnormal_types": ["burr"]}))
    with FinishedRun(tmp_path) as folder:
        assert folder.abnormal_types == {"burr"}
    path.write_text(json.dumps(run | {"abnormal_types": hostile}))
    with pytest.raises(ResultsError, match="must name types of the pack"):
        FinishedRun(tmp_path)


def test_bytes_that_are_no_files_are_refused(tmp_path, toy_pack, make_result):
    for name in ("fields.csv", "regions.parquet", "cells.parquet"):
        out = tmp_path / name.replace(".", "-")
        write(out, toy_pack, [make_result(count=4)])
        (out / name).write_bytes(bytes(range(256)) * 10)
        accept(out)
        with pytest.raises(ResultsError, match=rf"{out / name}"):
            read_all(out)
    with pytest.raises(ResultsError, match="holds no finished run"):
        FinishedRun(tmp_path / "none")


def test_damaged_parquet_pages_are_refused(tmp_path, toy_pack, make_result):
    write(tmp_path, toy_pack, [make_result(field=str(i), count=400, seed=i) for i in range(5)])
    path = tmp_path / "regions.parquet"
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        data = bytearray(whole)
        for place in rng.integers(4, len(data) - 8, 20).tolist():
            data[place] ^= int(rng.integers(1, 256))
        path.write_bytes(data)
        accept(tmp_path)
        try:
            read_all(tmp_path)
        except ResultsError:
            refused += 1
    assert refused > 30
