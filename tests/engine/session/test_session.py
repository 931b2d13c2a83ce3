"""The live loop around lanes that sleep: policies, batches, order, readers."""

from __future__ import annotations

import asyncio
import threading
import time

import numpy as np
import pytest

from rbc_engine.bench.instruments.stub_engine import stub_engine
from rbc_engine.errors import UsageError
from rbc_engine.session.pixels import PixelFormat
from rbc_engine.types.ends import FrameStatus

from .ends import by_field, fields

FRAME = np.zeros((48, 64, 3), np.uint8)


def test_every_frame_is_done_and_counted(open_session):
    session = open_session(gated=False, lanes=2, frame_s=0.001)
    for index in range(40):
        assert session.submit(FRAME, field=str(index), position_um=(index, 1.0)).accepted
    ends = by_field(session)
    assert sorted(ends, key=int) == [str(index) for index in range(40)]
    assert all(e.ok and len(e.result.regions) == 20 and e.position_um[1] == 1.0 for e in ends.values())  # fmt: skip
    counts = session.counts
    assert (counts.submitted, counts.done, counts.ended, counts.in_flight) == (40, 40, 40, 0)
    assert counts.record() == {
        **dict.fromkeys(("dropped", "rejected", "failed", "stale"), 0),
        "submitted": 40,
        "done": 40,
    }
    assert session.latency.frames == 40
    assert 0 < session.latency.p50_s <= session.latency.p99_s
    assert session.over


def test_drop_oldest_keeps_the_newest(open_session, gate):
    session = open_session(on_full="drop_oldest", max_in_flight=3)
    for index in range(6):
        session.submit(FRAME, field=str(index))
        if index == 0:
            assert gate.begun.acquire(timeout=5)
    gate.open.set()
    ends = by_field(session)
    assert {field for field, end in ends.items() if end.ok} == {"0", "4", "5"}
    assert all(ends[f].status is FrameStatus.DROPPED for f in "123")
    assert "3 frames in flight; dropped for a newer one" in ends["1"].reason
    assert session.causes == {"dropped: full": 3}


def test_drop_oldest_drops_the_new_one_where_none_waits(open_session, gate):
    session = open_session(on_full="drop_oldest", max_in_flight=1)
    session.submit(FRAME)
    assert gate.begun.acquire(timeout=5)
    ticket = session.submit(FRAME)
    assert not ticket.accepted
    assert ticket.ended.status is FrameStatus.DROPPED
    assert "all of them in lanes" in ticket.ended.reason


@pytest.mark.parametrize(
    ("policy", "status"), [("drop_newest", FrameStatus.DROPPED), ("reject", FrameStatus.REJECTED)]
)
def test_the_newest_goes(open_session, gate, policy, status):
    session = open_session(on_full=policy, max_in_flight=2)
    tickets = [session.submit(FRAME, field=str(index)) for index in range(4)]
    assert [ticket.accepted for ticket in tickets] == [True, True, False, False]
    assert {ticket.ended.status for ticket in tickets[2:]} == {status}
    gate.open.set()
    assert sorted(field for field, end in by_field(session).items() if end.ok) == ["0", "1"]


def test_block_waits_for_room_and_not_longer_than_stated(open_session, gate):
    session = open_session(on_full="block", max_in_flight=1, submit_timeout_s=0.1)
    session.submit(FRAME)
    started = time.perf_counter()
    ticket = session.submit(FRAME)
    assert 0.1 <= time.perf_counter() - started < 2
    assert ticket.ended.status is FrameStatus.REJECTED
    assert "no room within 0.1" in ticket.ended.reason
    threading.Timer(0.1, gate.open.set).start()
    assert session.submit(FRAME, timeout_s=10).accepted


def test_block_ends_when_the_session_is_finished(open_session):
    session = open_session(on_full="block", max_in_flight=1)
    session.submit(FRAME)
    threading.Timer(0.1, session.finish).start()
    ticket = session.submit(FRAME, timeout_s=20)
    assert ticket.ended.status is FrameStatus.REJECTED
    assert session.counts.add_up


