"""Run real fields through the fp32 networks and collect statistics of their tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rbc_engine.calibration.observing_device import ObservingDevice
from rbc_engine.devices.base import DeviceChoice
from rbc_engine.devices.cpu.kind import CPU, cores_here
from rbc_engine.engine import Engine
from rbc_engine.errors import UsageError
from rbc_engine.packs.pack import Pack
from rbc_engine.sources.images.files import FileSource
from rbc_engine.types.frames import FieldRef

__all__ = ["observe_fields"]


def observe_fields(
    pack: Pack,
    paths: Sequence[Path],
    *,
    device: ObservingDevice | None = None,
    log: Callable[[str], None],
) -> tuple[ObservingDevice, int]:
    """Observe the networks of a pack on fields and on the patches that the detector cuts from them.

    device: one that has observed other fields before.

    Returns the observing device and the number of regions. Raises UsageError if a field cannot be
    read, or if no field has a cell.
    """
    device = device or ObservingDevice()
    choice = DeviceChoice(
        device=device,
        kind=CPU,
        lanes=1,
        threads=cores_here(),
        lane_frames=1,
        batch_frames=1,
        batch_patches=(4, 16, 64),
        notes=(),
    )
    entries = [FieldRef(slide=path.parent.name, field=path.name, path=path) for path in paths]
    regions = 0
    with (
        Engine.on(pack, choice) as engine,
        FileSource(entries, workers=1, ahead=2) as source,
    ):
        for number, result in enumerate(engine.run(source), start=1):
            if result.regions is None:
                raise UsageError(f"--data: {result.error}")
            regions += len(result.regions)
            if number % 16 == 0 or number == len(paths):
                log(f"{number} of {len(paths)} fields observed, {regions} regions")
    if not regions:
        raise UsageError(
            f"the detector finds no cell in any of {len(paths)} fields; calibrate with fields that "
            "hold cells"
        )
    return device, regions
