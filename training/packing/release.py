"""Write a model pack, whole or not at all, and its golden cases."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import tomli_w

from rbc_engine.errors import OutputError
from rbc_engine.packs.golden import ExpectedRegions, GoldenCase, encode_golden
from rbc_engine.packs.manifest import FileRecord, Manifest
from rbc_engine.packs.pack import MANIFEST_NAME, Pack
from rbc_engine.sources.synthetic.field import render_field
from rbc_engine.types.arrays import UInt8
from rbc_engine.types.regions import Regions

__all__ = ["file_records", "make_golden", "write_pack"]

# Width and height: of the shape used for training packs, and one whose canvas is padded.
_GOLDEN_FRAMES_PX = ((640, 480), (500, 420))


def file_records(files: Mapping[str, bytes]) -> dict[str, FileRecord]:
    """Return what pack.toml records of its files."""
    return {
        name: FileRecord(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
        for name, data in files.items()
    }


def write_pack(folder: Path, *, manifest: Manifest, files: Mapping[str, bytes]) -> Pack:
    """Write a pack next to `folder`, open it as the engine does, and rename it.

    Raises OutputError if `folder` exists or writing fails, PackError if `files` are not those of
    the manifest; nothing is left at `folder` then.
    """
    if folder.exists():
        raise OutputError(f"{folder} exists; remove it, or name another folder")
    values = manifest.model_dump(mode="json", by_alias=True, exclude_none=True)
    beside = folder.with_name(folder.name + ".partial")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        for name, data in files.items():
            (beside / name).write_bytes(data)
        (beside / MANIFEST_NAME).write_text(tomli_w.dumps(values), encoding="utf-8")
        Pack.open(beside)
        beside.rename(folder)
    except OSError as error:
        raise OutputError(
            f"cannot write pack {folder}: {error.strerror or error}; free disk space or name "
            "another folder"
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return Pack.open(folder)


def make_golden(analyze: Callable[[UInt8], Regions]) -> bytes:
    """Make golden.npz: two rendered frames, and what `analyze` finds in them.

    analyze: uint8 [H, W, 3] to regions, by an engine on the CPU in fp32.
    """
    cases = []
    for seed, (width, height) in enumerate(_GOLDEN_FRAMES_PX):
        frame = render_field(seed=seed, width=width, height=height, cells=40, cell_px=38.0).pixels
        regions = analyze(frame)
        expected = ExpectedRegions(
            boxes=regions.boxes,
            scores=regions.scores,
            kinds=regions.kinds,
            probabilities=regions.probabilities,
            abnormal_p=regions.abnormal_p,
        )
        cases.append(GoldenCase(frame=frame, expected=expected))
    return encode_golden(cases)
