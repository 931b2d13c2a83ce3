"""Change a file of a pack's copy as a stranger would, with its hash put right."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from rbc_engine.packs.pack import MANIFEST_NAME


def put(pack: Path, name: str, data: bytes) -> None:
    """Write one of the pack's files, and its size and sha256 into pack.toml."""
    (pack / name).write_bytes(data)
    manifest = pack / MANIFEST_NAME
    record = f'[files."{name}"]\nsha256 = "{hashlib.sha256(data).hexdigest()}"\nbytes = {len(data)}'
    text, count = re.subn(
        rf'\[files\."{re.escape(name)}"\]\nsha256 = "[0-9a-f]*"\nbytes = [0-9]+',
        record,
        manifest.read_text(),
    )
    assert count == 1
    manifest.write_text(text)
