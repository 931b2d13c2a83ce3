"""Run a camera's thread, two slides in turn, and a user interface that never waits.

    python examples/camera_thread.py [FOLDER]

A thread moves the stage and submits frames; the main thread, as that of a user interface would,
looks every tenth of a second for what has come, and never blocks. Each slide has a session and a
monitor of its own, and FOLDER gets the files of a run. The camera shows the samples.
"""

import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

from rbc_engine import Engine, Session, SessionOutput, SlideMonitor, StageMap

SAMPLES = Path(__file__).parents[1] / "samples"
PIXEL_UM, STEP_UM = 0.1, 100.0


class Camera:
    """Stand in for a camera on a stage: snap() moves on, and returns pixels and position."""

    def __init__(self, slide: str) -> None:
        self.paths = sorted((SAMPLES / slide).glob("*.jpg"))

    def snap(self, number: int) -> tuple[np.ndarray, tuple[float, float]]:
        time.sleep(0.02)  # the exposure
        return np.asarray(Image.open(self.paths[number])), (STEP_UM * number, 0.0)


def acquire(camera: Camera, session: Session) -> None:
    """Submit every frame with its place on the stage: the thread of the camera."""
    try:
        for number in range(len(camera.paths)):
            pixels, position_um = camera.snap(number)
            session.submit(pixels, position_um=position_um)
    finally:
        session.finish()  # whatever happened: whoever reads is not left waiting


def scan(engine: Engine, slide: str, output: SessionOutput) -> SlideMonitor:
    """Scan one slide. Overload drops the frames that have waited longest, and says so."""
    monitor = SlideMonitor(engine.pack.types, stage=StageMap.of_pixel(PIXEL_UM))
    with engine.session(slide=slide, on_full="drop_oldest", keep_frames=True) as session:
        thread = threading.Thread(target=acquire, args=(Camera(slide), session))
        thread.start()
        while not session.over:
            for ended in session.poll():  # never waits: a timer of a user interface does this
                monitor.add(ended)
                output.write(ended)
                print(f"{slide} {ended.field}: {ended.status.value} {ended.reason}")
            time.sleep(0.1)
        thread.join()
        print(f"{slide}: {session.counts.done} done, {session.counts.dropped} dropped")
    return monitor


def main(folder: Path) -> None:
    with Engine.open("chula12") as engine, SessionOutput(engine, folder) as output:
        for slide in ("healthy-1", "mixed-1"):
            share = scan(engine, slide, output).share()
            print(f"{slide}: {share.count} of {share.regions} regions that no border cuts abnormal")
    print(f"files: {', '.join(sorted(path.name for path in folder.iterdir()))}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary) / "results")
