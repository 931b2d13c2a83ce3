"""Decide by which rules probabilities become has_<type>, abnormal_p and abnormal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rbc_engine.errors import PackError, ResultsError, UsageError
from rbc_engine.packs.pack import Pack, find_pack
from rbc_engine.runs.finished.finished_run import FinishedRun
from rbc_engine.sinks.tables.regions_parquet import RegionsParquet
from rbc_engine.text import encodable

__all__ = ["CallRules", "call_rules", "pack_of"]

_NAMES_SHOWN = 10


@dataclass(frozen=True, eq=False, kw_only=True)
class CallRules:
    """State how probabilities become has_<type>, abnormal_p and abnormal.

    pack: of the source, its manifest with the new settings.
    caller: another pack, whose gradient boosting gives abnormal_p; None keeps the stored one.
    by_types: whether a region with any of the pack's abnormal types is abnormal, instead of by
    abnormal_p.
    thresholds: the types whose threshold was given.
    """

    pack: Pack
    caller: Pack | None = None
    by_types: bool = False
    thresholds: tuple[str, ...] = ()

    def notes(self) -> list[str]:
        """Return whether `abnormal` follows the thresholds of types that were given."""
        if not self.thresholds:
            return []
        if self.by_types:
            return [
                "abnormal follows the thresholds: it is true where any has_TYPE of --abnormal is"
            ]
        return [
            "abnormal does not follow the thresholds of types: it is true where abnormal_p is at "
            f"least {self.pack.manifest.caller.threshold:g}; --abnormal TYPE,TYPE lets it follow "
            "them"
        ]

    def record(self) -> dict[str, Any]:
        """Return `settings.recall` of run.json."""
        manifest = self.pack.manifest
        caller = self.caller
        return {
            "thresholds": dict(zip(manifest.types, manifest.classifier.thresholds, strict=True)),
            "at_least_one": manifest.classifier.at_least_one,
            "abnormal_by": "types" if self.by_types else "caller",
            "abnormal_types": list(manifest.abnormal) if self.by_types else None,
            "abnormal_threshold": None if self.by_types else manifest.caller.threshold,
            "caller": None if caller is None else _named(caller),
        }


def pack_of(run: FinishedRun, name_or_path: str | None) -> Pack:
    """Return the pack with which a run was made: the shipped one of that name, or the one given.

    Raises PackError if it is not exactly that pack.
    """
    wanted = run.run.pack
    stated = f"{wanted.name} {wanted.version}, sha256 {wanted.sha256}"
    shown = encodable(str(run.folder))
    try:
        pack = Pack.open(find_pack(name_or_path or wanted.name))
    except PackError as error:
        if name_or_path is not None:
            raise
        raise PackError(
            f"{shown} was made with pack {stated:.200}, which is not a shipped one; name its "
            "folder with --pack"
        ) from error
    if pack.sha256 != wanted.sha256:
        raise PackError(
            f"{shown} was made with pack {stated:.200}, not with {pack.name} "
            f"{pack.manifest.version}, {pack.sha256}; name that one with --pack"
        )
    if pack.types != run.types:
        raise ResultsError(
            f"{encodable(str(run.folder / RegionsParquet.NAME))} has other types than its pack "
            f"{pack.name}: it was changed since"
        )
    return pack


def call_rules(
    pack: Pack,
    *,
    thresholds: dict[str, float],
    at_least_one: bool | None = None,
    abnormal: Sequence[str] | None = None,
    abnormal_threshold: float | None = None,
    caller: Pack | None = None,
) -> CallRules:
    """Return the rules of the pack with some of them changed.

    thresholds: by type; the others remain the pack's. at_least_one: None for the pack's.
    abnormal: a region is abnormal if it has any of these types; abnormal_p is then the largest of
    their probabilities.
    abnormal_threshold: of abnormal_p; None for that of the caller's pack. caller: a pack with the
    same types.

    Raises UsageError for what does not fit, or changes nothing.
    """
    manifest = pack.manifest
    _check_types("--threshold", thresholds, pack)
    for name, value in (*thresholds.items(), ("abnormal", abnormal_threshold)):
        if value is not None and not 0 <= value <= 1:
            raise UsageError(f"the threshold of {name} must lie in 0..1 (got {value})")
    if not thresholds and all(
        given is None for given in (at_least_one, abnormal, abnormal_threshold, caller)
    ):
        raise UsageError(
            "nothing would change; give --threshold, --thresholds, --at-least-one, --abnormal, "
            "--abnormal-threshold or --caller"
        )
    if abnormal is not None:
        if abnormal_threshold is not None or caller is not None:
            raise UsageError(
                "--abnormal calls a region abnormal by the types it has; --abnormal-threshold and "
                "--caller are for abnormal_p: leave them out, and change --threshold"
            )
        if not abnormal:
            raise UsageError("--abnormal must name at least one type")
        _check_types("--abnormal", abnormal, pack)
    if caller is not None and set(caller.types) != set(pack.types):
        raise UsageError(
            f"--caller {caller.name} has other types than {pack.name}: "
            f"{_listed(set(caller.types) ^ set(pack.types))}; give a pack with the same types"
        )
    called_by = manifest if caller is None else caller.manifest
    threshold = called_by.caller.threshold if abnormal_threshold is None else abnormal_threshold
    classifier = manifest.classifier.model_copy(
        update={
            "thresholds": tuple(
                thresholds.get(name, old)
                for name, old in zip(pack.types, manifest.classifier.thresholds, strict=True)
            ),
            "at_least_one": manifest.classifier.at_least_one
            if at_least_one is None
            else at_least_one,
        }
    )
    chosen = manifest.abnormal
    if abnormal is not None:
        chosen = tuple(name for name in pack.types if name in abnormal)
    changed = manifest.model_copy(
        update={
            "classifier": classifier,
            "caller": manifest.caller.model_copy(update={"threshold": threshold}),
            "abnormal": chosen,
        }
    )
    return CallRules(
        pack=replace(pack, manifest=changed),
        caller=caller,
        by_types=abnormal is not None,
        thresholds=tuple(thresholds),
    )


def _check_types(option: str, names: Sequence[str] | dict[str, float], pack: Pack) -> None:
    strangers = sorted(set(names) - set(pack.types))
    if strangers:
        raise UsageError(
            f"{option} names {_listed(strangers)}, which pack {pack.name} does not have; its types "
            f"are {', '.join(pack.types)}"
        )


def _listed(names: Sequence[str] | set[str]) -> str:
    shown = sorted(names)[:_NAMES_SHOWN]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return ", ".join(f"{name:.60}" for name in shown) + more


def _named(pack: Pack) -> dict[str, str]:
    return {"name": pack.name, "version": pack.manifest.version, "sha256": pack.sha256}
