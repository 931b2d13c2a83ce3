"""Feed a session from Micro-Manager cameras: a running sequence, for which the extra `camera` is
enough, or a useq acquisition, which needs `acquisition`.

core = open_core()  # the DemoCamera; open_core("MMConfig.cfg") for another
with engine.session(on_full="drop_oldest") as session:
    feed_sequence(core, session, seconds=20)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rbc_engine.errors import DeviceError, SessionClosedError, UsageError
from rbc_engine.session.pixels import PixelFormat
from rbc_engine.sources.micro_manager import light_core
from rbc_engine.stats.stage_map import StageMap
from rbc_engine.types.ends import PositionUm

if TYPE_CHECKING:
    from pymmcore_plus import CMMCorePlus
    from useq import MDAEvent

    from rbc_engine.session.session import Session

__all__ = [
    "FeedReport",
    "feed_mda",
    "feed_sequence",
    "open_core",
    "positions_until",
    "stage_map",
]

_POLL_S = 0.001


@dataclass(frozen=True, kw_only=True)
class FeedReport:
    """Count what a camera gave: frames handed to the session, and frames lost before in
    Micro-Manager's buffer.
    """

    submitted: int
    lost: int


def open_core(
    config: str | Path | None = None, *, width: int = 640, height: int = 480
) -> CMMCorePlus:
    """Open Micro-Manager with a configuration file; without one the DemoCamera with a stage, RGB of
    the given size in px. By pymmcore-plus if it is installed, else by pymmcore.

    Raises DeviceError if both or the device adapters are missing, or the configuration does not
    load.
    """
    core = _new_core()
    try:
        if config is not None:
            core.loadSystemConfiguration(str(config))
            return core
        core.loadDevice("Camera", "DemoCamera", "DCam")
        core.loadDevice("XY", "DemoCamera", "DXYStage")
        core.loadDevice("Shutter", "DemoCamera", "DShutter")  # acquisitions open one
        core.initializeAllDevices()
        core.setCameraDevice("Camera")
        core.setShutterDevice("Shutter")
        core.setXYStageDevice("XY")
        core.setProperty("Camera", "PixelType", "32bitRGB")
        core.setProperty("Camera", "OnCameraCCDXSize", str(width))
        core.setProperty("Camera", "OnCameraCCDYSize", str(height))
    except (RuntimeError, OSError) as error:
        what = "the DemoCamera" if config is None else f"--config {config}"
        remedy = "pip install 'rbc-engine[demo-camera]'" if config is None else "check the file"
        if "adapter" in str(error).lower() or "load" in str(error).lower():
            remedy += ", and that MICROMANAGER_PATH names the folder of Micro-Manager"
        raise DeviceError(f"Micro-Manager cannot load {what}: {error}; {remedy}") from error
    return core


def _new_core() -> Any:
    try:
        from pymmcore_plus import CMMCorePlus

        return CMMCorePlus()
    except ImportError:
        pass
    try:
        return light_core()
    except ImportError as error:
        raise DeviceError(
            f"cameras need pymmcore ({error}); pip install 'rbc-engine[camera]'"
        ) from error


def stage_map(core: CMMCorePlus) -> StageMap | None:
    """Return how the camera's pixels lie on the stage, by the configuration's pixel size; None if
    it has none.
    """
    pixel_um = core.getPixelSizeUm()
    if not pixel_um > 0:
        return None
    a, b, _, d, e, _ = core.getPixelSizeAffine()
    if (a, b, d, e) == (1.0, 0.0, 0.0, 1.0):  # what Micro-Manager gives if none was calibrated
        return StageMap.of_pixel(pixel_um)
    return StageMap(matrix_um=((a, b), (d, e)))


def feed_sequence(
    core: CMMCorePlus,
    session: Session,
    *,
    seconds: float | None = None,
    frames: int | None = None,
    stop: threading.Event | None = None,
    fps: float | None = None,
    buffer_mb: int = 512,
    read_stage: bool = True,
    field: Callable[[int], str] = "frame-{:06d}".format,
) -> FeedReport:
    """Run a continuous sequence and submit every image, in this thread, until one of the limits is
    reached.

    The camera is never held up: images that the session does not take in time wait in
    Micro-Manager's buffer. If that overflows, Micro-Manager empties it and continues; the images
    lost show as a gap in their numbers and are counted in the session, as dropped.

    seconds, frames: limits, None for none. stop: ends the sequence when set; so does closing the
    session.
    fps: sets the exposure to a frame's time. buffer_mb: size of Micro-Manager's buffer.
    read_stage: asks the XY stage, if there is one, for the position of each image; slow stages
    answer late.
    field: names the image of a number.

    Raises DeviceError if the camera fails, or stops by itself.
    """
    stop = stop or threading.Event()
    stage = bool(core.getXYStageDevice()) and read_stage
    submitted = lost = 0
    expected = 0
    try:
        if fps is not None:
            core.setExposure(1000.0 / fps)
        core.setCircularBufferMemoryFootprint(buffer_mb)
        components, bits = core.getNumberOfComponents(), core.getImageBitDepth()
        pixels = _pixel_format(components, core.getBytesPerPixel(), bits)
        core.startContinuousSequenceAcquisition(0)
    except (RuntimeError, MemoryError) as error:
        raise DeviceError(f"the camera does not start: {error}; check its configuration") from error
    ends_s = time.perf_counter() + seconds if seconds is not None else float("inf")
    running = True
    try:
        while True:
            enough = frames is not None and submitted + lost >= frames
            if running and (stop.is_set() or enough or time.perf_counter() >= ends_s):
                core.stopSequenceAcquisition()
                running = False
            if not core.getRemainingImageCount():
                if not running:
                    break
                if not core.isSequenceRunning():
                    raise DeviceError(
                        f"the camera stopped by itself after {submitted + lost} frames; see its log"
                    )
                time.sleep(_POLL_S)
                continue
            image, metadata = core.popNextImageAndMD(fix=False)
            number = int(metadata.get("ImageNumber", expected))
            gap = number - expected
            if gap > 0:
                lost += gap
                session.note_lost(gap, cause="Micro-Manager's buffer overflowed")
            elif gap < 0:
                session.note_problem(
                    "the camera began to number its frames anew: how many were lost before is not "
                    "known"
                )
            expected = number + 1
            session.submit(
                _unpacked(image, components),
                field=field(submitted + lost),
                position_um=_position(core) if stage else None,
                pixels=pixels,
                copy=False,  # each image is an array of its own
            )
            submitted += 1
    except SessionClosedError:
        pass  # counted as rejected by the session
    except RuntimeError as error:
        raise DeviceError(f"the camera failed after {submitted + lost} frames: {error}") from error
    finally:
        if core.isSequenceRunning():
            core.stopSequenceAcquisition()
    return FeedReport(submitted=submitted, lost=lost)


@contextmanager
def feed_mda(core: CMMCorePlus, session: Session, *, bits: int | None = None) -> Iterator[None]:
    """Submit every image of the core's multi-dimensional acquisitions within the block.

        with feed_mda(core, session):
            core.run_mda(useq.MDASequence(...), block=True)

    The field is the event's position name or index, the position the event's, or the stage's if it
    has none. If the session is closed, the acquisition is cancelled.

    bits: of 16-bit images; None for what the camera says.

    Raises DeviceError for a core of pymmcore alone.
    """
    if not hasattr(core, "mda"):
        raise DeviceError(
            "acquisitions of useq need pymmcore-plus; pip install 'rbc-engine[acquisition]', or "
            "use feed_sequence"
        )
    names: dict[str, int] = {}

    def on_frame(image: npt.NDArray[Any], event: MDAEvent, _meta: object) -> None:
        index = "-".join(f"{axis}{place}" for axis, place in event.index.items())
        name = event.pos_name or index or "frame"
        repeat = names[name] = names.get(name, 0) + 1
        stated = bits or core.getImageBitDepth()
        pixels = PixelFormat(bits=stated) if image.dtype == np.uint16 else PixelFormat()
        try:
            session.submit(
                image,
                field=name if repeat == 1 else f"{name}~{repeat}",
                position_um=_event_position(core, event),
                pixels=pixels,
            )
        except SessionClosedError:
            core.mda.cancel()

    core.mda.events.frameReady.connect(on_frame)
    try:
        yield
    finally:
        core.mda.events.frameReady.disconnect(on_frame)


def positions_until(
    enough: Callable[[], bool],
    positions_um: Iterable[PositionUm],
    *,
    session: Session | None = None,
    settle_s: float = 60.0,
) -> Iterator[MDAEvent]:
    """Yield events for `core.run_mda` that visit positions until enough has been seen: the results
    drive the stage.

    enough: asked before each move, e.g. lambda: monitor.enough(width=0.02).
    session: waited for before each question, at most settle_s, so that the frames taken so far are
        counted. Without it the stage runs ahead of the results by the frames in flight.
    """
    from useq import MDAEvent

    for index, (x, y) in enumerate(positions_um):
        if session is not None:
            session.drain(timeout_s=settle_s)
        if enough():
            return
        yield MDAEvent.model_validate({"index": {"p": index}, "x_pos": x, "y_pos": y})


def _pixel_format(components: int, bytes_per_pixel: int, bits: int) -> PixelFormat:
    sample_bytes = bytes_per_pixel // max(components, 1)
    if components not in (1, 4) or sample_bytes not in (1, 2):
        raise UsageError(
            "the camera's images must have 8 or 16 bits and one component or four (got "
            f"{components} components, {bytes_per_pixel} bytes per pixel); choose another pixel "
            "type"
        )
    layout = "bgra" if components == 4 else "mono"  # Micro-Manager's packed colour images
    return PixelFormat(layout=layout, bits=min(max(bits, 8), 16) if sample_bytes == 2 else None)


def _unpacked(image: npt.NDArray[Any], components: int) -> npt.NDArray[Any]:
    if components == 1:
        return image
    return image.view(f"u{image.dtype.itemsize // components}").reshape(*image.shape, components)


def _position(core: CMMCorePlus) -> PositionUm:
    x, y = core.getXYPosition()
    return float(x), float(y)


def _event_position(core: CMMCorePlus, event: MDAEvent) -> PositionUm | None:
    if event.x_pos is not None and event.y_pos is not None:
        return float(event.x_pos), float(event.y_pos)
    return _position(core) if core.getXYStageDevice() else None
