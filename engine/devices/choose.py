"""Which devices run, and why."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rbc_engine.devices.base import AnyDevice, BuildWatch
from rbc_engine.devices.cuda.driver import ask_driver
from rbc_engine.devices.cuda.needs import gpu_problems, usable_gpus
from rbc_engine.errors import DeviceError, UsageError
from rbc_engine.packs.calibration import Calibration, accepts

__all__ = [
    "DEVICES",
    "DeviceChoice",
    "cores_here",
    "open_device",
    "open_devices",
    "precisions_of",
]

PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8", "fp8")

DEVICES = "auto, cpu, cuda, cuda:N, cuda:N,M or cuda:all"
"""What --device may be."""

_GPU_LANES = 4
_GPU_FRAMES = 8
_GPU_PATCHES = (8, 32, 128)
# One graph serves all; a size costs 20 ms at its first use, and an empty place 1.6 ms each time.
_HOST_PATCHES = (4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64)


def _nothing() -> None:
    """Where no compiled network is kept, none is removed."""


@dataclass(frozen=True, kw_only=True)
class DeviceChoice:
    """An open device with the sizes that suit it.

    device_id: which GPU; None for the host.
    lanes: batches in flight. threads: CPU threads for each kernel of a lane.
    lane_frames: frames a lane takes at once. batch_frames, batch_patches: batch sizes of the networks.
    notes: why no faster device or precision was taken.
    refuse: removes the compiled networks that are kept on the disk; called when they give wrong answers.
    """

    device: AnyDevice
    device_id: int | None = None
    lanes: int
    threads: int
    lane_frames: int
    batch_frames: int
    batch_patches: tuple[int, ...]
    notes: Sequence[str]
    refuse: Callable[[], None] = _nothing


def cores_here() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def open_device(
    device: str,
    *,
    precision: str = "auto",
    lanes: int | None = None,
    calibration: Calibration | None = None,
) -> DeviceChoice:
    """Opens one device; see open_devices."""
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
    """Opens 'cpu', 'cuda' (the first GPU), 'cuda:N', 'cuda:N,M', 'cuda:all', or the fastest that is here ('auto').

    lanes: on each device. calibration: of the pack, which decides what precision 'auto' may take.
    cache_name: a folder for the compiled networks of this pack. watch: see Engine.open.

    Raises UsageError for an unknown device or precision, DeviceError for one that is not here.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"--precision must be one of {', '.join(PRECISIONS)} (got {precision!r})")
    kind, _, which = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (which and kind != "cuda") or device.endswith(":"):
        raise UsageError(f"--device must be {DEVICES} (got {device!r})")
    if kind == "cpu":
        return (_open_host(precision, calibration, lanes=lanes, notes=[]),)
    if kind == "auto":
        problems = gpu_problems(0)
        if problems:
            # Nobody asked for a GPU: the first reason will do, and where it is the driver, for most it is the only one.
            note = f"device cpu: {problems[0]}"
            if len(problems) > 1:
                note += "; `rbc-engine doctor` lists all that a GPU needs"
            return (_open_host(precision, calibration, lanes=lanes, notes=[note]),)
        numbers = [0]
    else:
        numbers = _numbers(which or "0", device)
    for number in numbers:
        if problems := gpu_problems(number):
            raise DeviceError(f"--device {device}: {'; '.join(problems)}; or use --device cpu")
    opened: list[DeviceChoice] = []
    try:
        for number in numbers:
            opened.append(
                _open_gpu(
                    number,
                    precision,
                    calibration,
                    lanes=lanes,
                    cache_name=cache_name,
                    watch=watch,
                )
            )
    except BaseException:
        for choice in opened:
            choice.device.close()
        raise
    return tuple(opened)


def _numbers(which: str, device: str) -> list[int]:
    """The GPUs that the part after 'cuda:' names."""
    if which == "all":
        return [gpu.number for gpu in usable_gpus()] or [0]
    parts = which.split(",")
    if not all(part.isdecimal() and part.isascii() for part in parts):
        raise UsageError(f"--device must be {DEVICES} (got {device!r})")
    numbers = [int(part) for part in parts]
    if len(set(numbers)) != len(numbers):
        raise UsageError(f"--device names a GPU twice (got {device!r})")
    return numbers


