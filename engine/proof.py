"""What a device makes of a pack's golden inputs, before it is trusted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rbc_engine.devices.select import DeviceChoice
from rbc_engine.errors import DeviceError
from rbc_engine.golden import judge, read_golden
from rbc_engine.pack import Pack
from rbc_engine.types import Decoded, FieldRef, FieldResult, Frame

__all__ = ["check_golden"]


def check_golden(
    pack: Pack,
    choice: DeviceChoice,
    analyze: Callable[[Sequence[Decoded]], Sequence[FieldResult]],
) -> int:
    """Runs the pack's golden inputs, one by one and as a full batch, and compares the answers.

    analyze: results of a batch, from the device of `choice`.

    Returns how many there are. Raises DeviceError naming what differs, after the device's networks were refused.
    """
    cases = read_golden(pack.read("golden.npz"))
    batch = [
        Decoded(
            ref=FieldRef(slide="", field=f"golden {index}", path=Path()),
            frame=Frame(pixels=case.frame),
        )
        for index, case in enumerate(cases)
    ]
    full = [batch[index % len(batch)] for index in range(choice.lane_frames if batch else 0)]
    for together in filter(None, (*([decoded] for decoded in batch), full)):
        for decoded, result in zip(together, analyze(together), strict=True):
            differences = judge(
                cases[int(decoded.ref.field.split()[1])].expected,
                result.regions,
                precision=choice.device.precision,
                score_threshold=pack.manifest.detector.score_threshold,
            )
            if differences:
                choice.refuse()
                raise DeviceError(
                    f"{choice.device.name} ({choice.device.backend}, {choice.device.precision}): "
                    f"{decoded.ref.field} of pack {pack.name} gives another answer than it must: "
                    f"{'; '.join(differences[:3])}; the engine is refused: use another --device or --precision"
                )
    return len(cases)
