"""Results as records of a journal: back as they were, and nothing that no run can have made."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbc_engine.errors import ResultsError
from rbc_engine.sinks.files.records import RecordWriter
from rbc_engine.sinks.journal.run_journal import RUN_JOURNAL, RunJournal
from rbc_engine.sinks.journal.stored_result import check_result, pack_result, unpack_result
from rbc_engine.sinks.out_folder import claim
from rbc_engine.types.cells import Cells
from rbc_engine.types.regions import Regions
from rbc_engine.types.results import FieldResult

FIELDS = FieldResult.__dataclass_fields__.keys() - {"regions", "frame"}


def stored(result):
    """The header and the arrays, as they come out of a file."""
    header, arrays = pack_result(result)
    return json.loads(json.dumps(header)), b"".join(arrays)


@given(st.integers(0, 30), st.integers(0, 1000), st.booleans())
def test_what_is_stored_is_read(make_result, make_mixed, count, seed, mixed):
    make = make_mixed if mixed else make_result
    result = make(count=count, seed=seed)
    again = unpack_result(*stored(result), types=3)
    check_result(again)
    for name in FIELDS:
        assert getattr(again, name) == getattr(result, name)
    for name in Regions.__dataclass_fields__.keys() - {"cells"}:
        np.testing.assert_array_equal(getattr(again.regions, name), getattr(result.regions, name))
    for name in Cells.__dataclass_fields__:
        np.testing.assert_array_equal(
            getattr(again.regions.cells, name), getattr(result.regions.cells, name)
        )


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"um_per_px": -1.0}, "um_per_px must lie in 0..1000"),
        ({"um_per_px": 0.0}, "um_per_px must not be 0"),
        ({"um_per_px": float("nan")}, "um_per_px must lie"),
        ({"um_per_px": "0.2"}, "um_per_px must lie"),
        ({"um_per_px": True}, "um_per_px must lie"),
        ({"um_per_px_from": "guessed"}, "must be one of given, stated, estimated, assumed"),
        ({"unfamiliar_distance": float("inf")}, "unfamiliar_distance must lie"),
        ({"unfamiliar_distance": -0.1}, "unfamiliar_distance must lie"),
        ({"uncovered": 1.5}, r"uncovered must lie in 0\.\.1"),
        ({"flags": 4}, r"flags must lie in 0\.\.3"),
        ({"flags": "unfamiliar"}, "unfamiliar"),
        ({"regions": 29}, "bytes of arrays"),
        ({"cells": 1}, "bytes of arrays|cells must be in order"),
        ({"cells": -1}, "."),
    ],
)
def test_headers_that_no_run_wrote_are_refused(make_mixed, changed, says):
    header, data = stored(make_mixed(count=30))
    with pytest.raises(ValueError, match=says):
        check_result(unpack_result(header | changed, data, types=3))


def changed(regions, name, row, value):
    array = getattr(regions, name).copy()
    array[row] = value
    return replace(regions, **{name: array})


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("kinds", 4, r"kinds must lie in 0\.\.3"),
        ("kinds", 3, "of the kind of their region"),
        ("flags", 16, r"flags must lie in 0\.\.15"),
        ("cells_low", 0, "cells_low and cells_high"),
        ("cells_high", 0, "cells_low and cells_high"),
        ("scores", 1.5, "scores must lie"),
        ("boxes", np.nan, "boxes must be finite"),
    ],
)
def test_regions_that_no_run_makes_are_refused(make_mixed, name, value, says):
    result = make_mixed(count=30)
    check_result(result)
    wrong = changed(result.regions, name, 7, value)
    with pytest.raises(ValueError, match=says):
        check_result(replace(result, regions=wrong))


@pytest.mark.parametrize("name", ["probabilities", "has", "abnormal_p", "abnormal"])
def test_only_red_cells_have_types(make_mixed, name):
    result = make_mixed(count=30)
    other = int(np.flatnonzero(~result.regions.red)[0])
    wrong = changed(result.regions, name, other, 1)
    with pytest.raises(ValueError, match="only red cells may have types or be abnormal"):
        check_result(replace(result, regions=wrong))


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("scores", np.nan, "scores of cells"),
        ("boxes", np.inf, "boxes must be finite"),
        ("kinds", 3, "of the kind of their region"),
    ],
)
def test_cells_that_no_run_makes_are_refused(make_mixed, name, value, says):
    result = make_mixed(count=30)
    wrong = changed(result.regions.cells, name, 3, value)
    with pytest.raises(ValueError, match=says):
        check_result(replace(result, regions=replace(result.regions, cells=wrong)))


def test_a_journal_of_an_earlier_version_is_refused_by_name(tmp_path):
    records = RecordWriter.create(tmp_path / RUN_JOURNAL, {"schema": 1, "run": {}})
    records.publish()
    records.close()
    says = rf"{RUN_JOURNAL} has schema 1.*neither kinds nor cells.*--overwrite"
    with pytest.raises(ResultsError, match=says):
        RunJournal.reopen(claim(tmp_path, "resume"), types=3, check=lambda head: None)
