"""Manage the folder of a training: its checkpoints and options, so that a later command cannot mix
them up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rbc_engine.errors import OutputError, UsageError

__all__ = ["Workspace"]

_SCHEMA = 1


class Workspace:
    """Manage DIR/training.json, DIR/detector.pt and DIR/classifier.pt.

    training.json holds a section of options for the `data` and for each network, as they were at
    the start. The held-out smears then remain held out: otherwise a network could be tested on what
    it was trained on.
    """

    def __init__(self, folder: Path) -> None:
        """Open a folder; raise UsageError if it has a training.json that cannot be read."""
        self.folder = folder
        self._path = folder / "training.json"
        self._sections = self._read()

    def checkpoint(self, network: str) -> Path:
        """Return the path of the checkpoint of 'detector' or 'classifier'."""
        return self.folder / f"{network}.pt"

    def begin(self, section: str, options: Mapping[str, Any]) -> None:
        """Record the options of a section, or check that they are those it was started with.

        Raises UsageError for others, and for a checkpoint without recorded options.
        """
        wanted = json.loads(json.dumps(options))
        noted = self._sections.get(section)
        if noted is None:
            networks = ("detector", "classifier") if section == "data" else (section,)
            for path in map(self.checkpoint, networks):
                if path.exists():
                    raise UsageError(
                        f"{path} was started with options that {self._path} does not hold; "
                        f"restore that file, or name another --work"
                    )
            self._sections[section] = wanted
            self._write()
            return
        for name in sorted(wanted.keys() | noted.keys()):
            if wanted.get(name) != noted.get(name):
                raise UsageError(
                    f"--work {self.folder} was started with {section} {name} = "
                    f"{_brief(noted.get(name))} (got {_brief(wanted.get(name))}); use the same "
                    "data and options, or another --work"
                )

    def options(self, section: str) -> dict[str, Any]:
        """Return the options with which a section was started. Raises UsageError if it was not."""
        if section not in self._sections:
            raise UsageError(
                f"{self._path} has no {section}; run `rbc-engine train {section}` with this --work "
                "first"
            )
        return dict(self._sections[section])

    def _read(self) -> dict[str, dict[str, Any]]:
        if not self._path.exists():
            return {}
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            if content["schema"] != _SCHEMA:
                raise ValueError(f"schema {content['schema']} instead of {_SCHEMA}")
            return {name: dict(options) for name, options in content["sections"].items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise UsageError(
                f"{self._path} cannot be read ({error!r:.200}); restore it, or name another --work"
            ) from error

    def _write(self) -> None:
        beside = self._path.with_name(self._path.name + ".partial")
        content = {"schema": _SCHEMA, "sections": self._sections}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            beside.replace(self._path)
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error.strerror or error}") from error


def _brief(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
