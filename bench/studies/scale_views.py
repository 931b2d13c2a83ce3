"""Measure what happens to fields that show more or less of a smear than the pack's training fields.

    python -m rbc_engine.bench.studies.scale_views --data DIR

Fields of the pack's own scale are put on a background of their own colour, or cropped, so that the
short side shows that many times as much; the regions and types found there are compared with those
of the original field.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rbc_engine.engine import Engine
from rbc_engine.lanes.canvas import at_border
from rbc_engine.sources.find import find_fields
from rbc_engine.sources.images.decode import read_image
from rbc_engine.stats.match import match_boxes
from rbc_engine.types.arrays import UInt8
from rbc_engine.types.results import Regions

__all__ = ["Kept", "compare_views", "show_view"]

VIEWS = (0.33, 0.4, 0.5, 0.6, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0)


class Kept:
    """Count regions: those that a view shows whole, those found again, and those found with the
    same types.
    """

    def __init__(self) -> None:
        self.whole = self.found = self.same = 0

    def __str__(self) -> str:
        return f"{self.found / max(self.whole, 1):.3f}  {self.same / max(self.found, 1):.3f}"


def show_view(pixels: UInt8, view: float) -> tuple[UInt8, int, int]:
    """Return a field [H, W, 3] that shows `view` times as much along each side, and the corner of
    the old one in it, x y px.
    """
    height, width = pixels.shape[:2]
    tall, wide = int(height * view), int(width * view)
    if view <= 1:
        x, y = (width - wide) // 2, (height - tall) // 2
        return np.ascontiguousarray(pixels[y : y + tall, x : x + wide]), -x, -y
    light = pixels.sum(axis=2)
    shown = np.empty((tall, wide, 3), np.uint8)
    shown[:] = np.median(pixels[light > np.quantile(light, 0.7)], axis=0)
    shown[:height, :width] = pixels
    return shown, 0, 0


def compare_views(
    engine: Engine, fields: Sequence[UInt8], base: Sequence[Regions], view: float
) -> Kept:
    """Compare views with the fields as they are; base: what was found in those."""
    kept = Kept()
    for pixels, before in zip(fields, base, strict=True):
        shown, x, y = show_view(pixels, view)
        boxes = before.boxes + np.array([x, y, x, y], np.float32)
        hw = (min(pixels.shape[0], shown.shape[0]), min(pixels.shape[1], shown.shape[1]))
        whole = np.flatnonzero(~at_border(boxes, frame_hw=hw, scale=0.5))
        after = engine.analyze(shown).regions
        assert after is not None
        ours, theirs, _ = match_boxes(boxes[whole], after.boxes, least_iou=0.5)
        kept.whole += len(whole)
        kept.found += len(ours)
        kept.same += int((before.has[whole[ours]] == after.has[theirs]).all(axis=1).sum())
    return kept


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of fields")
    parser.add_argument("--pack", default="chula12")
    parser.add_argument("--fields", type=int, default=36, help="how many, drawn at random (36)")
    options = parser.parse_args()
    entries = find_fields([options.data]).entries
    paths = sorted(entry.path for entry in entries if hasattr(entry, "path"))
    drawn = np.random.default_rng(0).permutation(len(paths))[: options.fields]
    fields = [read_image(paths[index], name=paths[index].name) for index in sorted(drawn)]
    print(
        "view   found  same types, at the scale from the field's size; found, same types, estimated"
    )
    with (
        Engine.open(options.pack, device="cpu", estimate_scale=False) as fixed,
        Engine.open(options.pack, device="cpu") as estimating,
    ):
        base = [regions for pixels in fields if (regions := fixed.analyze(pixels).regions)]
        for view in VIEWS:
            ends = [compare_views(engine, fields, base, view) for engine in (fixed, estimating)]
            print(f"{view:<6g} {ends[0]}   {ends[1]}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
