"""Files of kinds that are not read, told by their first bytes: what they are, and what to do."""

from __future__ import annotations

import re

__all__ = ["unread_kind"]

_PHONE = "export it as JPEG, or set the phone to save JPEG"
_EXPORT = "export it as TIFF, PNG or JPEG"
_KINDS: tuple[tuple[re.Pattern[bytes], str, str], ...] = tuple(
    (re.compile(magic, re.DOTALL), name, remedy)
    for magic, name, remedy in (
        (rb"....ftyp(?:hevc|hevx|msf1)", "a HEIC sequence", _PHONE),
        (rb"....ftypavi[fs]", "an AVIF picture", _EXPORT),
        (rb"....ftypcrx ", "a camera's raw picture (CR3)", _EXPORT),
        (rb"....ftyp", "a video", "export its frames as pictures"),
        (rb"GIF8[79]a", "a GIF", "export it as PNG"),
        (rb"%PDF", "a PDF", "export its pictures as PNG or TIFF"),
        (rb"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL picture", _EXPORT),
        (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 picture", _EXPORT),
        (rb"8BPS", "a Photoshop document", _EXPORT),
        (rb"PK\x03\x04", "a ZIP archive", "unpack it"),
        (rb"Rar!|7z\xbc\xaf|\x1f\x8b", "an archive", "unpack it"),
        (rb"ZISRAWFILE", "a CZI slide", "name it .czi"),
        (rb"\xda\xce\xbe\x0a", "an ND2 file", _EXPORT),
        (rb"\x70\0\0\0", "a LIF file", _EXPORT),
        (rb".{128}DICM", "a DICOM file", _EXPORT),
        (rb"\x89HDF", "an HDF5 file", _EXPORT),
        (rb"IIU\0|IIR[OS]|FUJIFILM", "a camera's raw picture", _EXPORT),
        (rb"\s*<(?:svg|\?xml|!DOCTYPE|html)", "text (XML or HTML)", "download the picture itself"),
        (rb"version https://git-lfs", "a Git LFS pointer", "fetch the file itself (git lfs pull)"),
        (rb"\0+\Z", "nothing but zeros", "copy it again"),
    )
)


def unread_kind(data: bytes) -> tuple[str, str] | None:
    """Return what a file is, and what to do about it; None if its first bytes tell nothing."""
    start = data[:512]
    return next(((name, remedy) for magic, name, remedy in _KINDS if magic.match(start)), None)
