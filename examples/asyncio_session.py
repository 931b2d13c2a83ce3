"""Serve a session from asyncio: nothing here blocks the event loop."""

import asyncio
from pathlib import Path

import numpy as np
from PIL import Image

from rbc_engine import Engine, Session

FRAMES = sorted((Path(__file__).parents[1] / "samples").rglob("*.jpg"))


async def produce(session: Session) -> None:
    try:
        for path in FRAMES:
            pixels = await asyncio.to_thread(lambda path=path: np.asarray(Image.open(path)))
            # Under on_full="block" submit may wait for room: in a thread, not in the loop.
            await asyncio.to_thread(session.submit, pixels, field=path.name)
    finally:
        session.finish()


async def main() -> None:
    engine = await asyncio.to_thread(Engine.open, "chula12")
    async with engine, engine.session(max_in_flight=4) as session:
        producer = asyncio.create_task(produce(session))
        async for ended in session.async_results():
            found = len(ended.result.regions) if ended.ok else 0
            print(f"{ended.field}: {ended.status.value}, {found} regions")
        await producer


asyncio.run(main())
