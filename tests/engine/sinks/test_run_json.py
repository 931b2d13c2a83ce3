"""run.json as one model: written, read, checked, and no setting of it escapes --resume."""

from __future__ import annotations

import json
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbc_engine.errors import ResultsError
from rbc_engine.runs.record import RunCounts
from rbc_engine.sinks.run_json import RUN_JSON, Effect, RunRecord, Settings, peek

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def record(toy_pack) -> RunRecord:
    return RunRecord.of(
        toy_pack,
        abnormal_types=["burr"],
        device="cpu",
        settings={"lanes": 2, "um_per_px": None, "formats": ("report",), "of a later version": [1]},
        counts=RunCounts().record(),
        stage_seconds={"decode": 1},
        warnings=["é \udc80"],
        first_result_seconds=None,
    )


def test_what_is_written_is_read_and_only_what_was_given(tmp_path, record):
    path = tmp_path / RUN_JSON
    path.write_text(record.text())
    assert RunRecord.read(path) == record
    held = json.loads(path.read_text())
    assert list(held) == [
        *("schema", "pack", "program", "abnormal_types", "device", "settings", "stage_seconds"),
        *("counts", "warnings", "first_result_seconds"),
    ]
    assert list(held["settings"]) == ["lanes", "um_per_px", "formats", "of a later version"]
    assert held["warnings"] == ["é \\udc80"]
    changed = record.changed(files={"a": "b"}, first_result_seconds=1.5)
    assert changed.to_json() == {**held, "files": {"a": "b"}, "first_result_seconds": 1.5}
    with pytest.raises(ValueError, match="wall_seconds"):
        record.changed(wall_seconds="long")


HOSTILE = [
    ("pack", {"name": 1, "version": "1", "sha256": "x"}, r"pack\.name must be text \(got 1\)"),
    ("pack", [], "it must hold pack"),
    ("program", {"commit": {}}, r"program\.commit must be text"),
    ("counts", {"fields": 1}, r"counts\.failed is missing"),
    ("counts", {"fields": True, "failed": 0, "regions": 0, "abnormal": 0}, r"counts\.fields must"),
    ("counts", {"fields": -1, "failed": 0, "regions": 0, "abnormal": 0}, r"counts\.fields must"),
    ("wall_seconds", "1", "wall_seconds must be a valid number"),
    ("wall_seconds", -1, "wall_seconds must be greater"),
    ("stage_seconds", {"decode": None}, r"stage_seconds\.decode"),
    ("abnormal_types", "burr", "must name types of the pack"),
    ("warnings", "all", "warnings must be a list of texts"),
    ("settings", {"lanes": "2"}, r"settings\.lanes must"),
    ("settings", {"formats": [1]}, r"settings\.formats must be a list of texts"),
    ("settings", {"field_prior": 1}, r"settings\.field_prior must"),
    ("settings", {"x": [[[[[[[[[[]]]]]]]]]]}, r"settings\.x must be .* 8 deep"),
    ("files", {"fields.csv": 3}, r"files\.fields\.csv must be text"),
    ("whole_slides", [3], r"whole_slides\.0"),
    ("recalled_from", {}, r"recalled_from\.sha256 is missing"),
    ("schema", 99, "has schema 99, and this program reads"),
]


@pytest.mark.parametrize(("key", "value", "message"), HOSTILE)
def test_what_no_run_writes_is_refused_with_file_rule_value_and_remedy(
    tmp_path, record, key, value, message
):
    path = tmp_path / RUN_JSON
    path.write_text(json.dumps(record.to_json() | {key: value}))
    with pytest.raises(ResultsError, match=message) as refused:
        RunRecord.read(path)
    assert str(refused.value).startswith(str(path))
    assert str(refused.value).endswith(("with --overwrite", "that wrote it"))


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"\xff", b"[" * 100_000, b'{"x": NaN}', b'{"x": 1e999}', b" " * (2**26 + 1)],
)
def test_what_is_no_json_of_a_run_is_refused(tmp_path, data):
    path = tmp_path / RUN_JSON
    path.write_bytes(data)
    with pytest.raises(ResultsError, match="damaged or was changed"):
        RunRecord.read(path)
    assert peek(path) is None
    with pytest.raises(ResultsError, match="cannot read"):
        RunRecord.read(tmp_path / "none")


@given(key=st.sampled_from(sorted(RunRecord.model_fields)), value=JSON)
def test_anything_in_a_field_is_taken_or_refused(toy_pack, tmp_path_factory, key, value):
    path = tmp_path_factory.getbasetemp() / RUN_JSON
    held = RunRecord.of(toy_pack).to_json() | {key.rstrip("_"): value}
    try:
        taken = RunRecord.of_json(held, path=path)
    except ResultsError:
        return
    assert RunRecord.of_json(json.loads(taken.text()), path=path) == taken


def test_every_setting_says_what_it_changes_and_an_unknown_one_changes_results(record):
    assert set(Settings.effects()) == set(Settings.model_fields)
    assert record.settings.changing_results() == {"um_per_px": None, "of a later version": [1]}

    class Longer(Settings):
        zoom: float = 1.0

    with pytest.raises(TypeError, match="setting zoom must be marked"):
        Longer.effects()

    class Marked(Settings):
        zoom: Annotated[float, Effect.RESULTS] = 1.0

    assert Marked(zoom=2.0, lanes=3).changing_results() == {"zoom": 2.0}
