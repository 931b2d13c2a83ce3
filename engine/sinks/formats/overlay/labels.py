"""What to write beside each region of a picture, and where there is room for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rbc_engine.types.arrays import Float32
from rbc_engine.types.kinds import Kind
from rbc_engine.types.regions import RegionFlag, Regions

__all__ = ["Label", "place_labels"]

_MOST_HIDDEN = 0.3
"""Share of a label that may lie on boxes; one that would hide more is left out."""

_WIDEST_TO_BOX = 3.0
"""A label wider than this many long sides of its box is omitted: readers could not assign it."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """Place a label. region: index into the regions. left, top: of the text's background, px."""

    region: int
    text: str
    left: int
    top: int
    width: int


def place_labels(
    regions: Regions,
    boxes: Float32,
    *,
    types: Sequence[str],
    abnormal_types: npt.NDArray[np.bool_],
    measure: Callable[[str], int],
    height: int,
    image_size: tuple[int, int],
) -> list[Label]:
    """Place labels so that they do not overlap and hide little of the boxes.

    Abnormal regions choose first, then sure ones. One without room even for its shortest text gets
    no label.

    boxes: float32 [R, 4] as drawn, px.
    types: names to show. abnormal_types: bool [T].
    measure: width in px of a label with a text. height: of every label, px.
    image_size: width and height, px.
    """
    placed = np.zeros((0, 4), np.float32)
    labels = []
    for index in np.lexsort((-regions.scores, ~regions.abnormal)).tolist():
        best_text, best, least = "", None, _MOST_HIDDEN
        box = boxes[index]
        widest = min(image_size[0], _WIDEST_TO_BOX * float((box[2:] - box[:2]).max()))
        for text in _texts(regions, index, types, abnormal_types):
            width = measure(text)
            if width > widest:
                continue
            spots = _spots(box, width, height, image_size)
            free = ~_overlaps(spots, placed).any(axis=1)
            hidden = _overlaps(spots, boxes).sum(axis=1) / (width * height)
            for spot, share in zip(spots[free], hidden[free].tolist(), strict=True):
                if share < least:
                    best_text, best, least = text, spot, share
            if least == 0:
                break
        if best is not None:
            placed = np.vstack([placed, best])
            left, top, right, _ = (int(side) for side in best)
            labels.append(
                Label(region=index, text=best_text, left=left, top=top, width=right - left)
            )
    return labels


def _texts(
    regions: Regions, index: int, types: Sequence[str], abnormal_types: npt.NDArray[np.bool_]
) -> Iterator[str]:
    """Yield texts for what a region holds, longest first.

    A region of another kind than red has its kind; `unsure` marks one that cannot be classified.

    The surest of its types, of the abnormal ones if it is abnormal; without any, the likeliest with
    a '?'. Where that is a normal type in an abnormal region, the chance of an abnormal cell stands
    beside it: the reason.
    """
    kind = Kind(regions.kinds[index])
    if kind is not Kind.RED:
        name = kind.label.replace("_", " ")
        yield f"{name} {regions.scores[index]:.2f}"
        yield name
        return
    if regions.flags[index] & RegionFlag.UNSURE:
        yield "unsure"
        return
    p, has = regions.probabilities[index], regions.has[index]
    preferred = has & abnormal_types if regions.abnormal[index] else has
    candidates = next((mask for mask in (preferred, has) if mask.any()), np.ones_like(has))
    surest = int(np.where(candidates, p, -1).argmax())
    name = types[surest] if has[surest] else f"{types[surest]}?"
    more = f" +{has.sum() - 1}" if has.sum() > 1 else ""
    if regions.abnormal[index] and not abnormal_types[surest]:
        reason = f"abnormal {regions.abnormal_p[index]:.2f}"
        yield f"{name} {p[surest]:.2f}{more}, {reason}"
        yield reason
        return
    yield f"{name} {p[surest]:.2f}{more}"
    yield f"{name}{more}"


def _spots(box: Float32, width: int, height: int, image_size: tuple[int, int]) -> Float32:
    """Return places for the label of a box within the image, best first: float32 [S, 4]."""
    x0, y0, x1, y1 = (round(float(side)) for side in box)
    image_width, image_height = image_size
    spots = []
    for left in (x0, x1 - width):
        left = max(0, min(left, image_width - width))
        for top in (y0 - height, y1):
            if 0 <= top <= image_height - height:
                spots.append((left, top, left + width, top + height))
    return np.array(spots, np.float32).reshape(-1, 4)


def _overlaps(spots: Float32, boxes: Float32) -> Float32:
    """Return area float32 [S, N] that each of spots [S, 4] shares with each of boxes [N, 4]."""
    left, top, right, bottom = spots.T[..., np.newaxis]
    widths = np.minimum(right, boxes[:, 2]) - np.maximum(left, boxes[:, 0])
    heights = np.minimum(bottom, boxes[:, 3]) - np.maximum(top, boxes[:, 1])
    areas: Float32 = np.maximum(widths, 0) * np.maximum(heights, 0)
    return areas
