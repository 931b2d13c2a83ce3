"""Decode a picture in a process of its own, with limits on memory and time.

A damaged or hostile file may crash a native library, or make it run for ever: then the child ends,
and the field fails with a reason.
"""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np

from rbc_engine.errors import ImageError
from rbc_engine.text import printable
from rbc_engine.types.arrays import UInt8
from rbc_engine.types.frames import MAX_SIDE_PX

__all__ = ["CPU_S", "MEMORY_BYTES", "decode_in_child"]

MEMORY_BYTES = 3 * 2**30
CPU_S = 60
_WALL_S = 300.0
"""Longer than CPU_S, for a machine that is busy."""


def decode_in_child(module: str, data: bytes, *, kind: str) -> UInt8:
    """Return uint8 [H, W, 3] of a picture that a module decodes when run.

    module: reads the bytes of a file from its standard input, and writes a line of JSON and then
    pixels: `height` and `width`, or `error`. kind: of picture, for errors.

    Raises ImageError if the child says so, or fails, or exceeds its limits.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", module],
            input=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_WALL_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ImageError(
            f"a {kind} that takes more than {_WALL_S:.0f} s to decode; export it as JPEG"
        ) from error
    head, _, pixels = done.stdout.partition(b"\n")
    try:
        said = json.loads(head)
        if "error" in said:
            raise ImageError(printable(str(said["error"]))[:300])
        height, width = int(said["height"]), int(said["width"])
    except (ValueError, KeyError, TypeError) as error:
        raise ImageError(
            f"damaged {kind} (its decoder ended with {done.returncode}, within {CPU_S} s and "
            f"{MEMORY_BYTES >> 30} GiB); copy it again, or export it as JPEG"
        ) from error
    sides_fit = 0 < height <= MAX_SIDE_PX and 0 < width <= MAX_SIDE_PX
    if not sides_fit or len(pixels) != height * width * 3:
        raise ImageError(f"damaged {kind} (its pixels are cut short); copy or export it again")
    rgb: UInt8 = np.frombuffer(pixels, np.uint8).reshape(height, width, 3).copy()
    return rgb
