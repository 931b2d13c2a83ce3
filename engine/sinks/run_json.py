"""Define run.json, a run's record of itself, as types. One model writes it and reads it back,
checked.

Keys are in the file in the order of the fields here; a key that was not given is omitted,
and one that this version does not know is ignored. The text of a message or of a setting
may come from a name on disk: what UTF-8 cannot hold of it is escaped.
"""

from __future__ import annotations

import json
import math
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from rbc_engine.errors import ResultsError
from rbc_engine.packs.pack import Pack
from rbc_engine.sinks.origin import origin
from rbc_engine.text import encodable

__all__ = [
    "RUN_JSON",
    "SCHEMA",
    "Bound",
    "Counts",
    "Effect",
    "LatencySeconds",
    "PackName",
    "ProgramName",
    "RecalledFrom",
    "RunRecord",
    "Settings",
    "damaged",
    "peek",
]

RUN_JSON = "run.json"

SCHEMA = 2
"""Version of run.json and of the tables beside it, the only one read or written.

Since 2 every region has a kind, and cells.parquet holds its cells."""

_MOST_BYTES = 1 << 26
_MOST_DEPTH = 8
_AGAIN = (
    "it is damaged or was changed since; restore the original, or run it again with --overwrite"
)


def _text(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("must be text")
    return encodable(value)


def _texts(value: Any) -> Any:
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise ValueError("must be a list of texts")
    return value


def _type_names(value: Any) -> Any:
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise ValueError("must name types of the pack")
    return value


def _plain(value: Any, depth: int = 0) -> Any:
    """Return a copy of JSON with its texts escaped. Raises ValueError for anything else."""
    if isinstance(value, str):
        return encodable(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if depth < _MOST_DEPTH and isinstance(value, list | tuple):
        return [_plain(each, depth + 1) for each in value]
    if depth < _MOST_DEPTH and isinstance(value, dict):
        return {_text(key): _plain(each, depth + 1) for key, each in value.items()}
    raise ValueError(
        f"must be text, finite numbers, or lists and tables of them, {_MOST_DEPTH} deep"
    )


Text = Annotated[str, BeforeValidator(_text)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(_texts)]
Count = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Seconds = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]
Plain = Annotated[Any, BeforeValidator(_plain)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, validate_by_name=True, validate_by_alias=True)

    def to_json(self) -> dict[str, Any]:
        """Return the content of the file: only what was given, in the order of the fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class PackName(_Section):
    """Identify a pack, to the byte."""

    name: Text
    version: Text
    sha256: Text


class ProgramName(_Section):
    """Identify a build of rbc-engine."""

    version: Text | None = None
    commit: Text | None = None


class Effect(Enum):
    """State what a setting can change. Every field of Settings is marked with one."""

    RESULTS = "what is found, or in which frames: it must be the same for a run to be resumed"
    SPEED = "only how fast results come"
    EXTENT = "only which fields of the inputs are run, or what else is written of them"


Results = Effect.RESULTS


class Settings(BaseModel):
    """Hold the settings asked for, and the engine's choices.

    An unknown setting is assumed to change results.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, Plain]

    lanes: Annotated[Count | None, Effect.SPEED] = None
    threads_per_lane: Annotated[Count | None, Effect.SPEED] = None
    frames_per_lane: Annotated[Count | None, Effect.SPEED] = None
    patch_batches: Annotated[tuple[Count, ...], Effect.SPEED] = ()
    decode_workers: Annotated[Count | None, Effect.SPEED] = None
    um_per_px: Annotated[Number | None, Results] = None
    estimate_scale: Annotated[Flag, Results] = False
    field_prior: Annotated[Flag, Results] = False
    limit: Annotated[Count | None, Effect.EXTENT] = None
    formats: Annotated[Texts, Effect.EXTENT] = ()
    # Of a live run, the frames it took: no other run finds the same.
    fps: Annotated[Number | None, Results] = None
    seconds: Annotated[Number | None, Results] = None
    frames: Annotated[Count | None, Results] = None
    source: Annotated[Text, Results] = ""
    on_full: Annotated[Text, Results] = ""
    max_age_s: Annotated[Number | None, Results] = None
    max_in_flight: Annotated[Count | None, Results] = None
    enough_width: Annotated[Number | None, Results] = None
    min_cells: Annotated[Count | None, Results] = None
    # Of a recall, what it changed.
    recall: Annotated[dict[str, Plain] | None, Results] = None

    @model_validator(mode="before")
    @classmethod
    def _names_are_text(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {_text(name): value for name, value in values.items()}

    def to_json(self) -> dict[str, Any]:
        """Return the content of the file: only what was given, in the order of the fields."""
        return self.model_dump(mode="json", exclude_unset=True)

    def changing_results(self) -> dict[str, Any]:
        """Return the settings that change results, as in the file."""
        effects = self.effects()
        return {
            name: value
            for name, value in self.to_json().items()
            if effects.get(name, Effect.RESULTS) is Effect.RESULTS
        }

    @classmethod
    def effects(cls) -> dict[str, Effect]:
        """Return the effect of every known setting. Raises TypeError for one without a mark."""
        found = {}
        for name, info in cls.model_fields.items():
            marks = [mark for mark in info.metadata if isinstance(mark, Effect)]
            if len(marks) != 1:
                raise TypeError(f"setting {name} must be marked with one Effect (got {marks})")
            found[name] = marks[0]
        return found


Settings.effects()  # a setting without an effect ends the program here, not a user's resumed run


class Counts(_Section):
    """Hold the counts of results."""

    slides: Count = 0
    fields: Count
    failed: Count
    regions: Count
    abnormal: Count


class Bound(_Section):
    """Name the stage with most of the time of lanes and threads, and what a faster one gives."""

    stage: Text
    share: Number
    speedup_if_twice_as_fast: Number


class LatencySeconds(_Section):
    """Hold times from the submission of a frame to its outcome, of a live run."""

    p50: Seconds
    p99: Seconds


class RecalledFrom(_Section):
    """Identify the run from which a recall was made: the sha256 of its files, and its own
    record.
    """

    sha256: dict[Text, Text]
    pack: PackName
    program: ProgramName
    counts: Counts
    wall_seconds: Seconds | None = None


class RunRecord(_Section):
    """Hold the whole of run.json.

    For a live run only: frames, source_error, stopped_by, latency_seconds. For a recall only:
    recalled_from.
    """

    schema_: Annotated[int, Field(alias="schema", strict=True)]
    pack: PackName
    program: ProgramName
    abnormal_types: Annotated[tuple[Text, ...] | None, BeforeValidator(_type_names)] = None
    """The types counted as abnormal; None if the pack's version did not state it."""
    device: Text | None = None
    backend: Text | None = None
    precision: Text | None = None
    decoder: Text | None = None
    device_notes: Texts = ()
    """Why no faster device, precision or decoder was used. Nothing of it changes a result."""
    settings: Settings
    recalled_from: RecalledFrom | None = None
    wall_seconds: Seconds = 0.0
    startup_seconds: Seconds = 0.0
    """Until the first frame."""
    network_seconds: Seconds = 0.0
    """Time in which a network was running, over all lanes at once."""
    stage_seconds: dict[Text, Seconds] = {}
    bottleneck: Text | None = None
    bound: Bound | None = None
    counts: Counts
    warnings: Texts = ()
    whole_slides: tuple[dict[Text, Plain], ...] = ()
    first_result_seconds: Seconds | None = None
    frames: dict[Text, Count] | None = None
    source_error: Text | None = None
    stopped_by: Text | None = None
    """What ended a live run; docs/live.md lists it."""
    latency_seconds: LatencySeconds | None = None
    files: dict[Text, Text] = {}
    """The sha256 of each table."""

    @classmethod
    def of(cls, pack: Pack, /, **more: Any) -> RunRecord:
        """Return the record of a run of this program with a pack, without fields so far.

        more: further fields, or others instead. Raises pydantic's ValidationError, a ValueError,
        for what does not fit.
        """
        nothing = {"fields": 0, "failed": 0, "regions": 0, "abnormal": 0}
        first = {"schema": SCHEMA, **origin(pack), "settings": {}, "counts": nothing}
        return cls.model_validate(first | more)

    @classmethod
    def read(cls, path: Path) -> RunRecord:
        """Read a file. Raises ResultsError if it is missing, cannot be read, or holds no run."""
        try:
            with path.open("rb") as file:
                return cls.load(file, path=path)
        except OSError as error:
            raise ResultsError(
                f"cannot read {_shown(path)}: {error.strerror or error}; give the folder of a "
                "finished run"
            ) from error

    @classmethod
    def load(cls, file: BinaryIO, *, path: Path) -> RunRecord:
        """Read an open file from `path`. Raises OSError, or ResultsError if it is not of a run."""
        data = file.read(_MOST_BYTES + 1)
        try:
            if len(data) > _MOST_BYTES:
                raise ValueError(f"it is larger than {_MOST_BYTES} bytes")
            value = json.loads(data, parse_constant=_no_number, parse_float=_finite)
        except (ValueError, RecursionError) as error:
            raise damaged(path, f"not JSON of a run ({error})") from error
        return cls.of_json(value, path=path)

    @classmethod
    def of_json(cls, value: Any, *, path: Path) -> RunRecord:
        """Check JSON that was read from `path`. Raises ResultsError if it is not of a run."""
        sections = ("pack", "program", "settings", "counts")
        if not isinstance(value, dict) or any(
            not isinstance(value.get(key), dict) for key in sections
        ):
            raise damaged(path, f"it must hold {', '.join(sections)}")
        if value.get("schema") != SCHEMA:
            raise ResultsError(f"{_shown(path)} {_other_schema(value)}")
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise damaged(path, _first_fault(error)) from error

    def changed(self, **more: Any) -> RunRecord:
        """Return a copy with other or further fields. Raises ValueError for what does not fit."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self).model_validate(given | more)

    def text(self) -> str:
        """Return the content of the file, also to be printed for other programs."""
        return json.dumps(self.to_json(), indent=2, ensure_ascii=False, allow_nan=False)


def peek(path: Path) -> dict[str, Any] | None:
    """Return the content of a run.json of any version, unchecked; None for a file that is not
    one.
    """
    try:
        with path.open("rb") as file:
            run = json.loads(file.read(_MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    return run if isinstance(run, dict) and isinstance(run.get("files"), dict) else None


def _other_schema(run: dict[str, Any]) -> str:
    """Say why a run.json of another schema is refused, and what to do, to follow its name."""
    schema = run.get("schema")
    found = f"has schema {schema!r:.40}, and this program reads {SCHEMA}"
    if type(schema) is not int or schema < 1:
        return f"{found}: it is not the run.json of a run"
    version = run["program"].get("version")
    who = f"rbc-engine {version!s:.40}" if version else "another version"
    if schema < SCHEMA:
        return (
            f"{found}: {who} wrote it, which knew neither kinds nor cells; run the images again "
            "with `rbc-engine run --overwrite`, or read it with the version that wrote it"
        )
    return (
        f"{found}: {who} wrote it, which is newer; upgrade with pip install -U rbc-engine, or use "
        "the version that wrote it"
    )


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not a number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text:.40} is too large")
    return value


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "missing":
        return f"{place:.200} is missing"
    rule = fault["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return f"{place:.200} {rule} (got {fault['input']!r:.80})"


def damaged(path: Path, what: str) -> ResultsError:
    """Return the error for a file of a finished run that is not what the run wrote."""
    return ResultsError(f"{_shown(path)}: {what}: {_AGAIN}")


def _shown(path: Path) -> str:
    return encodable(str(path))