def test_old_frames_are_not_begun(open_session, gate):
    session = open_session(max_in_flight=3, max_age_s=0.05)
    session.submit(FRAME, field="runs", deadline_s=0.05)
    assert gate.begun.acquire(timeout=5)
    session.submit(FRAME, field="too old")
    session.submit(FRAME, field="of no use", deadline_s=0.01)
    time.sleep(0.1)
    gate.open.set()
    ends = by_field(session)
    assert ends["runs"].ok
    assert ends["runs"].late
    assert {ends["too old"].status, ends["of no use"].status} == {FrameStatus.STALE}
    assert "longer than 0.05 s" in ends["too old"].reason
    assert "longer than 0.01 s" in ends["of no use"].reason
    assert session.counts.late == 1
    assert gate.batches == [["runs"]]


def test_stale_frames_make_room(open_session, gate):
    session = open_session(on_full="reject", max_in_flight=2)
    session.submit(FRAME)
    assert gate.begun.acquire(timeout=5)
    session.submit(FRAME, deadline_s=0.01)
    time.sleep(0.03)
    assert session.submit(FRAME).accepted
    assert session.counts.stale == 1


def test_frames_share_a_batch_only_when_they_wait(open_session, gate):
    session = open_session(lanes=1, lane_frames=4, batch_frames=4, max_in_flight=20)
    assert session.max_batch == 4
    session.submit(FRAME, field="0")
    assert gate.begun.acquire(timeout=5)
    for index in range(1, 7):
        session.submit(FRAME, field=str(index))
    gate.open.set()
    assert fields(session) == [str(index) for index in range(7)]
    assert gate.batches == [["0"], ["1", "2", "3", "4"], ["5", "6"]]


def test_idle_lanes_share_what_waits(open_session, gate):
    session = open_session(lanes=2, lane_frames=4, batch_frames=4, max_in_flight=40)
    held = threading.Barrier(3)
    for _ in range(2):
        session.engine.on_lane(lambda lane: held.wait(10))
    for index in range(4):
        session.submit(FRAME, field=str(index))
    held.wait(10)
    assert gate.begun.acquire(timeout=5)
    assert gate.begun.acquire(timeout=5)
    gate.open.set()
    assert len(fields(session)) == 4
    assert sorted(map(len, gate.batches)) == [2, 2]


def test_order_of_submission(open_session, gate):
    session = open_session(lanes=2, order="submitted", on_full="reject", max_in_flight=3)
    session.submit(FRAME, field="0")
    assert gate.begun.acquire(timeout=5)
    session.submit(np.zeros(3), field="1")  # ends at once
    session.submit(FRAME, field="2")
    session.submit(FRAME, field="3")
    session.submit(FRAME, field="4")  # ends at once
    assert session.poll() == []
    gate.open.set()
    assert fields(session) == ["0", "1", "2", "3", "4"]


def test_as_ready(open_session, gate):
    session = open_session(order="ready", on_full="reject", max_in_flight=1)
    session.submit(FRAME, field="0")
    session.submit(FRAME, field="1")
    assert [ended.field for ended in session.poll()] == ["1"]
    assert session.read(timeout_s=0.01) is None
    assert not session.over


def test_the_callers_array_is_its_own_again(open_session, gate):
    session = open_session(max_in_flight=3, keep_frames=True)
    frame = np.full((48, 64, 3), 7, np.uint8)
    session.submit(frame, field="copied")
    frame[:] = 9
    session.submit(frame, field="in place", copy=False)
    session.submit(frame[::-1, ::-1], field="strided")
    gate.open.set()
    ends = by_field(session)
    assert (ends["copied"].result.frame.pixels == 7).all()
    assert np.shares_memory(ends["in place"].result.frame.pixels, frame)
    assert (ends["strided"].result.frame.pixels == 9).all()


def test_buffers_are_used_again(open_session):
    session = open_session(gated=False, max_in_flight=1, lanes=1)
    for _ in range(20):
        session.submit(FRAME)
        session.drain(timeout_s=5)
    assert len(session._flow.pool._free) == 1


