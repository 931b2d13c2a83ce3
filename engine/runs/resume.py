"""Plan how to resume a run that was interrupted or is to take in more: what is done, what is not,
and whether it fits.

Done fields are in run.journal until a run has ended, and in its tables afterwards. They count only
if they were made with the same pack, program and settings, and from the same files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rbc_engine.errors import ResultsError
from rbc_engine.packs.pack import Pack
from rbc_engine.runs.finished.finished_run import FinishedRun
from rbc_engine.sinks.journal.run_journal import FieldKey, RunJournal, field_key
from rbc_engine.sinks.out_folder import OutFolder
from rbc_engine.sinks.own_files import RUN_JOURNAL
from rbc_engine.sinks.run_json import RUN_JSON, RunRecord
from rbc_engine.sources.base import Entry, entry_ref, field_order
from rbc_engine.text import encodable
from rbc_engine.types.frames import FieldRef, FileStamp, SlideRef

__all__ = ["Plan", "fields_first", "fresh_plan", "open_earlier", "resume_plan"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Hold what a run is to do.

    entries: its fields, those to be run and those that are kept, in the order of the tables.
    stamps: of the file of each entry, as it is now.
    kept: the fields whose result is in the journal.
    notes: warnings about them.
    """

    entries: Sequence[Entry]
    stamps: Sequence[FileStamp | None]
    kept: frozenset[FieldKey] = frozenset()
    notes: Sequence[str] = field(default_factory=list)

    @property
    def pending(self) -> list[Entry]:
        """Return the entries to be run, in order."""
        return [entry for entry in self.entries if field_key(entry_ref(entry)) not in self.kept]


def fresh_plan(entries: Sequence[Entry]) -> Plan:
    """Plan to run everything."""
    return Plan(entries=entries, stamps=[FileStamp.of(entry_ref(entry).path) for entry in entries])


def fields_first(plan: Plan) -> Plan:
    """Return the plan with whole slides after everything else: they are read in another way."""
    order = sorted(
        range(len(plan.entries)), key=lambda index: isinstance(plan.entries[index], SlideRef)
    )
    return replace(
        plan,
        entries=[plan.entries[index] for index in order],
        stamps=[plan.stamps[index] for index in order],
    )


def open_earlier(out: OutFolder, pack: Pack, record: RunRecord) -> RunJournal | None:
    """Open the journal of the run in a folder, to resume it; None if there is no run yet.

    A run that had ended gets a journal of its tables: they stay in place until new ones replace
    them.

    out: claimed to be resumed. record: what run.json is to hold of this run, as far as it is known.

    Raises ResultsError if the run is damaged, or was made with other settings; OutputError if it is
    still being written, or cannot be.
    """
    types = len(pack.types)

    def check(head: dict[str, Any]) -> None:
        earlier = RunRecord.of_json(head, path=out.path / RUN_JOURNAL)
        _refuse_differences(out.path, earlier, record)

    out.check()
    if (out.path / RUN_JOURNAL).exists():
        return RunJournal.reopen(out, types=types, check=check)
    if (out.path / RUN_JSON).exists():
        with FinishedRun(out.path) as earlier:
            _refuse_differences(out.path, earlier.run, record)
            return RunJournal.create(out, record.to_json(), types=types, results=earlier.results())
    return None


