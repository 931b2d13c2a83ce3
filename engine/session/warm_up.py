"""What the first frame would wait for, done before: networks compiled and run once, on every lane."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rbc_engine.lanes.base import AnyLane
from rbc_engine.lanes.lanes import Lanes
from rbc_engine.packs.golden import read_golden
from rbc_engine.packs.pack import Pack
from rbc_engine.types.arrays import UInt8
from rbc_engine.types.frames import Decoded, FieldRef, Frame

__all__ = ["warm_up"]


def warm_up(
    lanes: Lanes,
    pack: Pack,
    *,
    hw: tuple[int, int] | None,
    pixel_um: float | None,
    batch: int,
) -> None:
    """Lets every lane analyse a frame of the coming size, alone and with as many as it will take at once.

    hw: height and width in px; None for 4:3 at the pack's own scale, which is right for every 4:3 camera.
    pixel_um: width of a pixel in µm, as the frames will have it.
    batch: frames a lane will take at once.
    """
    if hw is None:
        short = pack.manifest.detector.short_side_px
        hw = (short, short * 4 // 3)
        pixel_um = None
    frame = Frame(pixels=_pixels(pack, hw), field="warm-up", pixel_um=pixel_um)
    decoded = Decoded(ref=FieldRef(slide="", field="warm-up", path=Path()), frame=frame)
    # The detector compiles one network for each number of frames that it takes at once.
    sizes = sorted({1, min(batch, lanes.choices[0].batch_frames)})

    def work(lane: AnyLane) -> None:
        lane.prepare()
        for size in sizes:
            lane.analyze([decoded] * size)

    lanes.on_every_lane(work)


def _pixels(pack: Pack, hw: tuple[int, int]) -> UInt8:
    """A golden frame of the pack, which has cells, stretched to the size; grey if the pack has none."""
    cases = read_golden(pack.read("golden.npz"))
    if not cases:
        return np.full((*hw, 3), 200, np.uint8)
    golden = cases[0].frame
    rows = np.arange(hw[0]) * golden.shape[0] // hw[0]
    columns = np.arange(hw[1]) * golden.shape[1] // hw[1]
    return np.ascontiguousarray(golden[rows][:, columns])
