"""Define what the names in a dataset's labels mean: a type, a red cell of unknown type, or not a
red cell.

    DIR/types.toml
        types = ["normal", "sickle_cell"]    # T types, in the order of the pack
        abnormal = ["sickle_cell"]           # those that make a cell abnormal
        untyped = ["RBC"]                    # red cells without a type label
        ignore = ["WBC", "Platelets"]        # not red cells

Every key may be omitted. Labels are compared without regard to case, and with spaces and hyphens as
underscores: "Sickle cell" is sickle_cell.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rbc_engine.packs.manifest import TypeName
from rbc_engine.training.datasets.bounded_files import read_bytes
from rbc_engine.training.datasets.check import Faults

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["IGNORED", "UNTYPED", "TypeNames", "read_type_names"]

UNTYPED = -1
IGNORED = -2

_FILE = "types.toml"
_MAX_BYTES = 2**20


class TypeNames(BaseModel):
    """Hold the content of types.toml. Omitted keys have values that suit BCCD."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    types: Annotated[tuple[TypeName, ...], Field(max_length=256)] = ()
    abnormal: tuple[TypeName, ...] = ()
    untyped: tuple[str, ...] = ("RBC",)
    ignore: tuple[str, ...] = ("WBC", "Platelets")

    @model_validator(mode="after")
    def _lists_agree(self) -> TypeNames:
        keys = [_key(name) for name in (*self.types, *self.untyped, *self.ignore)]
        if repeated := sorted({key for key in keys if keys.count(key) > 1}):
            raise ValueError(
                f"types, untyped ({list(self.untyped)}) and ignore ({list(self.ignore)}) must not "
                f"name the same cell twice (got {repeated})"
            )
        if strangers := sorted(set(self.abnormal) - set(self.types)):
            raise ValueError(f"abnormal names {strangers}, which are not among types")
        return self

    @cached_property
    def _codes(self) -> dict[str, int]:
        return {
            **{_key(name): IGNORED for name in self.ignore},
            **{_key(name): UNTYPED for name in self.untyped},
            **{name: index for index, name in enumerate(self.types)},
        }

    def code(self, label: str) -> int:
        """Return the index of the label's type, UNTYPED or IGNORED; UNTYPED also for a label that
        `check` reports.
        """
        return self._codes.get(_key(label), UNTYPED)

    def check(self, labels: Iterable[tuple[str, str]], faults: Faults) -> None:
        """Add one fault for each name that is in no list.

        labels: pairs of a label and the place to look it up.
        """
        unknown: dict[str, list[str]] = {}
        for label, place in labels:
            if _key(label) not in self._codes:
                unknown.setdefault(label, []).append(place)
        for label, places in unknown.items():
            faults.add(
                f"{places[0]}: unknown type {label!r:.60} ({len(places)} labels have it); name it "
                f"in {_FILE} under types = [...], untyped = [...] for red cells of unknown type, "
                "or ignore = [...] for anything else"
            )


def read_type_names(
    folder: Path, faults: Faults, *, without_file: TypeNames | None = None
) -> TypeNames | None:
    """Read the names of DIR/types.toml; None, and faults, if it breaks a rule.

    without_file: the names if there is none; None for TypeNames().
    """
    path = folder / _FILE
    if not path.exists():
        return without_file or TypeNames()
    data = read_bytes(path, name=_FILE, max_bytes=_MAX_BYTES, faults=faults)
    if data is None:
        return None
    try:
        return TypeNames.model_validate(tomllib.loads(data.decode("utf-8")))
    except ValidationError as error:
        faults.add_invalid(_FILE, error)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        faults.add(f"{_FILE}: not TOML ({error}); correct it")
    return None


def _key(label: str) -> str:
    return re.sub(r"[\s_-]+", "_", label.strip()).lower()
