"""The CPU's record. Imports OpenVINO only when one is opened."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rbc_engine.devices.base import BuildWatch, Device, DeviceChoice, DeviceKind, HostArray

__all__ = ["CPU", "cores_here"]

_FRAMES = 4
# One graph serves all; a size costs 20 ms at its first use, and an empty place 1.6 ms each time.
_PATCHES = (4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64)


def cores_here() -> int:
    """Count the CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _precisions(_: int) -> Sequence[str]:
    from rbc_engine.devices.cpu.device import host_precisions

    return host_precisions()


def _lacks(number: int) -> Sequence[str]:
    if "int8" in _precisions(number):
        return ()
    return ["precision int8 is not taken: this CPU has no VNNI"]


def _open(
    number: int,
    *,
    precision: str,
    lanes: int | None,
    notes: Sequence[str],
    cache_name: str,
    watch: BuildWatch | None,
) -> DeviceChoice:
    from rbc_engine.devices.cpu.device import HostDevice

    cores = cores_here()
    # Two cores a lane: a field alone is done sooner, and the last ones of a run leave no core idle.
    # At int8 a network on two threads loses nothing against two on one thread. Many cores share
    # lanes, which hold feature maps each.
    lanes = lanes or min(max(cores // 2, 1), 8)
    opened = HostDevice(precision=precision, lanes=lanes, threads=max(cores, lanes))
    device: Device[HostArray] = opened
    return DeviceChoice(
        device=device,
        kind=CPU,
        lanes=lanes,
        threads=max(1, cores // lanes),
        lane_frames=_FRAMES,
        batch_frames=1,
        batch_patches=_PATCHES,
        notes=(*notes, *opened.notes),
    )


CPU = DeviceKind(
    name="cpu",
    numbered=False,
    keeps_networks=False,
    decodes=False,
    found=lambda: (0,),
    problems=lambda number: (),
    precisions=_precisions,
    lacks=_lacks,
    needs=lambda: (),
    open=_open,
)
