"""Provide the networks of a pack in the precision in which a device computes."""

from __future__ import annotations

import threading
from weakref import WeakKeyDictionary

from rbc_engine.errors import PackError
from rbc_engine.packs.calibration import NETWORKS
from rbc_engine.packs.pack import Pack

__all__ = ["QUANTIZED", "network_of"]

QUANTIZED = ("int8", "fp8")
"""Precisions whose networks are made from the pack's ranges."""

_made: WeakKeyDictionary[Pack, dict[tuple[str, str], bytes]] = WeakKeyDictionary()
_looking = threading.Lock()
# One lock per network: a small one does not wait for a large one.
_making = {name: threading.Lock() for name in NETWORKS}


def network_of(pack: Pack, name: str, *, precision: str) -> bytes:
    """Return the ONNX graph of one of NETWORKS; the same bytes for every lane that asks.

    Raises PackError for a quantised precision if the pack has no ranges.
    """
    if precision not in QUANTIZED:
        return pack.read(name)
    with _looking:
        made = _made.setdefault(pack, {})
    with _making[name]:
        if (name, precision) not in made:
            if pack.calibration is None:
                raise PackError(
                    f"pack {pack.name} has no calibration.json, which precision {precision} needs; "
                    f"run `rbc-engine calibrate {pack.name} --data DIR`, or choose another "
                    "--precision"
                )
            from rbc_engine.packs.quantize import quantize  # imports onnx, a third of a second

            ranges = pack.calibration.networks[name]
            made[name, precision] = quantize(
                pack.read(name),
                ranges.ranges,
                to="int8" if precision == "int8" else "fp8",
                keep_float=ranges.keep_float,
            )
        return made[name, precision]