def precisions_of(device: str) -> list[str]:
    """What a device, 'cpu', 'cuda' or 'cuda:N', computes in, fastest first.

    Raises UsageError for another name, DeviceError for a GPU that is not here.
    """
    if device == "cpu":
        from rbc_engine.devices.cpu.device import host_precisions

        return host_precisions()
    kind, _, which = device.partition(":")
    if kind != "cuda" or not (which or "0").isdecimal():
        raise UsageError(f"--device must be cpu, cuda or cuda:N here (got {device!r})")
    number = int(which or 0)
    if problems := gpu_problems(number):
        raise DeviceError(f"--device {device}: {'; '.join(problems)}")
    return _gpu_precisions(number)


def _gpu_precisions(number: int) -> list[str]:
    from rbc_engine.devices.cuda.device import FP8_CAPABILITY, GPU_PRECISIONS

    capability = next((gpu.capability for gpu in ask_driver().gpus if gpu.number == number), (0, 0))
    return [name for name in GPU_PRECISIONS if name != "fp8" or capability >= FP8_CAPABILITY]


def _open_gpu(
    number: int,
    precision: str,
    calibration: Calibration | None,
    *,
    lanes: int | None,
    cache_name: str,
    watch: BuildWatch | None,
) -> DeviceChoice:
    from rbc_engine.devices.cuda.device import open_gpu

    taken, notes = _decide(precision, calibration, "cuda", _gpu_precisions(number))
    gpu = open_gpu(number, precision=taken, cache_name=cache_name, watch=watch)
    gpu.notes += notes
    return DeviceChoice(
        device=gpu.lane(),
        device_id=number,
        lanes=lanes or _GPU_LANES,
        threads=1,
        lane_frames=_GPU_FRAMES,
        batch_frames=_GPU_FRAMES,
        batch_patches=_GPU_PATCHES,
        notes=gpu.notes,
        refuse=gpu.refuse,
    )


def _open_host(
    precision: str, calibration: Calibration | None, *, lanes: int | None, notes: list[str]
) -> DeviceChoice:
    from rbc_engine.devices.cpu.device import HostDevice, host_precisions

    offered = host_precisions()
    taken, why = _decide(precision, calibration, "cpu", offered)
    if precision == "auto" and "int8" not in offered:
        why.insert(0, "precision int8 is not taken: this CPU has no VNNI")

    cores = cores_here()
    # Two cores a lane: a field alone is done sooner, and the last ones of a run leave no core idle. At int8 networks on
    # two threads lose nothing against two on one thread. Many cores share lanes, which hold feature maps each.
    lanes = lanes or min(max(cores // 2, 1), 8)
    device = HostDevice(precision=taken, lanes=lanes, threads=max(cores, lanes))
    return DeviceChoice(
        device=device,
        lanes=lanes,
        threads=max(1, cores // lanes),
        lane_frames=4,
        batch_frames=1,
        batch_patches=_HOST_PATCHES,
        notes=(*notes, *why, *device.notes),
    )


def _decide(
    precision: str, calibration: Calibration | None, kind: str, offered: Sequence[str]
) -> tuple[str, list[str]]:
    """The precision to take, and what has to be said about it.

    kind: 'cpu' or 'cuda'. offered: what the device computes in, fastest first.
    """
    if precision != "auto":
        if precision in offered and not accepts(calibration, kind, precision):
            return precision, [
                f"precision {precision} was asked for, and is not accepted for this pack: "
                f"{_why_not(calibration, kind, precision)}"
            ]
        return precision, []
    notes: list[str] = []
    for name in offered:
        if accepts(calibration, kind, name):
            return name, notes
        notes.append(f"precision {name} is not taken: {_why_not(calibration, kind, name)}")
    raise DeviceError(
        f"the pack's calibration.json refuses every precision of this {kind} device ({', '.join(offered)}); "
        f"name one with --precision, or calibrate the pack again"
    )


def _why_not(calibration: Calibration | None, kind: str, precision: str) -> str:
    if calibration is None:
        return "the pack has no calibration.json"
    verdict = calibration.verdicts.get(f"{kind}:{precision}")
    if verdict is None:
        return f"its calibration.json has no verdict on {kind}:{precision}"
    return "; ".join(verdict.reasons)
