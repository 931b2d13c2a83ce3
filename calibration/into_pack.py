"""Put a calibration into a pack. The pack on disk is complete at every moment."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import tomli_w

from rbc_engine.errors import OutputError
from rbc_engine.packs.calibration import Calibration
from rbc_engine.packs.manifest import CALIBRATION_NAME, FILES, FileRecord, Manifest
from rbc_engine.packs.pack import MANIFEST_NAME, Pack
from rbc_engine.sinks.files.atomic import AtomicFile

__all__ = ["write_calibration"]


def write_calibration(pack: Pack, calibration: Calibration, *, out: Path | None) -> Pack:
    """Write calibration.json and the pack.toml that refers to it by hash.

    out: a folder for a copy of the pack; None for the pack itself.

    Returns the pack as it now is. Raises OutputError if `out` exists or writing fails.
    """
    folder = pack.folder if out is None else out
    data = (calibration.model_dump_json(by_alias=True, indent=1) + "\n").encode()
    files = {name: record for name, record in pack.manifest.files.items() if name in FILES}
    bare = pack.manifest.model_copy(update={"files": files})
    record = FileRecord(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
    whole = pack.manifest.model_copy(update={"files": files | {CALIBRATION_NAME: record}})
    try:
        if out is not None:
            out.mkdir(parents=True)
            for name in FILES:
                (out / name).write_bytes(pack.read(name))
        # The old calibration is removed before the new one takes its place: the pack is complete at
        # every step.
        _write(folder / MANIFEST_NAME, _toml(bare))
        _write(folder / CALIBRATION_NAME, data)
        _write(folder / MANIFEST_NAME, _toml(whole))
    except FileExistsError as error:
        raise OutputError(f"--out {out} exists; remove it, or name another folder") from error
    except (OSError, OutputError) as error:
        if out is not None:
            shutil.rmtree(out, ignore_errors=True)
        raise OutputError(
            f"cannot write to pack {folder}: {error}; name a folder with --out"
        ) from error
    return Pack.open(folder)


def _write(path: Path, data: bytes) -> None:
    file = AtomicFile(path)
    try:
        file.write(data)
        file.finish()
    finally:
        file.discard()


def _toml(manifest: Manifest) -> bytes:
    values = manifest.model_dump(mode="json", by_alias=True, exclude_none=True)
    return tomli_w.dumps(values).encode()
