"""An engine in another process, in a pickle, and after it was closed: said at once, never a hang."""

from __future__ import annotations

import copy
import os
import pickle
import threading

import numpy as np
import pytest

from rbc_engine.bench.instruments.stub_engine import stub_engine
from rbc_engine.errors import RbcError

IMAGE = np.zeros((64, 64, 3), np.uint8)


def said_in_a_child(work) -> str:
    """What an RbcError of the work says in a forked child; '' if there is none."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # nothing of pytest may run here
        text = ""
        try:
            work()
        except RbcError as error:
            text = str(error)
        finally:
            os.write(writing, text.encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        text = file.read()
    assert os.waitpid(child, 0)[1] == 0
    return text


def test_a_forked_child_is_told_at_once():
    with stub_engine() as engine:
        engine.analyze(IMAGE)
        session = engine.session()
        session.wait_ready()
        for work in (
            lambda: engine.analyze(IMAGE),
            lambda: list(engine.run([])) or engine.session(),
            engine.check_golden,
            lambda: session.submit(IMAGE),
        ):
            said = said_in_a_child(work)
            assert f"opened by process {os.getpid()}" in said
            assert "open an engine in each process" in said
        assert said_in_a_child(engine.close) == ""
        assert engine.analyze(IMAGE).ok
        session.close()


@pytest.mark.parametrize("use", [pickle.dumps, copy.copy, copy.deepcopy])
def test_pickling_says_why_not(use):
    with stub_engine() as engine, pytest.raises(RbcError, match="cannot be pickled or copied"):
        use(engine)


def test_a_closed_engine_says_so():
    engine = stub_engine()
    engine.close()
    for work in (lambda: engine.analyze(IMAGE), engine.session, engine.check_golden):
        with pytest.raises(RbcError, match="closed; open a new one"):
            work()


def test_closing_ends_what_waits_with_an_rbc_error():
    begun, go_on = threading.Event(), threading.Event()

    def hold(batch):
        begun.set()
        go_on.wait(30)

    engine = stub_engine(lanes=1, hook=hold)
    said: list[str] = []

    def analyze() -> None:
        try:
            engine.analyze(IMAGE)
        except RbcError as error:
            said.append(str(error))

    threads = [threading.Thread(target=analyze) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert begun.wait(30)
    closing = threading.Thread(target=engine.close)
    closing.start()
    while not said:
        assert closing.is_alive()
    go_on.set()
    for thread in [*threads, closing]:
        thread.join(30)
        assert not thread.is_alive()
    assert len(said) == 2
    assert all("closed; open a new one" in text for text in said)
