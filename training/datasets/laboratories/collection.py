"""Define a collection: datasets of several laboratories in one TOML file, with place, meaning and
permitted use.

schema = 1
name = "mine"                            # of the collection

[[dataset]]
name = "ankara"                          # of the laboratory
path = "labs/ankara"                     # below --data
format = "boxes"                         # chula12, boxes or pictures
kinds = { rbc = "red", wbc = "white_cell", "?" = "unknown" }   # of boxes: what its labels mean
licence = "MIT"
use = "train"                            # or "measure": never used for training
weight = 0.16                            # how often it is drawn, relative to the others
healthy = false                          # its red cells are of donors without a haematological
disease only = { width_px = 575 }                # or [300, 420]: only images of this width
middle = "other"                         # of pictures: the object in the middle of each is not a
red cell held_out_one_in = 8                      # one image in this many is held out
attribution = "Who took the pictures, and where they are published."
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rbc_engine.errors import UsageError
from rbc_engine.training.datasets.bounded_files import path_inside, read_bytes
from rbc_engine.training.datasets.check import Faults
from rbc_engine.training.datasets.laboratories.base import KINDS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["UNKNOWN", "Collection", "DatasetEntry", "find_collection", "shipped_collections"]

UNKNOWN = "unknown"
"""What a label may mean besides a kind: neither a known cell nor background."""

_MAX_BYTES = 2**20
_FOLDER = Path(__file__).parents[2] / "collections"
_MEANINGS = (*KINDS, UNKNOWN)

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
Width = Annotated[int, Field(ge=1, le=1 << 20)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Only(_Table):
    """Select the images of a folder that belong to a dataset."""

    width_px: Width | tuple[Width, Width]

    def admits(self, width_px: int) -> bool:
        """Return whether an image of this width belongs to it."""
        low, high = (
            self.width_px if isinstance(self.width_px, tuple) else (self.width_px, self.width_px)
        )
        return low <= width_px <= high


class DatasetEntry(_Table):
    """Define a `[[dataset]]` of a collection; the module explains each key."""

    name: Name
    path: str
    format: Literal["chula12", "boxes", "pictures"]
    licence: Annotated[str, Field(min_length=1, max_length=200)]
    use: Literal["train", "measure"]
    weight: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] = 1.0
    healthy: bool = False
    only: Only | None = None
    kinds: dict[str, str] = {}
    middle: Literal["other"] | None = None
    held_out_one_in: Annotated[int, Field(ge=2, le=1000)] = 8
    attribution: Annotated[str, Field(max_length=1000)] = ""

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        if path_inside(Path("DIR"), path) is None:
            raise ValueError("must be a folder below --data, with / and without ..")
        return path

    @field_validator("kinds")
    @classmethod
    def _kinds_exist(cls, kinds: dict[str, str]) -> dict[str, str]:
        for label, kind in kinds.items():
            if kind not in _MEANINGS:
                raise ValueError(
                    f"{label!r:.40} must mean one of {', '.join(_MEANINGS)} (got the kind "
                    f"{kind!r:.40}, which no pack has)"
                )
        return kinds

    @model_validator(mode="after")
    def _keys_agree(self) -> DatasetEntry:
        if (self.format == "boxes") != bool(self.kinds):
            raise ValueError("kinds gives the meaning of the labels of boxes, and is for them only")
        if self.middle is not None and self.format != "pictures":
            raise ValueError("middle is for pictures only")
        if self.only is not None and self.format == "chula12":
            raise ValueError("only cannot divide chula12, whose smears are listed in smears.csv")
        return self


class Collection(_Table):
    """Hold the whole of a collection's TOML file."""

    schema_: Annotated[Literal[1], Field(alias="schema")]
    name: Name
    dataset: Annotated[tuple[DatasetEntry, ...], Field(min_length=1, max_length=100)]

    @model_validator(mode="after")
    def _datasets_agree(self) -> Collection:
        names = [entry.name for entry in self.dataset]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"each dataset needs a name of its own (got {repeated} twice)")
        uses: dict[str, str] = {}
        for entry in self.dataset:
            if uses.setdefault(entry.path, entry.use) != entry.use:
                raise ValueError(f"{entry.path} is both to train on and to measure on only")
        typed = [entry.name for entry in self.dataset if entry.format == "chula12"]
        if len(typed) > 1:
            raise ValueError(f"only one dataset may give the cell types (got {typed})")
        return self

    def to_train(
        self, *, only: Sequence[str] = (), without: Sequence[str] = ()
    ) -> tuple[DatasetEntry, ...]:
        """Select the datasets to train on.

        only: names; none for all whose `use` is "train". without: names to leave out.

        Raises UsageError for an unknown name, for one marked as measure-only, and if nothing is
        left.
        """
        known = self._known(only=only, without=without)
        for name in only:
            if known[name].use == "measure":
                raise UsageError(
                    f"the dataset {name} is marked measure-only in the collection {self.name} "
                    f"(licence: {known[name].licence}): no weights may be trained on it; leave it "
                    "out of --only"
                )
        chosen = tuple(
            entry
            for entry in self.dataset
            if entry.use == "train"
            and (not only or entry.name in only)
            and entry.name not in without
        )
        if not chosen:
            raise UsageError(
                f"the collection {self.name} has nothing left to train on; "
                f'mark a dataset use = "train", or leave fewer out'
            )
        return chosen

    def to_measure(
        self, *, only: Sequence[str] = (), without: Sequence[str] = ()
    ) -> tuple[DatasetEntry, ...]:
        """Select the datasets to measure on: all of them, or as `only` and `without` name them.

        Raises UsageError for an unknown name, and if nothing is left.
        """
        self._known(only=only, without=without)
        chosen = tuple(
            entry
            for entry in self.dataset
            if (not only or entry.name in only) and entry.name not in without
        )
        if not chosen:
            raise UsageError(
                f"the collection {self.name} has nothing left to measure on; leave fewer out"
            )
        return chosen

    def _known(self, *, only: Sequence[str], without: Sequence[str]) -> dict[str, DatasetEntry]:
        known = {entry.name: entry for entry in self.dataset}
        for option, names in (("--only", only), ("--without", without)):
            if strangers := sorted(set(names) - set(known)):
                raise UsageError(
                    f"{option} must name datasets of the collection {self.name} "
                    f"({', '.join(known)}; got {', '.join(strangers)})"
                )
        return known


def shipped_collections() -> dict[str, Path]:
    """Return the collections that come with the program: names and files."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.toml"))}


def find_collection(name: str) -> Collection:
    """Read a collection by the name of a shipped one, or the path of a TOML file.

    Raises UsageError if there is none, and for every fault in it.
    """
    path = shipped_collections().get(name, Path(name))
    if not path.is_file():
        raise UsageError(
            f"--collection must be one of {', '.join(shipped_collections())} or a TOML file (got "
            f"{name!r:.200})"
        )
    faults = Faults()
    data = read_bytes(path, name=path.name, max_bytes=_MAX_BYTES, faults=faults)
    try:
        if data is not None:
            return Collection.model_validate(tomllib.loads(data.decode("utf-8")))
    except ValidationError as error:
        faults.add_invalid(path.name, error)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        faults.add(f"{path.name}: not TOML ({error}); correct it")
    raise faults.error(path.parent, option="--collection")
