"""A run as a function: what it reports, keeps and refuses. Lanes sleep instead of computing."""

from __future__ import annotations

import inspect
import shutil
import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from PIL import Image

import rbc_engine
from rbc_engine import OutputError, ResultsError, RunProgress, UsageError, run_folder
from rbc_engine.bench.instruments.stub_engine import stub_engine
from rbc_engine.cli import app
from rbc_engine.engine import Engine
from rbc_engine.naming import options_named
from rbc_engine.sinks.files.atomic import AtomicFile
from rbc_engine.sinks.run_json import RunRecord, Settings

FIELDS = ["a/0.png", "a/1.png", "b/0.png", "b/1.png", "b/2.png"]


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "in"
    for index, field in enumerate(FIELDS):
        (folder / field).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((40, 48, 3), 40 * index, np.uint8)
        Image.fromarray(pixels).save(folder / field)
    return folder


@pytest.fixture(autouse=True)
def opened():
    """What Engine.open was asked for; it opens lanes that sleep."""
    asked: list[dict] = []

    def stub(_pack, **options):
        asked.append(options)
        return stub_engine(lanes=1, lane_frames=1, regions=3)

    with mock.patch.object(Engine, "open", stub):
        yield asked


class FieldList:
    """A sink of one's own."""

    needs_frames = False

    def __init__(self, folder, pack):
        self._file = AtomicFile(folder / "list.txt")

    def write(self, result):
        self._file.write(f"{result.field}\n".encode())

    def complete(self):
        self._file.complete()

    def finish(self):
        self._file.finish()

    def discard(self):
        self._file.discard()


def test_a_disk_without_room_is_refused_before_anything_is_begun(images, tmp_path, monkeypatch):
    usage = SimpleNamespace(free=10 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OutputError, match=r"has 10 MiB left, and the results of 5 fields take"):
        run_folder(images, tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()


def test_it_tells_what_it_does_and_prints_nothing(images, tmp_path, capfd):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    progress: list[RunProgress] = []
    results = []
    out = tmp_path / "out"
    summary = run_folder(
        images, out, formats=["only"], on_progress=progress.append, on_result=results.append
    )
    assert capfd.readouterr() == ("", "")
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert [result.field for result in results] == FIELDS
    assert [each.done for each in progress] == [0, 1, 2, 3, 4, 5]
    assert [each.begins for each in progress] == [True, *[False] * 5]
    assert {each.fields for each in progress} == {5}
    assert (progress[-1].slides, progress[-1].regions, progress[-1].kept) == (2, 15, 0)
    assert summary.record == RunRecord.read(out / "run.json")
    assert (summary.out, summary.failures, summary.stopped) == (out, (), False)
    assert [(row.slide, row.fields, row.regions) for row in summary.slides] == [
        ("a", 2, 6),
        ("b", 3, 9),
    ]


def test_it_runs_in_any_thread_and_stops_on_request(images, tmp_path):
    stop = threading.Event()
    found = []

    def work():
        found.append(
            run_folder(
                str(images), str(tmp_path / "out"), stop=stop, on_result=lambda result: stop.set()
            )
        )

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    [summary] = found
    assert summary.stopped
    done = summary.record.counts.fields
    assert 0 < done < 5  # what was in flight is finished
    resumed = run_folder(images, tmp_path / "out", resume=True)
    assert resumed.record.counts.fields == 5


def test_it_resumes_from_what_a_callback_left(images, tmp_path, opened):
    out = tmp_path / "out"
    seen = []

    def fail(result):
        seen.append(result.field)
        if len(seen) == 3:
            raise RuntimeError("the caller's own")

    with pytest.raises(RuntimeError, match="own"):
        run_folder(images, out, formats=["only"], on_result=fail, sinks=[FieldList])
    assert [path.name for path in out.iterdir()] == ["run.journal"]
    with pytest.raises(OutputError, match="pass resume=True to continue it, overwrite=True to"):
        run_folder(images, out, formats=["only"])
    progress: list[RunProgress] = []
    summary = run_folder(
        images, out, formats=["only"], resume=True, on_progress=progress.append, sinks=[FieldList]
    )
    assert progress[0].notes[0].startswith("resumed: 3 of 5 fields")
    assert (progress[-1].kept, progress[-1].done, progress[-1].regions) == (3, 5, 6)
    assert summary.record.counts.regions == 15
    assert (out / "list.txt").read_text().split() == FIELDS
    with pytest.raises(
        ResultsError, match=r"resume=True does not fit .*setting um_per_px was None"
    ):
        run_folder(images, out, formats=["only"], resume=True, um_per_px=0.1)


def test_arguments_reach_the_engine_and_the_record(images, tmp_path, opened):
    given = {
        "device": "cpu",
        "precision": "fp32",
        "lanes": 3,
        "estimate_scale": False,
        "field_prior": False,
    }
    summary = run_folder(
        [images / "a", str(images / "b")], tmp_path / "out", limit=4, um_per_px=0.2,
        formats=["only", "csv"], **given,
    )  # fmt: skip
    assert opened == [{**given, "watch": None}]
    settings = summary.record.settings
    assert (settings.limit, settings.um_per_px, settings.formats) == (4, 0.2, ("csv",))
    assert "--limit 4: 1 fields were left out" in summary.record.warnings
    assert (tmp_path / "out" / "regions.csv").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"um_per_px": -1}, "^um_per_px must lie in"),
        ({"limit": 0}, "^limit must be at least 1"),
        ({"formats": ["docx"]}, "^formats may name"),
        ({"resume": True, "overwrite": True}, "^resume=True keeps what is done in out"),
        ({"inputs": []}, "^inputs is missing"),
        ({"out": "."}, "^out . (is|contains) inputs"),
    ],
)
def test_errors_name_arguments_and_those_of_the_command_options(
    images, tmp_path, monkeypatch, opened, options, message
):
    monkeypatch.chdir(images)
    given = {"inputs": ["."], "out": str(tmp_path / "out")} | options
    with pytest.raises(UsageError, match=message) as refused:
        run_folder(**given)
    assert "--" not in str(refused.value)
    assert not (tmp_path / "out").exists()
    assert opened == []
    with options_named(), pytest.raises(UsageError, match=r"^(--|INPUT)"):
        run_folder(**given)


NO_RESULTS = {"inputs", "out", "resume", "overwrite", "stop", "watch", "sinks"}
OF_THE_RECORD = {"pack": "pack", "device": "backend", "precision": "precision"}


def test_an_argument_is_compared_when_resumed_or_changes_no_result():
    arguments = set(inspect.signature(run_folder).parameters)
    arguments -= {name for name in arguments if name.startswith("on_")}
    assert arguments - NO_RESULTS - set(OF_THE_RECORD) <= set(Settings.model_fields)
    assert set(inspect.signature(Engine.on).parameters) - {"pack", "choices"} <= set(
        Settings.model_fields
    )


def test_the_command_has_every_argument():
    [command] = [each for each in app.registered_commands if each.callback.__name__ == "run"]
    options = set(inspect.signature(command.callback).parameters)
    called = set(inspect.signature(run_folder).parameters)
    no_options = {"sinks", "stop", "on_progress", "on_result", "watch"}
    assert called - no_options == options - {"as_json", "quiet"}


def test_public_names_come_from_their_modules():
    assert "run_folder" in rbc_engine.__all__
    for name in rbc_engine.__all__:
        assert getattr(rbc_engine, name).__name__ == name
