"""Define what a bench measures."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from rbc_engine.errors import UsageError

__all__ = ["PEERS", "SIZES", "BenchSettings", "Size", "parse_peers", "parse_sizes"]

PEERS = ("reference", "compiled", "onnxruntime", "torch-tensorrt")

SIZES = "640x480,1280x960,1920x1080"


@dataclass(frozen=True, kw_only=True)
class Size:
    """Hold the size of a field, px."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """Hold the settings of a bench.

    data: a folder of images; None for rendered fields of `sizes`.
    batch: frames per batch of a lane; None for what suits the device. lanes: likewise.
    regions_per_field: cells of a rendered field, none of which touch.
    fields: per pass. repeats: measured passes.
    short: just enough to check that everything works; its figures are rough.
    """

    pack: str = "chula12"
    device: str = "auto"
    precision: str = "auto"
    batch: int | None = None
    lanes: int | None = None
    data: Path | None = None
    sizes: tuple[Size, ...] = ()
    regions_per_field: int = 60
    fields: int = 12
    repeats: int = 5
    peers: tuple[str, ...] = ("reference",)
    scaling_fields: int | None = None
    plots: bool = False
    short: bool = False

    def record(self) -> dict[str, object]:
        """Return `settings` of bench.json, without paths."""
        return {
            "fields_from": "rendered" if self.data is None else "data",
            "sizes": [str(size) for size in self.sizes],
            "regions_per_field": self.regions_per_field,
            "fields": self.fields,
            "repeats": self.repeats,
            "peers": list(self.peers),
            "batch": self.batch,
            "lanes": self.lanes,
            "scaling_fields": self.scaling_fields,
            "short": self.short,
        }


def parse_sizes(text: str) -> tuple[Size, ...]:
    """Parse a list of WIDTHxHEIGHT; raise UsageError for anything else."""
    sizes = []
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", part.strip())
        if match is None:
            raise UsageError(
                f"--sizes must be a list of WIDTHxHEIGHT in px, e.g. {SIZES} (got {part!r})"
            )
        sizes.append(Size(width=int(match[1]), height=int(match[2])))
    return tuple(dict.fromkeys(sizes))


def parse_peers(text: str) -> tuple[str, ...]:
    """Parse names of peers; 'none' or an empty list is none, 'all' is every one. Raises UsageError
    for an unknown name.
    """
    names = [part.strip() for part in text.split(",") if part.strip()]
    if names == ["none"]:
        return ()
    if names == ["all"]:
        return PEERS
    for name in names:
        if name not in PEERS:
            raise UsageError(f"--peers may name {', '.join(PEERS)}, all or none (got {name!r})")
    return tuple(dict.fromkeys(names))
