"""Reading ahead: in order, never too far, and gone without a trace when the reader stops."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from rbc_engine.errors import UsageError
from rbc_engine.sources.images.ahead import ReadAhead

from ....waits import LONG_S


def reading_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("rbc-read-ahead")]


def test_results_come_in_the_order_of_items_whatever_finishes_first():
    second_done = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert second_done.wait(timeout=LONG_S), "the second item must run beside the first"
        elif item == 1:
            second_done.set()
        return item * item

    with ReadAhead(work, range(50), workers=2, ahead=4) as results:
        assert list(results) == [n * n for n in range(50)]
    assert reading_threads() == []


@pytest.mark.parametrize(("workers", "ahead"), [(1, 1), (3, 2), (2, 5), (4, 16)])
def test_never_more_than_ahead_are_begun_and_unread(workers, ahead):
    lock = threading.Lock()
    taken = begun = read = most_taken = most_begun = 0

    def items() -> Iterator[int]:
        nonlocal taken, most_taken
        for item in range(2000):
            taken += 1
            most_taken = max(most_taken, taken - read)
            yield item

    def work(item: int) -> int:
        nonlocal begun, most_begun
        with lock:
            begun += 1
            most_begun = max(most_begun, begun - read)
        return item

    with ReadAhead(work, items(), workers=workers, ahead=ahead) as results:
        for result in results:
            if result % 400 == 0:
                time.sleep(0.02)  # a slow reader: the workers could run away here
            read += 1
    assert begun == 2000
    assert most_begun <= ahead
    assert most_taken <= ahead


def test_workers_do_run_ahead_of_a_slow_reader():
    begun = threading.Semaphore(0)

    def work(item: int) -> int:
        begun.release()
        return item

    with ReadAhead(work, range(10), workers=2, ahead=4) as results:
        reading = iter(results)
        assert next(reading) == 0
        for _ in range(4):
            assert begun.acquire(timeout=LONG_S)


def test_an_error_is_raised_where_its_result_would_be_read():
    def work(item: int) -> int:
        if item == 3:
            raise ZeroDivisionError("item 3")
        return item

    read = []

    def read_all() -> None:
        with ReadAhead(work, range(100), workers=2, ahead=4) as results:
            for result in results:
                read.append(result)

    with pytest.raises(ZeroDivisionError, match="item 3"):
        read_all()
    assert read == [0, 1, 2]
    assert reading_threads() == []


@pytest.mark.parametrize("in_with_block", [True, False])
def test_leaving_the_loop_drops_what_is_not_begun_and_leaves_no_thread(in_with_block):
    begun = []

    def work(item: int) -> int:
        begun.append(item)
        time.sleep(0.01)
        return item

    results = ReadAhead(work, range(100_000), workers=2, ahead=5000)
    if in_with_block:
        with results:
            reading = iter(results)
            assert next(reading) == 0
    else:
        for result in results:
            assert result == 0
            break
    assert len(begun) < 2500, "those that were to be read ahead are 5000, and would take 25 s"
    assert reading_threads() == []


def test_an_exception_in_the_reader_leaves_no_thread():
    def read_and_fail() -> None:
        with ReadAhead(str, range(100_000), workers=2, ahead=50) as results:
            for _ in results:
                raise LookupError

    with pytest.raises(LookupError):
        read_and_fail()
    assert reading_threads() == []


def test_ctrl_c_stops_the_threads_promptly():
    script = """
import threading, time
from rbc_engine.sources.images.ahead import ReadAhead
begun = 0
def work(item):
    global begun
    begun += 1
    time.sleep(0.05)
try:
    with ReadAhead(work, range(100_000), workers=2, ahead=2000) as results:
        for _ in results:
            print("reading", flush=True)
except KeyboardInterrupt:
    print(begun, threading.active_count() - 1, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "reading\n"
        run.send_signal(signal.SIGINT)
        rest, _ = run.communicate(timeout=LONG_S)
    assert run.returncode == 0
    begun, threads_left = map(int, rest.splitlines()[-1].split())
    assert begun < 1000, "those that wait are 2000, and would take 50 s"
    assert threads_left == 0


def test_close_may_be_called_again_and_without_reading():
    results = ReadAhead(str, range(3), workers=1, ahead=1)
    results.close()
    results.close()
    assert reading_threads() == []


@pytest.mark.parametrize(("workers", "ahead", "named"), [(0, 1, "workers"), (1, 0, "ahead")])
def test_counts_below_one_are_refused(workers, ahead, named):
    with pytest.raises(UsageError, match=f"{named} must be at least 1"):
        ReadAhead(str, range(3), workers=workers, ahead=ahead)
