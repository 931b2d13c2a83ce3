"""A live run inside a process: feeds that fail, and what is still written."""

from __future__ import annotations

import json
import threading
import time

import numpy as np
import pytest

from rbc_engine.bench.instruments.stub_engine import stub_engine
from rbc_engine.errors import DeviceError, OutputError, PackError, ResultsError
from rbc_engine.runs.live import live_head, recover, run_live
from rbc_engine.sinks.journal.live_journal import LiveJournal
from rbc_engine.sinks.out_folder import claim
from rbc_engine.sinks.output import RunOutput
from rbc_engine.sinks.own_files import LIVE_JOURNAL
from rbc_engine.stats.monitor import SlideMonitor

FRAME = np.zeros((48, 64, 3), np.uint8)
FILES = [".run.files", "cells.parquet", "fields.csv", "regions.parquet", "run.json", "slides.csv"]


@pytest.fixture(scope="module")
def engine():
    with stub_engine(lanes=2, frame_s=0.002) as opened:
        yield opened


def run(engine, folder, feed, *, stops=None, on_tick=lambda state: None, **options):
    settings = {}
    claimed = claim(folder)
    with (
        engine.session(on_full="drop_oldest", **options) as session,
        RunOutput(claimed, engine.pack) as output,
        LiveJournal(claimed, live_head(engine, decoder="none", settings=settings)) as journal,
    ):
        return run_live(
            engine,
            session,
            feed,
            output,
            journal,
            SlideMonitor(engine.pack.types),
            decoder="none",
            started=time.perf_counter(),
            settings=settings,
            stops=stops or {},
            on_tick=on_tick,
        )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_camera_that_fails_keeps_what_it_gave(engine, tmp_path):
    def feed(session, stop):
        for index in range(5):
            session.submit(FRAME, field=str(index))
            time.sleep(0.01)
        session.note_lost(4, cause="buffer")
        raise DeviceError("unplugged")

    record = run(engine, tmp_path, feed).to_json()
    assert names(tmp_path) == FILES
    assert record == json.loads((tmp_path / "run.json").read_text())
    assert record["frames"]["submitted"] == 9
    assert record["counts"]["fields"] == record["frames"]["done"]
    assert "the source of frames failed: unplugged" in record["warnings"]
    assert record["source_error"] == "unplugged"
    assert record["stopped_by"] == "source_error"
    assert "4 frames were dropped: buffer" in record["warnings"]


def test_a_stop_ends_the_feed_and_ticks_tell(engine, tmp_path):
    stop = threading.Event()
    states = []

    def feed(session, stopped):
        while not stopped.wait(0.005):
            session.submit(FRAME)

    def on_tick(state):
        states.append(state)
        assert state.frames.add_up
        if len(states) == 3:
            stop.set()

    record = run(
        engine,
        tmp_path,
        feed,
        stops={"interrupted": threading.Event(), "enough_width": stop},
        on_tick=on_tick,
    ).to_json()
    assert record["stopped_by"] == "enough_width"
    assert len(states) >= 3
    assert states[-1].frames.in_flight == 0
    assert states[-1].frames.record() == record["frames"]


def test_a_disk_that_fails_leaves_the_journal(engine, tmp_path, monkeypatch):
    write, written = LiveJournal.write, []

    def fail(self, ended):
        if len(written) == 6:
            raise OutputError("no space")
        write(self, ended)
        written.append(ended)

    def feed(session, stop):
        while not stop.wait(0.005):
            session.submit(FRAME)

    monkeypatch.setattr(LiveJournal, "write", fail)

    def threads():
        """But for the engine's own, which start when they are first needed."""
        return {t for t in threading.enumerate() if not t.name.startswith("rbc-lane")}

    before = threads()
    with pytest.raises(OutputError, match="no space"):
        run(engine, tmp_path, feed)
    assert threads() <= before
    assert names(tmp_path) == [LIVE_JOURNAL]
    record = recover(tmp_path, engine.pack).to_json()
    assert names(tmp_path) == FILES
    assert record["frames"]["submitted"] == 6
    assert record["stopped_by"] == "crash"
    with pytest.raises(OutputError, match="holds a finished run: its files are whole"):
        recover(tmp_path, engine.pack)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ResultsError, match="not JSON of a run"):
        recover(tmp_path, engine.pack)
    (tmp_path / "run.json").unlink()
    with pytest.raises(OutputError, match=r"holds neither live\.journal nor a run"):
        recover(tmp_path, engine.pack)


def test_frames_lost_by_the_camera_are_recovered(engine, tmp_path):
    with LiveJournal(claim(tmp_path), live_head(engine, decoder="none", settings={})) as journal:
        journal.note_lost(3)
        journal.note_lost(8)
    assert recover(tmp_path, engine.pack).frames == {
        "submitted": 8,
        "done": 0,
        "dropped": 8,
        "rejected": 0,
        "failed": 0,
        "stale": 0,
    }


def test_another_pack_is_refused(engine, tmp_path, toy_pack):
    with LiveJournal(claim(tmp_path), live_head(engine, decoder="none", settings={})):
        pass
    with pytest.raises(PackError, match="name that one with --pack"):
        recover(tmp_path, toy_pack)
    assert names(tmp_path) == [LIVE_JOURNAL]
