"""Certify drift: run the same images in two ways and compare the results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rbc_engine.devices.choose import open_device
from rbc_engine.devices.cpu.kind import cores_here
from rbc_engine.engine import Engine
from rbc_engine.errors import UsageError
from rbc_engine.packs.pack import Pack
from rbc_engine.sources.base import Source
from rbc_engine.sources.find import find_fields
from rbc_engine.sources.images.dali import DaliSource
from rbc_engine.sources.images.files import FileSource
from rbc_engine.sources.open import dali_remedy
from rbc_engine.stats.drift import Drift
from rbc_engine.types.frames import Decoded
from rbc_engine.types.regions import Regions

__all__ = ["certify"]

_DECODERS = ("cpu", "dali")
_BATCH = 4


def certify(
    pack: Pack, data: Path, ways: tuple[str, str], *, limit: int, log: Callable[[str], None]
) -> Drift:
    """Run the first `limit` images of a folder in both ways.

    ways: each DEVICE:PRECISION, or DEVICE:PRECISION:DECODER with decoder 'cpu' or 'dali'.

    Raises UsageError for a way of another form, DeviceError for a device that is not available.
    """
    parsed = [_parse(way) for way in ways]
    first, second = (
        _run(pack, data, device, precision, decoder, limit, log)
        for device, precision, decoder in parsed
    )
    drift = Drift(types=pack.types)
    for name, regions in first.items():
        if name in second:
            drift.add(regions, second[name])
    if failed := len(first.keys() ^ second.keys()):
        log(f"{failed} images could be read in only one of the two ways")
    return drift


def _parse(way: str) -> tuple[str, str, str]:
    parts = way.split(":")
    decoder = parts.pop() if parts[-1] in _DECODERS and len(parts) > 2 else "cpu"
    if len(parts) < 2:
        raise UsageError(
            "--drift takes DEVICE:PRECISION or DEVICE:PRECISION:DECODER, twice, e.g. cpu:fp32 "
            "cuda:0:int8:dali "
            f"(got {way!r})"
        )
    return ":".join(parts[:-1]), parts[-1], decoder


def _run(
    pack: Pack,
    data: Path,
    device: str,
    precision: str,
    decoder: str,
    limit: int,
    log: Callable[[str], None],
) -> dict[str, Regions]:
    entries = find_fields([data]).entries[:limit]
    choice = open_device(device, precision=precision, calibration=pack.calibration)
    log(f"{len(entries)} images on {choice.device.name}, {choice.device.precision}")
    workers = cores_here()
    source: Source[Decoded]
    if decoder == "dali":
        if (remedy := dali_remedy()) is not None:
            raise UsageError(f"--drift: {remedy}")
        source = DaliSource(
            entries,
            places=[choice.place],
            batch_size=_BATCH,
            workers=workers,
            ahead=2 * _BATCH,
        )
    else:
        source = FileSource(entries, workers=workers, ahead=2 * workers)
    with Engine.on(pack, choice) as engine, source:
        return {
            f"{result.slide}/{result.field}": result.regions
            for result in engine.run(source)
            if result.regions is not None
        }
