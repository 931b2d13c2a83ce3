"""Claiming the folder for results: what each mode refuses, before anything is changed."""

from __future__ import annotations

import pytest

from rbc_engine.errors import OutputError, ResultsError, UsageError
from rbc_engine.runs.compare.comparison_files import COMPARISON
from rbc_engine.sinks.journal.live_journal import LiveJournal
from rbc_engine.sinks.journal.run_journal import RunJournal
from rbc_engine.sinks.out_folder import claim
from rbc_engine.sinks.output import RunOutput
from rbc_engine.sinks.run_json import RunRecord

MODES = ("new", "overwrite", "resume")


@pytest.mark.parametrize("mode", MODES)
def test_an_empty_folder_and_none_are_taken_and_left_as_they_are(tmp_path, mode):
    for folder in (tmp_path, tmp_path / "none"):
        out = claim(folder, mode)
        assert (out.path, out.mode) == (folder, mode)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", MODES)
def test_what_is_no_run_is_refused_in_every_mode(tmp_path, mode):
    (tmp_path / "notes.txt").write_text("mine")
    for contents in {} if mode == "resume" else {"contents": COMPARISON}, {}:
        with pytest.raises(OutputError, match=r"notes\.txt") as refused:
            claim(tmp_path, mode, **contents)
        assert "--overwrite" not in str(refused.value)


@pytest.mark.parametrize("mode", MODES)
def test_inputs_are_refused_by_their_name(tmp_path, mode):
    picture = tmp_path / "a.png"
    picture.write_bytes(b"mine")
    for folder, given, what in (
        (tmp_path, picture, f"contains RUN_A {picture}"),
        (tmp_path / "x" / "..", tmp_path, "is RUN_A"),
    ):
        with pytest.raises(UsageError, match=what):
            claim(folder, mode, inputs={"INPUT": [], "RUN_A": [given]})


def test_a_journal_is_resumed_or_replaced_and_says_so(tmp_path):
    out = claim(tmp_path)
    RunJournal.create(out, {}, types=1)._records.close()
    with pytest.raises(OutputError, match=r"cut short.*--resume.*--overwrite"):
        claim(tmp_path)
    for mode in ("overwrite", "resume"):
        claim(tmp_path, mode)


def test_a_live_run_that_was_cut_short_is_recovered_or_replaced(tmp_path):
    LiveJournal(claim(tmp_path), {}).close()
    with pytest.raises(OutputError, match="--recover"):
        claim(tmp_path)
    with pytest.raises(ResultsError, match="--recover"):
        claim(tmp_path, "resume")
    claim(tmp_path, "overwrite")


def test_a_run_that_is_going_on_is_not_replaced(tmp_path):
    with LiveJournal(claim(tmp_path), {}), pytest.raises(OutputError, match="still being written"):
        claim(tmp_path, "overwrite")


def test_a_folder_that_was_filled_since_is_refused(tmp_path):
    out = claim(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        out.prepare(["fields.csv"], abandoned=[])


def test_a_command_without_resume_does_not_name_it_as_its_own(tmp_path, toy_pack):
    """As `live` and `recall`: what --resume continues, `run` continues."""
    out = claim(tmp_path / "cut")
    out.path.mkdir()
    RunJournal.create(out, {}, types=1)._records.close()
    with pytest.raises(OutputError, match=r"`rbc-engine run --resume` continues it"):
        claim(tmp_path / "cut", resumes=False)
    with RunOutput(claim(tmp_path / "whole"), toy_pack) as output:
        output.finish(RunRecord.of(toy_pack))
    with pytest.raises(OutputError, match="pass --overwrite") as refused:
        claim(tmp_path / "whole", resumes=False)
    assert "--resume" not in str(refused.value)
    with pytest.raises(OutputError, match="pass --resume to continue it, --overwrite to replace"):
        claim(tmp_path / "whole")
