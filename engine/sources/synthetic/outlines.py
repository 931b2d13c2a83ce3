"""Make outlines of cells: the radius about the centre as a function of the angle.

An outline is float32 [1024] in px, over one turn from the x axis towards the y axis; every cell is
star-shaped about its centre. The shapes here are float64 [1024] about the unit circle, long axis
along angle 0.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rbc_engine.types.arrays import Float32

__all__ = [
    "ANGLE",
    "crescent",
    "depth_inside",
    "ellipse",
    "points_on",
    "radius_at",
    "ripple",
    "turned",
]

Float64 = npt.NDArray[np.float64]

_ANGLES = 1024
ANGLE = np.linspace(0.0, 2.0 * np.pi, _ANGLES, endpoint=False)
"""Angle of each radius, rad."""

_COS_SIN = np.stack([np.cos(ANGLE), np.sin(ANGLE)], axis=1)


def ellipse(aspect: float) -> Float64:
    """Return an ellipse of area pi."""
    return 1.0 / np.sqrt(_COS_SIN[:, 0] ** 2 / aspect + _COS_SIN[:, 1] ** 2 * aspect)


def ripple(amplitude: float, rng: np.random.Generator) -> Float64:
    """Return values around 1, with waves of two to five periods per turn."""
    periods = np.arange(2, 6)[:, None]
    phase = rng.uniform(0.0, 2.0 * np.pi, (4, 1))
    height = rng.normal(0.0, amplitude, (4, 1)) * (2.0 / periods)
    waves: Float64 = (height * np.cos(periods * ANGLE + phase)).sum(axis=0)
    return 1.0 + waves


def crescent(*, length: float, width: float, bend: float, taper: float, lopsided: float) -> Float64:
    """Return a spindle about a parabola: half its length and half its width, and how far its tips
    bend away.

    Star-shaped while bend <= 2.2 width, taper <= 1 and |lopsided| <= 0.25.
    """
    along = np.sin(np.linspace(-0.5 * np.pi, 0.5 * np.pi, 256))
    half = width * (1.0 - along**2) ** taper * (1.0 + lopsided * along)
    spine = bend * along**2
    x = length * np.concatenate([along, along[::-1]])
    y = np.concatenate([spine - half, (spine + half)[::-1]])
    outline: Float64 = np.interp(ANGLE, np.arctan2(y, x), np.hypot(x, y), period=2.0 * np.pi)
    return outline


def turned(radius: Float64, turn: float) -> Float32:
    """Return the outline of a cell whose own axis lies at `turn` rad."""
    return np.roll(radius, round(turn * _ANGLES / (2.0 * np.pi))).astype(np.float32)


def radius_at(outline: Float32, angle: Float64) -> Float32:
    """Return the radius in px at angles in rad, of any turn."""
    return outline[np.floor(angle * (_ANGLES / (2.0 * np.pi))).astype(np.intp) % _ANGLES]


def points_on(outline: Float32, count: int) -> Float64:
    """Return `count` points [count, 2], a power of two up to 1024, x y in px about the centre,
    evenly by angle.
    """
    step = _ANGLES // count
    points: Float64 = outline[::step, None] * _COS_SIN[::step]
    return points


def depth_inside(outline: Float32, x: Float32, y: Float32) -> Float32:
    """Return how far inside the outline the points of a grid, x [w] and y [h, 1] about its centre,
    lie.

    Returns float32 [h, w] in px, negative outside; good near the outline.
    """
    closed = np.concatenate([outline[-1:], outline, outline[:1]])
    slope = (closed[2:] - closed[:-2]) * np.float32(_ANGLES / (4.0 * np.pi))
    # From the distance along the ray to that along the normal; bounded, because beyond a sharp tip
    # the nearest point is the tip.
    slant = np.maximum(1.0 / np.sqrt(1.0 + (slope / outline) ** 2), np.float32(0.4))
    turns = np.arctan2(y, x) * np.float32(_ANGLES / (2.0 * np.pi)) + np.float32(_ANGLES)
    index = turns.astype(np.int32) % _ANGLES
    depth: Float32 = (outline[index] - np.sqrt(x * x + y * y)) * slant[index]
    return depth
