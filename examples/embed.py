"""Embed the engine in a program of your own: frames from anywhere, the outcome of every frame."""

from pathlib import Path

import numpy as np
from PIL import Image

from rbc_engine import Engine

FRAMES = sorted((Path(__file__).parents[1] / "samples").rglob("*.jpg"))

with Engine.open("chula12") as engine, engine.session(max_in_flight=4) as session:
    for path in FRAMES:
        session.submit(np.asarray(Image.open(path)), field=path.name)
    session.finish()  # no more frames: the loop below ends after the last one
    for ended in session.results():
        regions = ended.result.regions if ended.ok else ()
        print(f"{ended.field}: {ended.status.value} {ended.reason}, {len(regions)} cells")
    print(session.counts.record())
