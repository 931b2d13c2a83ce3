"""Decode a HEIC picture from standard input to standard output; see child."""

from __future__ import annotations

import io
import json
import resource
import sys

import numpy as np

from rbc_engine.errors import ImageError
from rbc_engine.sources.images.convert import check_size
from rbc_engine.sources.images.native.child import CPU_S, MEMORY_BYTES
from rbc_engine.types.arrays import UInt8

__all__ = ["main"]


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    out = sys.stdout.buffer
    try:
        pixels = _decoded(sys.stdin.buffer.read())
    except ImageError as error:
        out.write(json.dumps({"error": str(error)}).encode() + b"\n")
        return
    height, width = pixels.shape[:2]
    out.write(json.dumps({"height": height, "width": width}).encode() + b"\n")
    out.write(pixels.tobytes())


def _decoded(data: bytes) -> UInt8:
    import pillow_heif

    try:
        pictures = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)
        picture = pictures[pictures.primary_index]
        check_size(*picture.size)
        image = picture.to_pillow()  # upright: libheif turns it
        pixels: UInt8 = np.asarray(image.convert("RGB"))
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # whatever the library raises
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"damaged HEIC ({reason:.200}); copy or export it again") from error
    return pixels


if __name__ == "__main__":
    main()
