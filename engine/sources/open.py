"""Who decodes the images of a run, and why."""

from __future__ import annotations

from collections.abc import Sequence

from rbc_engine.devices.base import DeviceChoice
from rbc_engine.libraries import Library
from rbc_engine.sources.base import Source
from rbc_engine.sources.images.dali import DaliSource
from rbc_engine.sources.images.files import FileSource
from rbc_engine.sources.images.table import READERS
from rbc_engine.types.frames import Decoded, FieldRef

__all__ = ["DALI", "cpu_decoders", "dali_remedy", "decoder_of", "open_source"]

DALI = Library(
    name="NVIDIA DALI",
    module="nvidia.dali",
    distributions=("nvidia-dali-cuda130", "nvidia-dali-cuda120"),
    remedy="pip install 'rbc-engine[dali]'",
)
"""What decodes images into the memory of a device."""


def cpu_decoders() -> str:
    """List the libraries that decode on the CPU, with their versions."""
    return ", ".join(dict.fromkeys(str(reader.library) for reader in READERS))


def dali_remedy() -> str | None:
    """Return how to get images decoded on the GPU; None if DALI is installed."""
    return DALI.missing()


def decoder_of(choices: Sequence[DeviceChoice]) -> tuple[str, list[str]]:
    """Return the decoder for these devices, and why it is not a faster one."""
    if not all(choice.kind.decodes for choice in choices):
        return cpu_decoders(), []
    remedy = dali_remedy()
    if remedy is not None:
        return cpu_decoders(), [f"images are decoded on the CPU: {remedy}"]
    return f"DALI {DALI.version()} for JPEG, else {cpu_decoders()}", []


def open_source(
    entries: Sequence[FieldRef | Decoded],
    choices: Sequence[DeviceChoice],
    *,
    workers: int,
    ahead: int,
    pixel_um: float | None,
) -> Source[Decoded]:
    """Open the frames of a run, decoded where that is fastest (decoder_of)."""
    if not all(choice.kind.decodes for choice in choices) or dali_remedy() is not None:
        return FileSource(entries, workers=workers, ahead=ahead, pixel_um=pixel_um)
    return DaliSource(
        entries,
        places=[choice.place for choice in choices],
        batch_size=choices[0].lane_frames,
        workers=workers,
        ahead=ahead,
        pixel_um=pixel_um,
    )
