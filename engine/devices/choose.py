"""Which devices run, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rbc_engine.devices.base import BuildWatch, DeviceChoice, DeviceKind
from rbc_engine.devices.table import KINDS
from rbc_engine.errors import DeviceError, UsageError
from rbc_engine.packs.calibration import Calibration, accepts

__all__ = ["DEVICES", "open_device", "open_devices", "precisions_of"]

PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8", "fp8")


def _spelled(*which: str, also: Sequence[str] = ()) -> str:
    """List what --device may be. which: what may follow the name of a kind that is numbered."""
    words = [*also, *(kind.name for kind in KINDS.values() if not kind.numbered)]
    words += [
        f"{kind.name}{part}" for kind in KINDS.values() if kind.numbered for part in ("", *which)
    ]
    return f"{', '.join(words[:-1])} or {words[-1]}"


DEVICES = _spelled(":N", ":N,M", ":all", also=["auto"])
"""What --device may be."""


def open_device(
    device: str,
    *,
    precision: str = "auto",
    lanes: int | None = None,
    calibration: Calibration | None = None,
) -> DeviceChoice:
    """Open one device; see open_devices."""
    choices = open_devices(device, precision=precision, lanes=lanes, calibration=calibration)
    if len(choices) > 1:
        for choice in choices:
            choice.device.close()
        raise UsageError(f"--device {device} means {len(choices)} devices; here one is needed")
    return choices[0]


def open_devices(
    device: str,
    *,
    precision: str = "auto",
    lanes: int | None = None,
    calibration: Calibration | None = None,
    cache_name: str = "unnamed",
    watch: BuildWatch | None = None,
) -> tuple[DeviceChoice, ...]:
    """Open 'cpu', 'cuda' (the first GPU), 'cuda:N', 'cuda:N,M', 'cuda:all' or 'auto' (the fastest).

    lanes: on each device. calibration: of the pack, which decides what precision 'auto' may take.
    cache_name: a folder for the compiled networks of this pack. watch: see Engine.open.

    Raises UsageError for an unknown device or precision, DeviceError for one that is not here.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"--precision must be one of {', '.join(PRECISIONS)} (got {precision!r})")
    if device == "auto":
        kind, notes = _fastest()
        numbers = [0]
    else:
        kind, which = _named(device)
        numbers, notes = _numbers(kind, which, device), []
        for number in numbers:
            if problems := kind.problems(number):
                raise DeviceError(f"--device {device}: {'; '.join(problems)}; or use --device cpu")
    opened: list[DeviceChoice] = []
    try:
        for number in numbers:
            taken, why, doubts = _decide(
                precision,
                calibration,
                kind.name,
                kind.precisions(number),
                lacks=kind.lacks(number),
            )
            choice = kind.open(
                number,
                precision=taken,
                lanes=lanes,
                notes=[*notes, *why],
                cache_name=cache_name,
                watch=watch,
            )
            opened.append(replace(choice, doubts=doubts))
    except BaseException:
        for choice in opened:
            choice.device.close()
        raise
    return tuple(opened)


def precisions_of(device: str) -> Sequence[str]:
    """Return the precisions of one device, e.g. 'cpu', 'cuda' or 'cuda:1', fastest first.

    Raises UsageError for another name, DeviceError for a device that is not here.
    """
    name, colon, which = device.partition(":")
    kind = KINDS.get(name)
    number = which if colon else "0"
    if kind is None or (colon and not kind.numbered) or not number.isdecimal():
        raise UsageError(f"--device must be {_spelled(':N')} here (got {device!r})")
    if problems := kind.problems(int(number)):
        raise DeviceError(f"--device {device}: {'; '.join(problems)}")
    return kind.precisions(int(number))


def _fastest() -> tuple[DeviceKind, list[str]]:
    """Return the first kind without problems, and the problems of those before it."""
    notes: list[str] = []
    for kind in KINDS.values():
        problems = kind.problems(0)
        if not problems:
            return kind, [f"device {kind.name}: {note}" for note in notes]
        # Nobody asked for it: the first reason will do. For most it is the driver, and the only
        # one.
        more = "; `rbc-engine doctor` lists all that a GPU needs" if len(problems) > 1 else ""
        notes.append(f"{problems[0]}{more}")
    raise DeviceError(f"no device can be used: {'; '.join(notes)}")


def _named(device: str) -> tuple[DeviceKind, str]:
    """Return the kind that --device names, and the numbers after it, as text."""
    name, _, which = device.partition(":")
    kind = KINDS.get(name)
    if kind is None or (which and not kind.numbered) or device.endswith(":"):
        raise UsageError(f"--device must be {DEVICES} (got {device!r})")
    return kind, which


def _numbers(kind: DeviceKind, which: str, device: str) -> list[int]:
    """Return the numbers of the devices after the colon; the first device if there are none."""
    if which == "all":
        return list(kind.found()) or [0]
    parts = (which or "0").split(",")
    if not all(part.isdecimal() and part.isascii() for part in parts):
        raise UsageError(f"--device must be {DEVICES} (got {device!r})")
    numbers = [int(part) for part in parts]
    if len(set(numbers)) != len(numbers):
        raise UsageError(f"--device names a GPU twice (got {device!r})")
    return numbers


def _decide(
    precision: str,
    calibration: Calibration | None,
    kind: str,
    offered: Sequence[str],
    *,
    lacks: Sequence[str] = (),
) -> tuple[str, list[str], list[str]]:
    """Take a precision, and say why no faster one was taken, and what is doubtful about this one.

    kind, offered, lacks: the name, precisions and lacks of a DeviceKind.
    """
    if precision != "auto":
        if precision in offered and not accepts(calibration, kind, precision):
            doubt = (
                f"precision {precision} was asked for, and is not accepted for this pack: "
                f"{_why_not(calibration, kind, precision)}"
            )
            return precision, [], [doubt]
        return precision, [], []
    notes = list(lacks)
    for name in offered:
        if accepts(calibration, kind, name):
            return name, notes, []
        notes.append(f"precision {name} is not taken: {_why_not(calibration, kind, name)}")
    raise DeviceError(
        f"the pack's calibration.json refuses every precision of this {kind} device "
        f"({', '.join(offered)}); name one with --precision, or calibrate the pack again"
    )


def _why_not(calibration: Calibration | None, kind: str, precision: str) -> str:
    if calibration is None:
        return "the pack has no calibration.json"
    verdict = calibration.verdicts.get(f"{kind}:{precision}")
    if verdict is None:
        return f"its calibration.json has no verdict on {kind}:{precision}"
    return "; ".join(verdict.reasons)
