"""List the further outputs of a run. Imports nothing heavy: the command line shows the list in its
help.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from rbc_engine.errors import UsageError

if TYPE_CHECKING:
    from rbc_engine.packs.pack import Pack
    from rbc_engine.sinks.base import Sink

__all__ = [
    "DEFAULT_FORMATS",
    "FORMATS",
    "ONLY",
    "Format",
    "check_formats",
    "chosen_formats",
    "open_sink",
    "shows_pixels",
]


@dataclass(frozen=True, kw_only=True)
class Format:
    """Describe one of --formats.

    output: the file or folder that it makes.
    suffix: of the files in that folder; None for a file.
    module, sink: where its class is, in rbc_engine.sinks.formats.
    library: what must be installed, with the extra of the same name as the format; None if nothing.
    """

    output: str
    suffix: str | None
    module: str
    sink: str
    library: str | None = None


FORMATS = MappingProxyType(
    {
        "report": Format(
            output="report.html", suffix=None, module="report_page", sink="ReportPage"
        ),
        "csv": Format(output="regions.csv", suffix=None, module="regions_csv", sink="RegionsCsv"),
        "geojson": Format(
            output="geojson", suffix=".geojson", module="geojson", sink="GeoJsonFolder"
        ),
        "coco": Format(output="coco.json", suffix=None, module="coco", sink="CocoJson"),
        "anndata": Format(
            output="regions.h5ad",
            suffix=None,
            module="anndata",
            sink="RegionsH5ad",
            library="h5py",
        ),
        "overlay": Format(
            output="overlays", suffix=".png", module="overlay.overlay", sink="OverlayFolder"
        ),
        "patches": Format(output="patches", suffix=".jpg", module="patches", sink="PatchFolder"),
        "webdataset": Format(
            output="webdataset", suffix=".tar", module="webdataset", sink="WebDatasetFolder"
        ),
    }
)
"""By name, in the order of the documentation."""

DEFAULT_FORMATS = ("report", "csv")
"""What a run writes beside its tables unless it is told to write only something else."""

ONLY = "only"
"""Among the names of formats: write those that are named, and not the default ones."""


def chosen_formats(names: Sequence[str]) -> tuple[str, ...]:
    """Return the formats that a run writes: the default ones and those named, each once.

    With ONLY among the names, the default ones are written only if they are named. Raises
    UsageError as check_formats does.
    """
    default = () if ONLY in names else DEFAULT_FORMATS
    chosen = tuple(dict.fromkeys((*default, *(name for name in names if name != ONLY))))
    check_formats(chosen)
    return chosen


class _SinkClass(Protocol):
    """Type a class of sinks."""

    needs_frames: bool

    def __call__(self, folder: Path, pack: Pack) -> Sink: ...


def check_formats(names: Sequence[str]) -> None:
    """Raise UsageError for a name that is not in FORMATS, or a library that is not installed."""
    for name in names:
        if name not in FORMATS:
            raise UsageError(
                f"--formats may name {', '.join(FORMATS)}, and {ONLY} for nothing but what is "
                f"named (got {name!r}); the tables are always written"
            )
        library = FORMATS[name].library
        if library is not None and find_spec(library) is None:
            raise UsageError(
                f"--formats {name} needs {library}, which is not installed; "
                f"pip install 'rbc-engine[{name}]', or omit {name}"
            )


def shows_pixels(name: str) -> bool:
    """Return whether a format can be made only of fields whose image is at hand.

    The report can do without: it counts a field without its image, and shows no picture of it.
    """
    return name != "report" and _sink(name).needs_frames


def open_sink(name: str, folder: Path, pack: Pack) -> Sink:
    """Open the sink of a format. Raises OutputError if its files cannot be started."""
    return _sink(name)(folder, pack)


def _sink(name: str) -> _SinkClass:
    chosen = FORMATS[name]
    module = import_module(f"rbc_engine.sinks.formats.{chosen.module}")
    found: _SinkClass = getattr(module, chosen.sink)
    return found
