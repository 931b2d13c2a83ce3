"""The live loop around lanes that sleep: policies, ends, threads, and everything that goes wrong in a long night."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import threading
import time
from contextlib import ExitStack

import numpy as np
import pytest

from rbc_engine.accounting import FrameStatus
from rbc_engine.bench.stub_engine import stub_engine
from rbc_engine.errors import RbcError, SessionClosedError, UsageError
from rbc_engine.pixels import PixelFormat

FRAME = np.zeros((48, 64, 3), np.uint8)


class Gate:
    """A hook for stub lanes: holds every batch until it is opened, and remembers the batches."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.begun = threading.Semaphore(0)
        self.batches: list[list[str]] = []

    def __call__(self, batch):
        self.batches.append([decoded.ref.field for decoded in batch])
        if batch[0].ref.field.startswith("kill"):
            raise SystemExit("killed")
        if any(decoded.ref.field.startswith("fail") for decoded in batch):
            raise ValueError("cannot")
        self.begun.release()
        assert self.open.wait(20)


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.open.set()


@pytest.fixture
def open_session(gate, request):
    """Sessions on an engine whose lanes wait at the gate, behind a first frame that warms nothing up."""
    with ExitStack() as stack:

        def make(*, lanes=1, gated=True, frame_s=0.0, engine=None, **options):
            engine_options = {
                name: options.pop(name)
                for name in ("lane_frames", "batch_frames")
                if name in options
            }
            if engine is None:
                hook = gate if gated else None
                engine = stack.enter_context(
                    stub_engine(lanes=lanes, hook=hook, frame_s=frame_s, **engine_options)
                )
            gate_was_open = gate.open.is_set()
            gate.open.set()  # the warm-up passes, too
            session = engine.session(**options)
            session.wait_ready(timeout_s=20)
            stack.callback(session.close, drain=False, timeout_s=5)
            stack.callback(gate.open.set)
            if not gate_was_open:
                gate.open.clear()
            gate.batches.clear()
            while gate.begun.acquire(blocking=False):
                pass
            session.engine = engine
            return session

        yield make


def fields(session):
    session.finish()
    return [ended.field for ended in session.results()]


def by_field(session):
    session.finish()
    return {ended.field: ended for ended in session.results()}


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


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (np.zeros((48, 64, 3), np.float32), "uint8 or uint16 .got float32"),
        (np.full((48, 64), np.nan), "got float64"),
        (np.zeros((48, 64, 3), np.int8), "got int8"),
        (np.zeros((48, 64, 3), object), "got object"),
        (np.zeros((48, 64, 2), np.uint8), r"\[48, 64, 2\]"),
        (np.zeros((2, 48, 64, 3), np.uint8), r"\[2, 48, 64, 3\]"),
        (np.zeros(48, np.uint8), r"\[48\]"),
        (np.zeros((0, 64, 3), np.uint8), "32..8192"),
        (np.zeros((48, 9000), np.uint8), "9000x48"),
        (np.zeros((48, 64), np.uint16), "bits"),
        ([[1, 2], [3, 4]], "got list"),
        (None, "got NoneType"),
    ],
)
def test_a_bad_frame_fails_alone(open_session, frame, says):
    session = open_session(gated=False)
    session.submit(FRAME, field="before")
    ticket = session.submit(frame, field="bad")
    session.submit(FRAME, field="after")
    ends = by_field(session)
    assert ends["before"].ok
    assert ends["after"].ok
    assert ends["bad"] is ticket.ended
    assert ends["bad"].status is FrameStatus.FAILED
    assert ends["bad"].result.error == ends["bad"].reason
    assert re.search(says, ends["bad"].reason)


def test_bad_arguments_are_refused_and_not_counted(open_session):
    session = open_session(gated=False)
    for options in (
        {"position_um": (0.0, float("nan"))},
        {"position_um": (1.0,)},
        {"deadline_s": float("inf")},
        {"deadline_s": -1.0},
        {"timeout_s": float("nan")},
    ):
        with pytest.raises(UsageError, match=next(iter(options))):
            session.submit(FRAME, **options)
    assert session.counts.submitted == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"on_full": "explode"}, "explode"),
        ({"order": "random"}, "random"),
        ({"max_in_flight": 0}, "max_in_flight"),
        ({"max_age_s": -1}, "max_age_s"),
        ({"pixel_um": 0.0}, "pixel_um"),
        ({"warm_up_hw": (0, 5)}, "warm_up_hw"),
        ({"max_unread": 2, "max_in_flight": 3}, "max_unread"),
    ],
)
def test_wrong_options_name_the_value(options, says):
    with stub_engine() as engine, pytest.raises(UsageError, match=says):
        engine.session(**options)


