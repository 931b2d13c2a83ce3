"""Measure the engine and its peers on the same files, in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rbc_engine.bench.chapters.agreement import Agreement, agreement
from rbc_engine.bench.chapters.end_to_end import pass_from_disk
from rbc_engine.bench.instruments.fields import BenchFields
from rbc_engine.bench.instruments.spreads import in_turn, ratio_spread, spread
from rbc_engine.bench.peers.base import Peer, PeerMissingError
from rbc_engine.bench.peers.open import open_peer
from rbc_engine.devices.cpu.kind import cores_here
from rbc_engine.engine import Engine
from rbc_engine.types.frames import FieldRef
from rbc_engine.types.regions import Regions

__all__ = ["compare_with_peers"]

OpenPeer = Callable[..., Peer]


def compare_with_peers(
    engine: Engine,
    fields: BenchFields,
    names: Sequence[str],
    *,
    folder: Path,
    repeats: int,
    say: Callable[[str], None],
    open_one: OpenPeer = open_peer,
) -> dict[str, dict[str, Any]]:
    """Measure `peers` of bench.json. The engine reads files and writes tables, a peer reads files
    and writes nothing.

    A peer that is missing or disagrees has `left_out` or `refused`, which say why; the others are
    measured.
    folder: for the tables. open_one: as open_peer.
    """
    report: dict[str, dict[str, Any]] = {}
    opened: dict[str, Peer] = {}
    with ExitStack() as stack:
        for name in names:
            say(f"peer {name}")
            entry, peer = _admit(engine, fields, name, open_one)
            report[name] = entry
            if peer is not None:
                stack.callback(peer.close)
                if "refused" not in entry:
                    opened[name] = peer
        if not opened:
            return report
        say(f"the engine and {', '.join(opened)} in turn")
        runs: dict[str, Callable[[], object]] = {
            "engine": lambda: pass_from_disk(engine, fields, folder)
        }
        runs |= {name: _pass(peer, fields.refs) for name, peer in opened.items()}
        # All have run these fields already, the peers for the agreement, the engine for its own
        # figures.
        seconds = in_turn(runs, warm_up=0, repeats=repeats)
    count = len(fields.refs)
    for name in opened:
        ratios = ratio_spread(seconds[name], seconds["engine"])
        report[name] |= {
            "fields_per_s": asdict(spread([count / value for value in seconds[name]])),
            "engine_fields_per_s": asdict(spread([count / value for value in seconds["engine"]])),
            "ratio": ratios.median,
            "ratio_spread": asdict(ratios),
        }
    return report


def _admit(
    engine: Engine, fields: BenchFields, name: str, open_one: OpenPeer
) -> tuple[dict[str, Any], Peer | None]:
    """Return what is known of a peer before it is timed, and the peer, if it could be opened."""
    try:
        peer = open_one(name, engine.pack, threads=cores_here())
    except PeerMissingError as error:
        return {"left_out": str(error)}, None
    entry: dict[str, Any] = {"description": peer.description, "precision": peer.precision}
    try:
        theirs = [peer.analyze(ref) for ref in fields.refs]
    except Exception as error:  # whatever a peer's libraries raise ends the peer, not the bench
        peer.close()
        return entry | {"left_out": f"it failed: {type(error).__name__}: {error}"}, None
    mine = [_own(engine, fields, index) for index in range(len(fields.refs))]
    found = agreement(mine, theirs)
    entry["agreement"] = _agreement_record(found)
    problem = found.problem()
    if problem is not None:
        entry["refused"] = problem
    return entry, peer


def _own(engine: Engine, fields: BenchFields, index: int) -> Regions:
    frame = fields.decoded[index].frame
    assert frame is not None
    regions = engine.analyze(frame).regions
    assert regions is not None
    return regions


def _agreement_record(found: Agreement) -> Mapping[str, float]:
    return asdict(found) | {"found": found.found, "alike": found.alike}


def _pass(peer: Peer, refs: Sequence[FieldRef]) -> Callable[[], object]:
    return lambda: [peer.analyze(ref) for ref in refs]
