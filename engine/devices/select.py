"""Which device runs, and why."""

from __future__ import annotations

import os
from dataclasses import dataclass

from rbc_engine.devices.base import Device
from rbc_engine.errors import DeviceError, UsageError

__all__ = ["DeviceChoice", "cores_here", "open_device"]

PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8", "fp8")

_NO_CUDA = "this version of rbc-engine has no CUDA device"


@dataclass(frozen=True, kw_only=True)
class DeviceChoice:
    """An open device with the sizes that suit it.

    lanes: batches in flight. threads: CPU threads for each kernel of a lane.
    lane_frames: frames a lane takes at once. batch_frames, batch_patches: batch sizes of the networks.
    notes: why no faster device or precision was taken.
    """

    device: Device
    lanes: int
    threads: int
    lane_frames: int
    batch_frames: int
    batch_patches: tuple[int, ...]
    notes: tuple[str, ...]


def cores_here() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def open_device(device: str, *, precision: str = "auto", lanes: int | None = None) -> DeviceChoice:
    """Opens 'cpu', 'cuda', 'cuda:N', or the fastest that is here ('auto').

    Raises UsageError for an unknown device or precision, DeviceError for one that is not here.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"--precision must be one of {', '.join(PRECISIONS)} (got {precision!r})")
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (number and (kind != "cuda" or not number.isdigit())):
        raise UsageError(f"--device must be auto, cpu, cuda or cuda:N (got {device!r})")
    if kind == "cuda":
        raise DeviceError(f"--device {device}: {_NO_CUDA}; use --device cpu")
    notes = [f"device cpu: {_NO_CUDA}"] if kind == "auto" else []
    return _open_host(precision=precision, lanes=lanes, notes=notes)


def _open_host(*, precision: str, lanes: int | None, notes: list[str]) -> DeviceChoice:
    from rbc_engine.devices.host import HostDevice

    cores = cores_here()
    # A lane a core: networks on one thread each waste nothing on waiting for one another. Many cores share
    # lanes, because every lane holds its own feature maps.
    lanes = lanes or min(cores, 8)
    device = HostDevice(precision=precision, lanes=lanes, threads=max(cores, lanes))
    return DeviceChoice(
        device=device,
        lanes=lanes,
        threads=max(1, cores // lanes),
        lane_frames=2,
        batch_frames=1,
        batch_patches=(4, 16, 64),
        notes=(*notes, *device.notes),
    )