def test_another_size_in_mid_stream(open_session):
    session = open_session(gated=False)
    sizes = [(48, 64), (100, 50), (48, 64), (64, 64)]
    for index, (height, width) in enumerate(sizes):
        session.submit(np.zeros((height, width, 3), np.uint8), field=str(index))
    ends = by_field(session)
    got = [(ends[str(i)].result.height, ends[str(i)].result.width) for i in range(4)]
    assert got == sizes


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


def test_a_failed_lane_harms_one_frame_of_its_batch(open_session, gate):
    session = open_session(lane_frames=4, batch_frames=4, max_in_flight=20)
    session.submit(FRAME, field="0")
    assert gate.begun.acquire(timeout=5)
    for name in ("1", "fail", "2", "kill"):
        session.submit(FRAME, field=name)
    gate.open.set()
    ends = by_field(session)
    assert {name for name, end in ends.items() if end.ok} == {"0", "1", "2"}
    assert ends["fail"].reason == "ValueError: cannot"
    assert ends["kill"].reason == "SystemExit: killed"
    assert session.problems == {
        "a lane failed: ValueError": 1,
        "a lane failed: SystemExit": 1,
    }
    assert session.engine.on_lane(lambda lane: 5).result(timeout=5) == 5  # the workers live


def test_a_result_of_an_unfit_image_is_a_failure(open_session):
    """What the real lane says of a frame that fits no canvas."""
    session = open_session(gated=False)
    ticket = session.note_failed("damaged", field="x", path="/in/x.jpg")
    assert ticket.ended.result.path == "/in/x.jpg"
    assert session.counts.failed == 1


def test_submit_after_close_is_counted_and_raised(open_session):
    session = open_session(gated=False)
    session.close()
    session.close()
    for _ in range(3):
        with pytest.raises(SessionClosedError, match="open a new one"):
            session.submit(FRAME)
    counts = session.counts
    assert (counts.submitted, counts.rejected) == (3, 3)
    assert session.causes == {"rejected: the session is closed": 3}


def test_two_sessions_take_turns(open_session):
    first = open_session(gated=False, lanes=1, frame_s=0.005, max_in_flight=50)
    second = open_session(engine=first.engine, max_in_flight=50)
    for index in range(20):
        first.submit(FRAME, field=str(index))
    for index in range(5):
        second.submit(FRAME, field=str(index))
    started = time.perf_counter()
    assert second.drain(timeout_s=10)
    assert first.counts.in_flight > 0  # the second did not wait for all of the first's
    assert time.perf_counter() - started < 5
    assert first.drain(timeout_s=10)
    assert (first.counts.done, second.counts.done) == (20, 5)


