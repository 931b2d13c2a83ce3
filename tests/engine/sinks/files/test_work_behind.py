"""Work behind a sink: in order, bounded, its errors not lost."""

from __future__ import annotations

import threading
import time

import pytest

from rbc_engine.sinks.files.work_behind import WorkBehind


def threads():
    return sum(thread.name.startswith("rbc-sink") for thread in threading.enumerate())


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_results_are_taken_in_order_in_the_caller_s_thread_and_few_wait(workers):
    taken, takers, lock = [], set(), threading.Lock()
    running = most = 0

    def work(index):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, index - len(taken))
        time.sleep(0.004 * (index % 3))  # the later ones may be done before the earlier ones
        with lock:
            running -= 1
        return index

    def take(index):
        taken.append(index)
        takers.add(threading.get_ident())

    behind = WorkBehind(take, workers=workers)
    for index in range(60):
        behind.do(work, index)
        assert len(taken) >= index + 1 - workers
    behind.finish()
    assert taken == list(range(60))
    assert takers == {threading.get_ident()}
    assert running == 0
    assert most <= workers
    assert threads() == 0


def test_an_error_is_raised_where_results_are_taken_and_no_thread_is_left():
    taken = []

    def work(index):
        if index == 3:
            raise OSError("full")
        return index

    behind = WorkBehind(taken.append, workers=2)
    for index in range(5):
        behind.do(work, index)
    with pytest.raises(OSError, match="full"):
        behind.do(work, 5)
    behind.close()
    behind.close()
    assert taken == [0, 1, 2]
    last = WorkBehind(taken.append, workers=2)
    last.do(work, 3)
    with pytest.raises(OSError, match="full"):
        last.finish()
    last.close()
    assert threads() == 0
