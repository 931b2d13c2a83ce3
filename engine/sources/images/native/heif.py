"""HEIC pictures of phones, read by pillow-heif (libheif) in a child process."""

from __future__ import annotations

from rbc_engine.sources.images.base import Picture
from rbc_engine.sources.images.native.child import decode_in_child

__all__ = ["decode_heif"]


def decode_heif(data: bytes) -> Picture:
    module = "rbc_engine.sources.images.native.heif_child"
    return Picture(pixels=decode_in_child(module, data, kind="HEIC"))
