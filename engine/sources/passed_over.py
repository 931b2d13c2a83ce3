"""Know which files and folders of an INPUT are no pictures of smears, and say so by kind."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import PurePath

from rbc_engine.text import printable

__all__ = ["PassedOver", "is_system_folder"]

_SYSTEM_FOLDERS = frozenset(
    {
        # Synology, QNAP, NetApp, TrueNAS: thumbnails, recycle bins, snapshots, scratch
        *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@tmp"),
        *("@__thumb", "@sharebin", "@sharesnap", "@syno", "@synologydrive", "@appstore"),
        *("~snapshot", "_gsdata_", "@sysdefaultvolume", "network trash folder", "temporary items"),
        # Windows, macOS, Linux
        *("$recycle.bin", "recycler", "recycled", "system volume information", "$extend"),
        *("__macosx", "lost+found", "thevolumesettingsfolder"),
    }
)
_CHECK_DISK = re.compile(r"found\.\d{3}")

_MOST_NAMED = 8
_HOW = {
    **dict.fromkeys(
        (".heic", ".heif", ".hif"),
        "export as JPEG, set the phone to save JPEG, or pip install 'rbc-engine[phones]'",
    ),
    ".avif": "export as JPEG or PNG",
    ".jxl": "export as JPEG or PNG",
    ".jp2": "export as TIFF or PNG",
    ".gif": "export as PNG",
    ".pdf": "export its pictures as PNG or TIFF",
    ".nd2": "export as TIFF",
    ".lif": "export as TIFF",
    ".oir": "export as TIFF",
    ".vsi": "export as TIFF",
    ".zip": "unpack it",
    ".dng": "export as TIFF or JPEG",
    ".cr2": "export as TIFF or JPEG",
    ".nef": "export as TIFF or JPEG",
    ".arw": "export as TIFF or JPEG",
}


def is_system_folder(name: str) -> bool:
    """Return whether an operating system, or a NAS, keeps such a folder for itself."""
    folded = name.casefold()
    return folded in _SYSTEM_FOLDERS or _CHECK_DISK.fullmatch(folded) is not None


class PassedOver:
    """Count what a search passed over, by kind. A folder counts once, whatever is in it."""

    def __init__(self) -> None:
        self._endings: Counter[str] = Counter()
        self._system: Counter[str] = Counter()
        self._results: list[str] = []
        self._links: list[str] = []
        self._others: Counter[str] = Counter()

    @property
    def count(self) -> int:
        """Return how many files and folders there were in all."""
        counted = (self._endings, self._system, self._others)
        return sum(map(Counter.total, counted)) + len(self._results) + len(self._links)

    def add_file(self, name: str) -> None:
        """Count a file whose ending is none of an image or a slide."""
        self._endings[PurePath(name).suffix.lower()] += 1

    def add_system(self, name: str) -> None:
        """Count a folder of the operating system or of a NAS."""
        self._system[name] += 1

    def add_results(self, name: str) -> None:
        """Count a folder with the results of a run."""
        self._results.append(name)

    def add_link(self, name: str, target: str) -> None:
        """Count a second name of a file that is read under its first."""
        self._links.append(f"{name} (of {target})")

    def add_other(self, kind: str) -> None:
        """Count one of a kind that needs no name: `hidden`, for instance."""
        self._others[kind] += 1

    def update(self, other: PassedOver) -> None:
        """Add what another search passed over."""
        self._endings.update(other._endings)
        self._system.update(other._system)
        self._results += other._results
        self._links += other._links
        self._others.update(other._others)

    def lines(self) -> list[str]:
        """Say it, in one line a kind; none if nothing was passed over."""
        lines = []
        if self._endings:
            ranked = sorted(self._endings.items(), key=lambda item: (-item[1], item[0]))
            shown = [_ending(ending, count) for ending, count in ranked]
            lines.append(f"passed over, no images by their endings: {_first(shown)}")
        if self._system:
            shown = [f"{printable(name)} ({n})" for name, n in sorted(self._system.items())]
            lines.append(f"passed over, folders of the system or of a NAS: {_first(shown)}")
        if self._results:
            shown = [printable(name) for name in sorted(self._results)]
            lines.append(f"passed over, folders with results of a run: {_first(shown)}")
        if self._links:
            shown = [printable(name) for name in sorted(self._links)]
            lines.append(
                f"passed over, further names (links) of files that are read: {_first(shown)}"
            )
        if self._others:
            shown = [f"{count} {kind}" for kind, count in sorted(self._others.items())]
            lines.append(f"passed over: {', '.join(shown)}")
        return lines


def _ending(ending: str, count: int) -> str:
    how = f" ({_HOW[ending]})" if ending in _HOW else ""
    return f"{count} {printable(ending) or 'without an ending'}{how}"


def _first(shown: list[str]) -> str:
    more = len(shown) - _MOST_NAMED
    return ", ".join(shown[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
