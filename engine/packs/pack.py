"""Open a model pack: a folder with pack.toml, five files and its calibration, safe even from an
untrusted source.

Nothing in it is unpickled or executed. The size and sha256 of every file are in pack.toml and are
checked when the pack is opened, on the very bytes that are then used.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rbc_engine.errors import PackError
from rbc_engine.packs.calibration import NETWORKS, Calibration, parse_calibration
from rbc_engine.packs.graphs.fit_networks import check_networks
from rbc_engine.packs.manifest import CALIBRATION_NAME, FILES, SCHEMA, Manifest
from rbc_engine.packs.trees import check_trees
from rbc_engine.text import printable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["MANIFEST_NAME", "Pack", "find_pack", "shipped_packs"]

MANIFEST_NAME = "pack.toml"
_MANIFEST_MAX_BYTES = 1 << 20


@dataclass(frozen=True, eq=False)
class Pack:
    """Hold a pack that has been read and verified.

    folder: of the pack.
    manifest: pack.toml.
    sha256: of pack.toml, which holds the hashes of everything else: it identifies the whole pack.
    calibration: None if the pack was not calibrated.
    """

    folder: Path
    manifest: Manifest
    sha256: str
    _files: dict[str, bytes]
    calibration: Calibration | None = None

    @classmethod
    def open(cls, folder: Path | str) -> Pack:
        """Read and verify every file of a pack.

        Raises PackError if it is missing, damaged, unsafe, or from a newer version of the program.
        """
        folder = Path(folder)
        text = _read(folder / MANIFEST_NAME, _MANIFEST_MAX_BYTES)
        manifest = _parse_manifest(folder / MANIFEST_NAME, text)
        files = {}
        for name in (*FILES, *({CALIBRATION_NAME} & manifest.files.keys())):
            record = manifest.files[name]
            data = _read(folder / name, record.bytes)
            if len(data) != record.bytes or hashlib.sha256(data).hexdigest() != record.sha256:
                raise PackError(
                    f"{folder / name} does not match the sha256 in {MANIFEST_NAME}: the pack is "
                    f"damaged or was changed; copy or install it again"
                )
            files[name] = data
        check_networks(manifest, files)
        check_trees(files["caller.treelite"], features=len(manifest.types))
        calibration = None
        if CALIBRATION_NAME in files:
            hashes = {name: manifest.files[name].sha256 for name in NETWORKS}
            calibration = parse_calibration(files[CALIBRATION_NAME], sha256=hashes)
        return cls(folder, manifest, hashlib.sha256(text).hexdigest(), files, calibration)

    def read(self, name: str) -> bytes:
        """Return the verified bytes of one of the pack's files."""
        return self._files[name]

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def types(self) -> tuple[str, ...]:
        return self.manifest.types

    def __repr__(self) -> str:
        return f"Pack({self.name!r}, version {self.manifest.version}, {len(self.types)} types)"


def shipped_packs() -> dict[str, Path]:
    """Return the folders of the packs that come with the program, by name."""
    root = Path(__file__).parent
    if not root.is_dir():
        return {}
    return {p.name: p for p in sorted(root.iterdir()) if (p / MANIFEST_NAME).is_file()}


def find_pack(name_or_path: str | Path) -> Path:
    """Return the folder of a shipped pack, by its name, or of any pack, by its path (which has a
    slash or exists).
    """
    shipped = shipped_packs()
    if str(name_or_path) in shipped:
        return shipped[str(name_or_path)]
    folder = Path(name_or_path)
    if (folder / MANIFEST_NAME).is_file():
        return folder
    raise PackError(
        f"--pack {str(name_or_path)!r} is neither a shipped pack ({', '.join(shipped) or 'none'}) "
        f"nor a folder with a {MANIFEST_NAME}; `rbc-engine packs list` shows what there is"
    )


def _read(path: Path, limit_bytes: int) -> bytes:
    """Read at most limit_bytes + 1 bytes of a regular file, which shows a wrong size without
    reading a huge file.
    """
    try:
        if not path.is_file():
            raise PackError(
                f"{path} is missing or not a regular file; copy or install the pack again"
            )
        with path.open("rb") as file:
            return file.read(limit_bytes + 1)
    except OSError as error:
        raise PackError(f"cannot read {path}: {error.strerror or error}") from error


def _parse_manifest(path: Path, text: bytes) -> Manifest:
    if len(text) > _MANIFEST_MAX_BYTES:
        raise PackError(
            f"{path} is larger than {_MANIFEST_MAX_BYTES} bytes, too large for a pack manifest"
        )
    try:
        values: dict[str, Any] = tomllib.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # ValueError: also a number of 5000 digits
        raise PackError(f"{path} is not valid TOML: {printable(str(error))}") from error
    schema = values.get("schema")
    if isinstance(schema, int) and SCHEMA < schema < 1000:
        raise PackError(
            f"{path} has schema {schema}, but this program reads up to {SCHEMA}: the pack is from "
            f"a newer version; upgrade with pip install -U rbc-engine"
        )
    try:
        return Manifest.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        said = printable(f"{where:.200}: {first['msg']} (got {first['input']!r:.80})")
        raise PackError(f"{path}: {said}{more}") from error
