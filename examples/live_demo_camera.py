"""Feed Micro-Manager's DemoCamera, or the camera of a configuration file, into a session for a few
seconds.

    python examples/live_demo_camera.py [CONFIG.cfg] [SECONDS]

It keeps the camera at its rate, whatever the engine can do: frames that nobody has time for are
dropped, and counted.
"""

import sys

from rbc_engine import Ended, Engine
from rbc_engine.sources.camera import feed_sequence, open_core

config = next((text for text in sys.argv[1:] if text.endswith(".cfg")), None)
seconds = float(next((text for text in sys.argv[1:] if not text.endswith(".cfg")), 5))


def on_ended(ended: Ended) -> None:
    """Print every frame; called in a thread of the session's own."""
    if ended.ok:
        cells = len(ended.result.regions)
        print(f"{ended.field} at {ended.position_um}: {cells} cells after {ended.latency_s:.2f} s")


core = open_core(config)
with Engine.open("chula12") as engine:
    with engine.session(on_full="drop_oldest", max_age_s=1.0, on_ended=on_ended) as session:
        report = feed_sequence(core, session, seconds=seconds, fps=30)
    counts = session.counts
    print(f"the camera gave {report.submitted + report.lost} frames: {counts.record()}")
    for cause, count in session.causes.items():
        print(f"  {count} {cause}")
    assert counts.add_up
    assert counts.in_flight == 0
