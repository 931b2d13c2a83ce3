"""What a session asks of whoever submits: positions, names; and a free event loop."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from rbc_engine.bench.instruments.stub_engine import stub_engine
from rbc_engine.errors import UsageError
from rbc_engine.stats.monitor import SlideMonitor
from rbc_engine.stats.stage_map import StageMap
from rbc_engine.types.ends import FrameStatus

FRAME = np.zeros((48, 64, 3), np.uint8)


def test_a_monitor_with_a_stage_refuses_the_first_frame_without_position(open_session):
    monitor = SlideMonitor([str(at) for at in range(12)], stage=StageMap.of_pixel(0.1))
    session = open_session(gated=False, on_ended=monitor.add)
    with pytest.raises(UsageError, match="position_um is missing: on_ended is of a SlideMonitor"):
        session.submit(FRAME)
    assert session.counts.submitted == 0
    session.submit(FRAME, position_um=(0.0, 0.0))
    session.close()
    assert session.counts.done == 1


def test_names_of_a_slide_do_not_come_twice(open_session):
    session = open_session(gated=False, max_in_flight=20)
    for field, slide in (
        *(("a", "s"), ("a", "s"), ("a", "t"), ("a", "s"), ("a~2", "s"), ("", "s"), ("", "s")),
        *(("frame-000005", "s"), ("frame-000009", "s"), ("", "s"), ("a", "s")),
    ):
        session.submit(FRAME, field=field, slide=slide)
    session.finish()
    ends = sorted(session.results(), key=lambda ended: ended.number)
    assert [(ended.field, ended.slide) for ended in ends] == [
        *(("a", "s"), ("a~2", "s"), ("a", "t"), ("a~3", "s"), ("a~2~2", "s")),
        *(("frame-000005", "s"), ("frame-000006", "s"), ("frame-000005~2", "s")),
        *(("frame-000009", "s"), ("frame-000009~2", "s"), ("a~4", "s")),
    ]


def test_async_with_keeps_the_loop_going(gate):
    """Opening waits for a lane that is held up; the event loop goes on meanwhile."""
    with stub_engine(hook=gate) as engine:

        async def main() -> list[FrameStatus]:
            ticks = 0

            async def tick() -> None:
                nonlocal ticks
                while not gate.open.is_set():
                    ticks += 1
                    if ticks == 20:
                        gate.open.set()
                    await asyncio.sleep(0.005)

            ticking = asyncio.create_task(tick())
            async with engine.session() as session:
                assert ticks >= 20
                session.submit(FRAME)
                session.finish()
                ends = [ended.status async for ended in session.async_results()]
            await ticking
            return ends

        assert asyncio.run(main()) == [FrameStatus.DONE]