def test_many_sessions_open_and_close_at_once():
    with stub_engine(lanes=2) as engine:

        def one():
            with engine.session() as session:
                for _ in range(10):
                    session.submit(FRAME)
                session.drain(timeout_s=20)
                assert session.counts.done == 10

        threads = [threading.Thread(target=one) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()


def test_the_engine_closed_under_a_session(gate):
    engine = stub_engine(lanes=1, hook=gate)
    gate.open.set()
    session = engine.session(max_in_flight=4)
    session.wait_ready()
    gate.open.clear()
    while gate.begun.acquire(blocking=False):
        pass
    for index in range(4):
        session.submit(FRAME, field=str(index))
    assert gate.begun.acquire(timeout=5)
    closer = threading.Thread(target=engine.close)
    closer.start()
    time.sleep(0.05)
    gate.open.set()
    closer.join(10)
    assert not closer.is_alive()
    ends = by_field(session)
    assert ends["0"].ok
    assert {ends[f].status for f in "123"} == {FrameStatus.FAILED}
    assert {ends[f].cause for f in "123"} == {"the engine is closed"}
    session.close(timeout_s=5)
    with pytest.raises(RbcError, match="closed"):
        engine.session()


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


def test_close_gives_up_on_a_lane_that_hangs(open_session, gate, caplog):
    session = open_session(max_in_flight=3)
    for index in range(3):
        session.submit(FRAME, field=str(index))
    assert gate.begun.acquire(timeout=5)
    started = time.perf_counter()
    with caplog.at_level(logging.WARNING, "rbc_engine.session"):
        session.close(timeout_s=0.1)
    assert time.perf_counter() - started < 3
    ends = by_field(session)
    assert ends["0"].cause == "a lane hangs"
    assert ends["0"].status is FrameStatus.FAILED
    assert {ends[f].status for f in "12"} == {FrameStatus.DROPPED}
    assert "a lane hangs" in session.problems
    assert "a lane hangs" in caplog.text
    gate.open.set()
    time.sleep(0.05)
    assert session.counts.done == 0  # its late result counts no second time
    assert session.counts.add_up


def test_leaving_by_an_error_drops_what_waits(gate):
    with stub_engine(lanes=1, hook=gate) as engine:
        gate.open.set()

        def fail():
            with engine.session(max_in_flight=5) as session:
                opened.append(session)
                gate.open.clear()
                for _ in range(5):
                    session.submit(FRAME)
                threading.Timer(0.1, gate.open.set).start()
                raise KeyError("mine")

        opened = []
        with pytest.raises(KeyError, match="mine"):
            fail()
        counts = opened[0].counts
        assert counts.dropped >= 3
        assert counts.in_flight == 0


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


def test_a_callback_that_raises_harms_no_other(open_session, caplog):
    done = []

    def on_ended(ended):
        done.append(ended.field)
        if ended.field == "3":
            raise ZeroDivisionError("mine")
        if ended.field == "5":
            raise SystemExit

    session = open_session(gated=False, order="submitted", on_ended=on_ended)
    for index in range(8):
        session.submit(FRAME, field=str(index))
    assert session.drain(timeout_s=5)
    assert done == [str(index) for index in range(8)]
    assert session.counts.callback_errors == 2
    assert session.counts.done == 8
    assert session.problems["a callback raised ZeroDivisionError"] == 1
    assert "ZeroDivisionError: mine" in caplog.text


@pytest.mark.parametrize("policy", ["block", "drop_oldest"])
def test_a_callback_that_never_returns_is_bounded_and_reported(open_session, policy):
    forever = threading.Event()
    session = open_session(
        gated=False,
        on_full=policy,
        on_ended=lambda ended: forever.wait(30),
        max_in_flight=2,
        max_unread=4,
        callback_timeout_s=0.05,
        submit_timeout_s=0.1,
    )
    tickets = []
    for _ in range(12):
        tickets.append(session.submit(FRAME))
        time.sleep(0.02)
    assert session._flow.outbox.kept <= 4
    if policy == "block":
        assert "the callback has been running for" in tickets[-1].ended.reason
        assert session.counts.unread <= session.counts.rejected
    else:
        assert session.counts.unread >= 1
    assert not session.drain(timeout_s=0.05)
    session.close(timeout_s=0.2)
    assert "a callback ran for more than 0.05 s; results wait for it" in session.problems
    assert "a callback did not return before close; its thread is left behind" in session.problems
    assert session.counts.add_up
    assert session.counts.in_flight == 0
    forever.set()


def test_drain_and_close_within_the_callback(open_session):
    seen = []

    def on_ended(ended):
        with pytest.raises(UsageError, match="wait for itself"):
            session.drain()
        session.close(timeout_s=1)
        seen.append(ended)

    session = open_session(gated=False, on_ended=on_ended)
    session.submit(FRAME)
    session.drain(timeout_s=5)
    assert len(seen) == 1


def test_unread_ends_are_bounded_and_counted(open_session):
    session = open_session(gated=False, on_full="reject", max_in_flight=4, max_unread=5)
    for _ in range(50):
        session.submit(np.zeros(3))
    assert session.counts.unread == 45
    assert [ended.number for ended in session.poll()] == list(range(45, 50))
    assert session.counts.failed == 50


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


def test_a_closed_event_loop_harms_nothing(open_session):
    session = open_session(gated=False)

    async def leave():
        stream = session.async_results()
        session.submit(FRAME)
        await anext(stream)
        session._flow.wakers.add((asyncio.get_running_loop(), asyncio.Event()))
        await stream.aclose()

    asyncio.run(leave())
    assert session.submit(FRAME).accepted
    assert session.drain(timeout_s=5)


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


def test_a_warm_up_that_fails_is_raised(gate):
    def broken(batch):
        raise MemoryError("no memory for the network")

    with stub_engine(lanes=1, hook=broken) as engine:
        with pytest.raises(MemoryError, match="network"), engine.session():
            pass
        session = engine.session()
        assert session._ready.wait(5)
        session.submit(FRAME)
        assert session.drain(timeout_s=5)
        assert session.counts.failed == 1
        session.close()


def test_no_thread_is_left():
    before = set(threading.enumerate())
    with stub_engine(lanes=2) as engine:
        for _ in range(3):
            with engine.session(on_ended=lambda ended: None) as session:
                session.submit(FRAME)
    assert set(threading.enumerate()) == before


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


def test_ctrl_c_while_submit_waits_leaves_the_books_balanced(open_session, gate):
    """A real signal, in the main thread."""
    session = open_session(on_full="block", max_in_flight=1)
    session.submit(FRAME, field="0")
    threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        session.submit(FRAME, field="1", timeout_s=20)
    gate.open.set()
    ends = by_field(session)
    assert ends["0"].ok
    assert ends["1"].cause == "submit was interrupted"
    assert session.counts.rejected == 1
    assert session.counts.add_up