def test_cancel_drops_what_waits(open_session, gate):
    session = open_session(max_in_flight=5)
    for index in range(5):
        session.submit(FRAME, field=str(index))
    assert gate.begun.acquire(timeout=5)
    assert session.cancel() == 4
    session.submit(FRAME, field="later")
    gate.open.set()
    ends = by_field(session)
    assert {f for f, end in ends.items() if end.ok} == {"0", "later"}
    assert ends["3"].reason == "cancelled"


def test_drain_waits_for_what_was_submitted_before(open_session, gate):
    session = open_session(max_in_flight=5)
    session.submit(FRAME)
    assert not session.drain(timeout_s=0.05)
    gate.open.set()
    assert session.drain(timeout_s=5)
    assert session.counts.in_flight == 0


def test_callback_gets_every_end_in_one_thread(open_session):
    threads, ends = set(), []

    def on_ended(ended):
        threads.add(threading.current_thread().name)
        ends.append(ended.field)

    session = open_session(gated=False, lanes=2, order="submitted", on_ended=on_ended)
    for index in range(30):
        session.submit(FRAME, field=str(index))
    assert session.drain(timeout_s=5)
    assert ends == [str(index) for index in range(30)]
    assert threads == {"rbc-callback"}
    for read in (session.poll, session.read, lambda: next(session.results())):
        with pytest.raises(UsageError, match="leave out on_ended"):
            read()


def test_block_loses_no_result_to_a_slow_reader(open_session):
    session = open_session(gated=False, on_full="block", max_in_flight=2, max_unread=3)
    numbers = []

    def read():
        for ended in session.results():
            time.sleep(0.003)
            numbers.append(ended.number)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(40):
        assert session.submit(FRAME, timeout_s=10).accepted
    session.finish()
    reader.join(10)
    assert sorted(numbers) == list(range(40))
    assert session.counts.unread == 0


def test_asyncio(open_session):
    session = open_session(gated=False, lanes=2, frame_s=0.002)

    async def main():
        loop = asyncio.get_running_loop()
        beats = 0

        async def beat():
            nonlocal beats
            while True:
                beats += 1
                await asyncio.sleep(0.001)

        def feed():
            for _ in range(20):
                session.submit(FRAME)
            session.finish()

        beating = asyncio.ensure_future(beat())
        feeding = loop.run_in_executor(None, feed)
        ends = [ended async for ended in session.async_results()]
        await feeding
        beating.cancel()
        return ends, beats

    ends, beats = asyncio.run(main())
    assert len(ends) == 20
    assert beats > 5  # the event loop went on


def test_frames_the_camera_lost_are_counted(open_session):
    session = open_session(gated=False)
    session.note_lost(7, cause="buffer")
    session.note_lost(0)
    assert (
        session.counts.record()["submitted"] == session.counts.dropped == session.counts.lost == 7
    )
    assert session.causes["dropped: buffer"] == 7
    with pytest.raises(UsageError, match="count"):
        session.note_lost(-1)


def test_frames_wait_for_the_warm_up(gate):
    with stub_engine(lanes=1, hook=gate) as engine:
        session = engine.session()
        session.submit(FRAME, field="early")
        assert not session.wait_ready(timeout_s=0.05)
        assert not session.ready
        assert session.counts.waiting == 1
        gate.open.set()
        assert session.drain(timeout_s=5)
        assert session.ready
        assert gate.batches[0] == ["warm-up"]
        session.close()


def test_mono_and_sixteen_bits_come_out_as_rgb(open_session):
    session = open_session(gated=False, keep_frames=True, pixels=PixelFormat(bits=12))
    session.submit(np.full((48, 64), 4095, np.uint16), field="white")
    session.submit(np.full((48, 64), 4096, np.uint16), field="too bright")
    session.submit(np.full((48, 64), 3, np.uint8), field="8 bits")
    blue = PixelFormat(layout="bgra")
    bgra = np.broadcast_to(np.array([9, 0, 0, 255], np.uint8), (48, 64, 4))
    session.submit(bgra, field="bgra", pixels=blue)
    ends = by_field(session)
    assert (ends["white"].result.frame.pixels == 255).all()
    assert "needs 13 bits" in ends["too bright"].reason
    assert (ends["8 bits"].result.frame.pixels == 3).all()
    assert ends["bgra"].result.frame.pixels[0, 0].tolist() == [0, 0, 9]
