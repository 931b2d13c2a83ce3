"""What goes wrong in a long night at the microscope: each harms one frame, or says so."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import threading
import time

import numpy as np
import pytest

from rbc_engine.bench.instruments.stub_engine import stub_engine
from rbc_engine.errors import RbcError, SessionClosedError, UsageError
from rbc_engine.types.ends import FrameStatus

from ...waits import LONG_S, once, wait_until
from .ends import by_field

FRAME = np.zeros((48, 64, 3), np.uint8)


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
        ("a.png", "not the path of a file"),
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
        {"position_um": 5.0},
        {"position_um": ("1", "2")},
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
        ({"max_in_flight": "4"}, "max_in_flight must be a whole number"),
        ({"max_age_s": "2"}, "max_age_s must be a finite number"),
        ({"pixel_um": "0.1"}, "pixel_um must lie in"),
        ({"pixels": "mono"}, "pixels must be a PixelFormat"),
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


def test_a_failed_lane_harms_one_frame_of_its_batch(open_session, gate):
    session = open_session(lane_frames=4, batch_frames=4, max_in_flight=20)
    session.submit(FRAME, field="0")
    assert gate.begun.acquire(timeout=LONG_S)
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
    assert session.engine.on_lane(lambda lane: 5).result(timeout=LONG_S) == 5  # the workers live


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


def test_two_sessions_take_turns(open_session, gate):
    first = open_session(lanes=1, max_in_flight=50)
    second = open_session(engine=first.engine, max_in_flight=50)
    for index in range(20):
        first.submit(FRAME, field=f"first {index}")
    for index in range(5):
        second.submit(FRAME, field=f"second {index}")
    gate.open.set()
    assert second.drain(timeout_s=LONG_S)
    assert first.drain(timeout_s=LONG_S)
    assert (first.counts.done, second.counts.done) == (20, 5)
    order = [field.split()[0] for batch in gate.batches for field in batch]
    assert len(order) == 25
    assert order[:12].count("second") == 5  # it did not wait for all of the first's


def test_many_sessions_open_and_close_at_once():
    with stub_engine(lanes=2) as engine:

        def one():
            with engine.session() as session:
                for _ in range(10):
                    session.submit(FRAME)
                session.drain(timeout_s=LONG_S)
                assert session.counts.done == 10

        threads = [threading.Thread(target=one) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG_S)
            assert not thread.is_alive()


def is_closed(engine) -> bool:
    try:
        engine.on_lane(lambda lane: None)
    except RbcError:
        return True
    return False


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
    assert gate.begun.acquire(timeout=LONG_S)
    closer = threading.Thread(target=engine.close)
    closer.start()
    wait_until(lambda: is_closed(engine))
    gate.open.set()
    closer.join(LONG_S)
    assert not closer.is_alive()
    ends = by_field(session)
    assert ends["0"].ok
    assert {ends[f].status for f in "123"} == {FrameStatus.FAILED}
    assert {ends[f].cause for f in "123"} == {"the engine is closed"}
    session.close(timeout_s=LONG_S)
    with pytest.raises(RbcError, match="closed"):
        engine.session()


def test_close_gives_up_on_a_lane_that_hangs(open_session, gate, caplog):
    session = open_session(max_in_flight=3)
    for index in range(3):
        session.submit(FRAME, field=str(index))
    assert gate.begun.acquire(timeout=LONG_S)
    with caplog.at_level(logging.WARNING, "rbc_engine.session"):
        session.close(timeout_s=0.1)  # had it waited for the lane, that would have failed otherwise
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
                once(lambda: session.counts.dropped >= 3, gate.open.set)
                raise KeyError("mine")

        opened = []
        with pytest.raises(KeyError, match="mine"):
            fail()
        counts = opened[0].counts
        assert counts.dropped >= 3
        assert counts.in_flight == 0


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
    assert session.drain(timeout_s=LONG_S)
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
    session.drain(timeout_s=LONG_S)
    assert len(seen) == 1


def test_unread_ends_are_bounded_and_counted(open_session):
    session = open_session(gated=False, on_full="reject", max_in_flight=4, max_unread=5)
    for _ in range(50):
        session.submit(np.zeros(3))
    assert session.counts.unread == 45
    assert [ended.number for ended in session.poll()] == list(range(45, 50))
    assert session.counts.failed == 50


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
    assert session.drain(timeout_s=LONG_S)


def test_a_warm_up_that_fails_is_raised(gate):
    def broken(batch):
        raise MemoryError("no memory for the network")

    with stub_engine(lanes=1, hook=broken) as engine:
        with pytest.raises(MemoryError, match="network"), engine.session():
            pass
        session = engine.session()
        assert session._ready.wait(LONG_S)
        session.submit(FRAME)
        assert session.drain(timeout_s=LONG_S)
        assert session.counts.failed == 1
        session.close()


def test_no_thread_is_left():
    before = set(threading.enumerate())
    with stub_engine(lanes=2) as engine:
        for _ in range(3):
            with engine.session(on_ended=lambda ended: None) as session:
                session.submit(FRAME)
    assert set(threading.enumerate()) == before


def test_ctrl_c_while_submit_waits_leaves_the_books_balanced(open_session, gate):
    """A real signal, in the main thread."""
    session = open_session(on_full="block", max_in_flight=1)
    session.submit(FRAME, field="0")
    once(
        lambda: session.counts.submitted == 2,  # and so submit has given up the lock to wait
        lambda: os.kill(os.getpid(), signal.SIGINT),
    )
    with pytest.raises(KeyboardInterrupt):
        session.submit(FRAME, field="1", timeout_s=LONG_S)
    gate.open.set()
    ends = by_field(session)
    assert ends["0"].ok
    assert ends["1"].cause == "submit was interrupted"
    assert session.counts.rejected == 1
    assert session.counts.add_up
