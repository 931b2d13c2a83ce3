"""A night at the microscope, accelerated: more frames than the lanes can take, and nothing grows."""

from __future__ import annotations

import gc
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from rbc_engine.bench.instruments.stub_engine import stub_engine

FRAMES = 10_000
LANES = 2
FRAME_S = 0.0015
LOAD = 1.2


def resident_kib() -> int:
    status = Path("/proc/self/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("Rss:"))


@pytest.mark.slow
def test_ten_thousand_frames_at_120_per_cent_leave_nothing_behind():
    """Memory after the first fifth, when every pool is filled, against memory at the end."""
    threads = set(threading.enumerate())
    files = len(list(Path("/proc/self/fd").iterdir()))
    sizes = [(240, 320), (250, 320)]
    frames = [np.random.default_rng(0).integers(0, 256, (*hw, 3), np.uint8) for hw in sizes]
    delivered = 0

    def on_ended(ended):
        nonlocal delivered
        delivered += 1

    memory_kib = []
    with (
        stub_engine(lanes=LANES, frame_s=FRAME_S, regions=30) as engine,
        engine.session(
            on_full="drop_oldest", max_age_s=5.0, order="submitted", on_ended=on_ended
        ) as session,
    ):
        period_s = FRAME_S / LANES / LOAD
        due_s = time.perf_counter()
        for index in range(FRAMES):
            session.submit(frames[index // 500 % 2], field=str(index))
            if index % 1000 == 0:
                assert session.counts.add_up
            if index in (FRAMES // 5, FRAMES - 1):
                gc.collect()
                memory_kib.append(resident_kib())
            due_s += period_s
            time.sleep(max(0.0, due_s - time.perf_counter()))
        assert session.drain(timeout_s=30)
        counts = session.counts
    assert counts.submitted == FRAMES == counts.done + counts.dropped
    assert counts.done > FRAMES // 4
    assert delivered == FRAMES
    assert counts.callback_errors == counts.unread == 0
    assert memory_kib[1] <= memory_kib[0] * 1.02, memory_kib
    assert set(threading.enumerate()) == threads
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) == files
