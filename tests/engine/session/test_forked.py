"""An engine and its sessions in a forked process: an error at once, where it would hang."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import numpy as np
import pytest

from rbc_engine.bench.instruments.stub_engine import stub_engine
from rbc_engine.errors import RbcError
from rbc_engine.lanes.own_process import OwnCondition, OwnProcess

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def in_child(work: Callable[[], object]) -> str:
    """The error of some work in a forked process; what it does there is given ten seconds."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:  # pragma: no cover - in the child
        try:
            work()
            said = "nothing"
        except RbcError as error:
            said = str(error)
        except BaseException as error:
            said = repr(error)
        os.write(writing, said.encode()[:1000])
        os._exit(0)
    os.close(writing)
    timer = threading.Timer(10, os.kill, (child, 9))
    timer.start()
    said = os.read(reading, 1000).decode()
    os.waitpid(child, 0)
    timer.cancel()
    os.close(reading)
    return said


def test_what_has_threads_is_refused_in_a_child():
    own, changed = OwnProcess("engine"), OwnCondition("session")
    own.check()
    with changed:
        assert own.is_here
    for work in (own.check, changed.__enter__):
        assert "which was forked from it" in in_child(work)


@pytest.fixture
def engine():
    with stub_engine(lanes=1) as opened:
        yield opened


def test_engine_and_session_in_a_child(engine):
    image = np.full((120, 160, 3), 220, np.uint8)
    engine.analyze(image)
    for work in (
        lambda: engine.analyze(image),
        engine.session,
    ):
        assert "the engine was opened by process" in in_child(work)
    with engine.session(warm_up_hw=(120, 160)) as session:
        for work in (
            lambda: session.submit(image),
            lambda: list(session.results()),
            session.close,
        ):
            assert " process " in in_child(work)
        session.submit(image)
        session.finish()
        assert [ended.status.value for ended in session.results()] == ["done"]
    assert in_child(engine.close) == "nothing"
    engine.analyze(image)
