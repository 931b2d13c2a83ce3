"""Detect and classify red blood cells in microscope images at high throughput.

from rbc_engine import Engine

with Engine.open("chula12") as engine:
    result = engine.analyze(image)  # uint8 [H, W, 3] RGB
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rbc_engine.errors import (
    DeviceError,
    ImageError,
    OutputError,
    PackError,
    RbcError,
    ResultsError,
    SessionClosedError,
    UsageError,
)

if TYPE_CHECKING:
    from rbc_engine.engine import Engine
    from rbc_engine.packs.pack import Pack
    from rbc_engine.runs.run_folder import RunProgress, RunSummary, run_folder
    from rbc_engine.runs.session_output import SessionOutput
    from rbc_engine.session.pixels import PixelFormat
    from rbc_engine.session.session import Session
    from rbc_engine.sinks.run_json import RunRecord
    from rbc_engine.stats.monitor import SlideMonitor
    from rbc_engine.stats.stage_map import StageMap
    from rbc_engine.types.ends import Ended, FrameStatus
    from rbc_engine.types.frames import Frame
    from rbc_engine.types.kinds import Kind
    from rbc_engine.types.regions import RegionFlag, Regions
    from rbc_engine.types.results import FieldResult

__all__ = [
    "DeviceError",
    "Ended",
    "Engine",
    "FieldResult",
    "Frame",
    "FrameStatus",
    "ImageError",
    "Kind",
    "OutputError",
    "Pack",
    "PackError",
    "PixelFormat",
    "RbcError",
    "RegionFlag",
    "Regions",
    "ResultsError",
    "RunProgress",
    "RunRecord",
    "RunSummary",
    "Session",
    "SessionClosedError",
    "SessionOutput",
    "SlideMonitor",
    "StageMap",
    "UsageError",
    "run_folder",
]

_HOME = {
    "Ended": "rbc_engine.types.ends",
    "Engine": "rbc_engine.engine",
    "FieldResult": "rbc_engine.types.results",
    "Frame": "rbc_engine.types.frames",
    "FrameStatus": "rbc_engine.types.ends",
    "Kind": "rbc_engine.types.kinds",
    "Pack": "rbc_engine.packs.pack",
    "PixelFormat": "rbc_engine.session.pixels",
    "RegionFlag": "rbc_engine.types.regions",
    "Regions": "rbc_engine.types.regions",
    "RunProgress": "rbc_engine.runs.run_folder",
    "RunRecord": "rbc_engine.sinks.run_json",
    "RunSummary": "rbc_engine.runs.run_folder",
    "Session": "rbc_engine.session.session",
    "SessionOutput": "rbc_engine.runs.session_output",
    "SlideMonitor": "rbc_engine.stats.monitor",
    "StageMap": "rbc_engine.stats.stage_map",
    "run_folder": "rbc_engine.runs.run_folder",
}


def __getattr__(name: str) -> Any:
    """Import the heavy names at their first use, so that the command line's help stays instant."""
    if name not in _HOME:
        raise AttributeError(f"module 'rbc_engine' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """List the heavy names too, before their first use."""
    return sorted({*globals(), *__all__})