def resume_plan(entries: Sequence[Entry], journal: RunJournal) -> Plan:
    """Keep what is done of the files that are still the same, and run what failed, has changed or
    is new.

    Done fields that are not among the entries are kept too; failed ones are not.

    Raises ResultsError if one of those is the same file as an entry, under another name: it would
    count twice.
    """
    stamps = [FileStamp.of(entry_ref(entry).path) for entry in entries]
    kept: set[FieldKey] = set()
    failed, changed = 0, 0
    for entry, stamp in zip(entries, stamps, strict=True):
        key = field_key(entry_ref(entry))
        earlier = journal.stored.get(key)
        if earlier is None:
            continue
        if not earlier.ok:
            failed += 1
        elif stamp is None or stamp != earlier.stamp:
            changed += 1
        else:
            kept.add(key)
    named = {field_key(entry_ref(entry)) for entry in entries}
    others = [
        (FieldRef(slide=key[0], field=key[1], path=Path(earlier.path)), earlier.stamp)
        for key, earlier in journal.stored.items()
        if key not in named and earlier.ok
    ]
    _refuse_renamed([ref for ref, _ in others], entries)
    dropped = sum(not earlier.ok for key, earlier in journal.stored.items() if key not in named)
    everything: list[tuple[Entry, FileStamp | None]] = [*zip(entries, stamps, strict=True), *others]
    everything.sort(key=lambda pair: field_order(entry_ref(pair[0])))
    kept.update(field_key(ref) for ref, _ in others)
    notes = [
        f"resumed: {len(kept)} of {len(everything)} fields were done before and are kept; "
        f"the times are those of the last run alone"
    ]
    if failed:
        notes.append(f"resumed: {failed} fields that had failed are run again")
    if changed:
        notes.append(
            f"resumed: {changed} fields are run again because their files changed since (size or "
            "time)"
        )
    if others:
        notes.append(
            f"resumed: {len(others)} fields done before, the first of them {others[0][0].field}, "
            f"are not among INPUT now; they are kept"
        )
    if dropped:
        notes.append(
            f"resumed: {dropped} fields that had failed are no longer among INPUT; their rows are "
            "dropped"
        )
    if journal.cut_bytes:
        notes.append(
            f"resumed: {RUN_JOURNAL} ended in {journal.cut_bytes} bytes that were not a whole "
            f"record (due to an interruption or damage); fields recorded there are run again"
        )
    return Plan(
        entries=[entry for entry, _ in everything],
        stamps=[stamp for _, stamp in everything],
        kept=frozenset(kept),
        notes=notes,
    )


def _refuse_renamed(others: Sequence[FieldRef], entries: Sequence[Entry]) -> None:
    refs = [entry_ref(entry) for entry in entries] if others else []
    by_path = {ref.path.absolute(): ref for ref in refs}
    for other in others:
        ref = by_path.get(other.path.absolute())
        if ref is not None:
            raise ResultsError(
                f"{encodable(str(ref.path))} was done as field {other.field!r} of slide "
                f"{other.slide!r} and is now field {encodable(ref.field)!r} of slide "
                f"{encodable(ref.slide)!r}: its cells would count twice; give the original INPUT"
            )


def _refuse_differences(folder: Path, earlier: RunRecord, now: RunRecord) -> None:
    shown = encodable(str(folder))
    if earlier.recalled_from is not None:
        raise ResultsError(
            f"--out {shown} holds what `rbc-engine recall` made of another run; resume that one, "
            "or name another --out"
        )
    was, wanted = _identity(earlier), _identity(now)
    differences = [
        f"{key} was {was.get(key, 'not set')!s:.200}, now {wanted.get(key, 'not set')!s:.200}"
        for key in {**was, **wanted}
        if was.get(key) != wanted.get(key)
    ]
    before, formats = earlier.settings.formats, now.settings.formats
    if not set(before) <= set(formats):
        differences.append(f"formats were {','.join(before)}, now {','.join(formats) or 'none'}")
    if differences:
        raise ResultsError(
            f"--resume does not fit the run in {shown}: {'; '.join(differences)}. "
            "Use the same settings, pass --overwrite to run everything again, or name another "
            "--out"
        )


def _identity(record: RunRecord) -> dict[str, Any]:
    """Return the part of a record that must be the same for its results to be the same."""
    pack, program = record.pack, record.program
    return {
        "pack": f"{pack.name} {pack.version} (sha256 {pack.sha256})",
        "program": f"{program.version} (commit {program.commit})",
        "backend": record.backend,
        "precision": record.precision,
        "decoder": record.decoder,
        **{f"setting {name}": value for name, value in record.settings.changing_results().items()},
    }
