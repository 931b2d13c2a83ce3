"""Rebuild a run's tables from its stored probabilities: `rbc-engine recall`."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rbc_engine.cli.terminal import options
from rbc_engine.cli.terminal.streams import print_json
from rbc_engine.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from rbc_engine.types.results import FieldResult

__all__ = ["recall"]

_MOST_TOML_BYTES = 1 << 16


def recall(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Folder of a finished run.")],
    out: Annotated[Path, typer.Option(help="Folder for the new tables; created if missing.")],
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TYPE=P", help="has_TYPE is true if p_TYPE is at least P. May be repeated."
        ),
    ] = None,
    thresholds: Annotated[
        Path | None,
        typer.Option(help="TOML file with lines TYPE = P; --threshold takes precedence."),
    ] = None,
    at_least_one: Annotated[
        bool | None,
        typer.Option(
            "--at-least-one/--no-at-least-one",
            help="Give a region where no type reaches its threshold the likeliest type; by default "
            "as the pack does.",
        ),
    ] = None,
    abnormal: Annotated[
        str | None,
        typer.Option(
            metavar="TYPES",
            help="Count a region as abnormal if it has any of these types, separated by commas.",
        ),
    ] = None,
    abnormal_threshold: Annotated[
        float | None, typer.Option(help="A region is abnormal if abnormal_p is at least this.")
    ] = None,
    caller: Annotated[
        str | None, typer.Option(help="Pack with the same types whose caller computes abnormal_p.")
    ] = None,
    pack: Annotated[
        str | None,
        typer.Option(help="Folder of the run's pack, if it is not a shipped one."),
    ] = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Rebuild a run's tables with other thresholds, abnormal types or caller, without the
    images.
    """
    started = time.perf_counter()
    given = {**_of_file(thresholds), **_of_options(threshold or [])}
    from rbc_engine.cli.terminal.summary import print_summary
    from rbc_engine.packs.pack import Pack, find_pack
    from rbc_engine.runs.finished.finished_run import FinishedRun
    from rbc_engine.runs.recall.call_rules import call_rules, pack_of
    from rbc_engine.runs.recall.recall import recall as make
    from rbc_engine.runs.recall.recall import refuse_recalled
    from rbc_engine.sinks.out_folder import claim
    from rbc_engine.stats.counts import SlideTally

    claimed = claim(
        out,
        "overwrite" if overwrite else "new",
        inputs={"RUN_DIR": [run_dir]},
        resumes=False,
    )
    with FinishedRun(run_dir) as run:
        refuse_recalled(run)
        changed = call_rules(
            pack_of(run, pack),
            thresholds=given,
            at_least_one=at_least_one,
            abnormal=None if abnormal is None else options.names(abnormal),
            abnormal_threshold=abnormal_threshold,
            caller=None if caller is None else Pack.open(find_pack(caller)),
        )
        tally = SlideTally()
        changes = _Changes(changed.pack.types)

        def on_result(before: FieldResult, now: FieldResult) -> None:
            tally.add(now)
            changes.add(before, now)

        summary = make(run, changed, claimed, started=started, on_result=on_result)
    if as_json:
        print_json(summary.text())
    elif not quiet:
        report = "report" in summary.settings.formats
        print_summary(tally.rows(), summary.warnings, out, report=report)
        changes.print()


class _Changes:
    """Count regions of each type, and abnormal ones, before and after."""

    def __init__(self, types: Sequence[str]) -> None:
        self._names = (*types, "abnormal")
        self._before = [0] * len(self._names)
        self._now = [0] * len(self._names)

    def add(self, before: FieldResult, now: FieldResult) -> None:
        for counts, regions in ((self._before, before.regions), (self._now, now.regions)):
            if regions is not None:
                held = (*regions.has.sum(axis=0).tolist(), int(regions.abnormal.sum()))
                counts[:] = [count + more for count, more in zip(counts, held, strict=True)]

    def print(self) -> None:
        from rbc_engine.text import printable

        for name, before, now in zip(self._names, self._before, self._now, strict=True):
            if before != now:
                print(f"changed: {printable(name)} from {before} to {now} regions")
        if self._before == self._now:
            print("changed: no count of any type or of abnormal regions")


def _of_options(threshold: list[str]) -> dict[str, float]:
    given: dict[str, float] = {}
    for text in threshold:
        name, sign, value = text.partition("=")
        try:
            if not sign or name.strip() in given:
                raise ValueError
            given[name.strip()] = float(value)
        except ValueError as error:
            raise UsageError(
                f"--threshold must be TYPE=P, P a number, each TYPE once (got {text!r})"
            ) from error
    return given


def _of_file(path: Path | None) -> dict[str, float]:
    if path is None:
        return {}
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_TOML_BYTES + 1)
        if len(data) > _MOST_TOML_BYTES:
            raise ValueError(f"it is larger than {_MOST_TOML_BYTES} bytes")
        values = tomllib.loads(data.decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"--thresholds {path}: {error}") from error
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UsageError(f"--thresholds {path}: {name} must be a number (got {value!r:.80})")
    return {name: float(value) for name, value in values.items()}
