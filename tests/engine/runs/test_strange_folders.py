"""Folders of results from a stranger, every checksum right: used up to the damage, or refused in one line."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rbc_engine.errors import RbcError, ResultsError
from rbc_engine.runs.finished.finished_run import FinishedRun
from rbc_engine.runs.finished.table_file import MOST_ROWS
from rbc_engine.runs.live import recover
from rbc_engine.runs.recall.call_rules import pack_of
from rbc_engine.runs.resume import open_earlier, resume_plan
from rbc_engine.sinks.files.records import RecordWriter
from rbc_engine.sinks.journal.run_journal import RUN_JOURNAL, RunJournal
from rbc_engine.sinks.journal.stored_result import check_result, pack_result
from rbc_engine.sinks.out_folder import claim
from rbc_engine.sinks.output import RunOutput
from rbc_engine.sinks.own_files import LIVE_JOURNAL
from rbc_engine.sinks.run_json import RunRecord
from rbc_engine.types.frames import FieldRef, FileStamp
from rbc_engine.types.results import TileCounts

ODD = [
    None, True, False, -1, 0, 7, 2**31, 2**63, -(2**63), 10**400, 1.5, -0.0, 1e308, float("nan"),
    float("inf"), "", "x", "1", "\ud800", "\x1b[2J", "a\x00b", "\u202e", [], [1], ["x"], {}, {"x": 1}, [[[]]],
]  # fmt: skip


def odd_at(document, *more):
    """Every place in JSON with a quarter of the odd values, each time another one."""
    for number, path in enumerate([*places(document), *more]):
        for value in ODD[number % 4 :: 4]:
            yield path, value


def places(value, path=()):
    """Every place in JSON, of values and of what holds them."""
    for key in value if isinstance(value, dict) else range(len(value)):
        yield (*path, key)
        if isinstance(value[key], dict | list):
            yield from places(value[key], (*path, key))


def with_value(document, path, value):
    copy = json.loads(json.dumps(document))
    at = copy
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return copy


@pytest.fixture
def result(make_mixed):
    stamp = FileStamp(12345, 1_700_000_000_123_456_789)
    return replace(make_mixed(count=5), stamp=stamp, tiles=TileCounts(run=3, blank=1))


def journal_of(folder, head, records, name=RUN_JOURNAL):
    writer = RecordWriter.create(folder / name, head)
    # As a stranger would: append refuses what JSON cannot hold.
    plain, json.dumps = json.dumps, lambda value, **_: plain(value)
    try:
        for header, data in records:
            writer.append(header, data)
    finally:
        json.dumps = plain
    writer.publish()
    writer.close()


def test_odd_values_of_a_journal_end_it_and_nothing_else(tmp_path, toy_pack, result):
    header, arrays = pack_result(result)
    data = b"".join(arrays)
    run = RunRecord.of(toy_pack).to_json()
    good = header | {"field": "before.jpg"}
    kept = 0
    for path, value in odd_at(header):
        odd = with_value(header, path, value)
        journal_of(tmp_path, {"schema": 2, "run": run}, [(good, data), (odd, data), (good, data)])
        entry = FieldRef(slide="s", field="f.jpg", path=tmp_path / "f.jpg")
        with RunJournal.reopen(
            claim(tmp_path, "resume"), types=3, check=lambda head: None
        ) as journal:
            assert ("s", "before.jpg") in journal.stored
            resume_plan([entry], journal)
            for key in list(journal.stored):
                kept += 1
                read = journal.read(key)
                check_result(read)
                with RunOutput(claim(tmp_path / "tables", "overwrite"), toy_pack) as output:
                    output.write(read)
    assert kept > len(ODD)


def test_odd_values_of_a_live_journal_end_it_and_nothing_else(tmp_path, toy_pack, result):
    header, arrays = pack_result(replace(result, stamp=None, tiles=None))
    data = b"".join(arrays)
    ended = {
        "number": 1,
        "status": "done",
        "slide": "s",
        "field": "f",
        "cause": "",
        "result": header,
    }
    run = RunRecord.of(toy_pack).to_json()
    outcomes = set()
    for path, value in odd_at(ended, *[("lost",)] * 4):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        odd = with_value(ended, path, value)
        journal_of(folder, {"schema": 3, "run": run}, [(ended, data), (odd, data)], LIVE_JOURNAL)
        recovered = recover(folder, toy_pack)
        outcomes.add(recovered.counts.fields)
        with FinishedRun(folder) as finished:
            assert len(list(finished.results())) == recovered.counts.fields >= 1
    assert outcomes == {1, 2}


@pytest.fixture
def folder(tmp_path, toy_pack, result):
    folder = tmp_path / "run"
    results = [replace(result, tiles=None, field=f"{i}.jpg") for i in range(3)]
    counts = {"fields": 3, "failed": 0, "regions": 15}
    counts["abnormal"] = sum(int(each.regions.abnormal.sum()) for each in results)
    with RunOutput(claim(folder), toy_pack) as output:
        for each in results:
            output.write(each)
        output.finish(
            RunRecord.of(toy_pack, counts=counts, abnormal_types=toy_pack.manifest.abnormal)
        )
    return folder


def test_odd_values_of_run_json_are_refused_or_used(folder, toy_pack):
    document = json.loads((folder / "run.json").read_text())
    read = 0
    for path, value in odd_at(document):
        (folder / "run.json").write_text(json.dumps(with_value(document, path, value)))
        try:
            with FinishedRun(folder) as run:
                list(run.results())
                run.run.text()
                read += 1
                pack_of(run, None)
        except RbcError as error:
            assert str(error).encode()  # noqa: PT017
        try:
            open_earlier(claim(folder, "resume"), toy_pack, RunRecord.of(toy_pack)).remove()
        except RbcError as error:
            assert str(error).encode()  # noqa: PT017
    assert read > 5


def sign(folder, name):
    document = json.loads((folder / "run.json").read_text())
    document["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "run.json").write_text(json.dumps(document))


def test_odd_cells_of_fields_csv_are_refused_or_used(folder):
    lines = (folder / "fields.csv").read_text().splitlines()
    columns = len(lines[0].split(","))
    for column in range(columns):
        for value in (
            "",
            "-1",
            "x",
            "nan",
            "inf",
            "9" * 30,
            "1e999",
            "NaT",
            "0000-00-00Z",
            "\u0663",
            '"',
            "=1",
        ):
            cells = lines[2].split(",")
            cells[column] = value
            text = "\n".join([lines[0], lines[1], ",".join(cells), *lines[3:]]) + "\n"
            (folder / "fields.csv").write_text(text)
            sign(folder, "fields.csv")
            try:
                with FinishedRun(folder) as run:
                    list(run.results())
            except ResultsError:
                pass


def test_rows_that_cost_no_bytes_are_counted_before_they_are_read(folder, toy_pack):
    """Five million rows of one value are some kilobytes of a file, and a gigabyte when they are read."""
    name = "regions.parquet"
    table = pq.read_table(folder / name)
    count = MOST_ROWS + 1
    columns = [
        pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(count, np.int32)), column.combine_chunks().slice(0, 1)
        ).cast(column.type)
        for column in table.columns
    ]
    many = pa.Table.from_arrays(columns, schema=table.schema)
    pq.write_table(many, folder / name, compression="zstd", row_group_size=count)
    assert (folder / name).stat().st_size < 1 << 20
    sign(folder, name)
    with pytest.raises(ResultsError, match=f"has {count} rows, and at most {MOST_ROWS}"):
        FinishedRun(folder)
