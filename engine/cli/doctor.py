"""Show what is installed, what will be used, and what a faster run needs: `rbc-engine doctor`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

__all__ = ["doctor"]


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show which device, precision and decoders a run uses here, and what a faster one would
    need.
    """
    report = _report()
    if as_json:
        print(json.dumps(report, indent=2))
        return
    for key, value in report.items():
        if isinstance(value, list):
            print(f"{key}:")
            for line in value:
                print(f"  {line}")
        else:
            print(f"{key}: {value}")


def _report() -> dict[str, Any]:
    import platform
    from importlib.metadata import version

    from rbc_engine import _kernels
    from rbc_engine.devices.choose import open_device
    from rbc_engine.devices.cpu.kind import cores_here
    from rbc_engine.devices.table import KINDS
    from rbc_engine.errors import PackError
    from rbc_engine.packs.pack import Pack, shipped_packs
    from rbc_engine.sources.images import table as images
    from rbc_engine.sources.open import DALI
    from rbc_engine.sources.slides import table as slides

    gpu = [line for kind in KINDS.values() for line in kind.needs()]
    gpu.append(f"DALI: {DALI.missing() or DALI.version()}")
    packs, calibration = [], None
    for name, folder in shipped_packs().items():
        try:
            pack = Pack.open(folder)
            packs.append(f"{name} {pack.manifest.version}: whole")
            calibration = calibration or pack.calibration
        except PackError as error:
            packs.append(f"{name}: {error}")
    choice = open_device("auto", calibration=calibration)
    with choice.device as device:
        return {
            "program": f"rbc-engine {version('rbc-engine')}, commit {_kernels.commit}",
            "python": platform.python_version(),
            "system": platform.platform(),
            "device": device.name,
            "backend": device.backend,
            "precision": device.precision,
            "cores": cores_here(),
            "lanes": choice.lanes,
            "gpu": gpu,
            "decoders": [f"{reader.name}: {reader.library}" for reader in images.READERS],
            "slides": [f"{reader.name}: {reader.library}" for reader in slides.READERS],
            "packs": packs or ["none: no pack comes with this installation; give --pack PATH"],
            "notes": [*choice.notes, *choice.doubts],
        }
