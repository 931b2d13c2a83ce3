"""List the formats of labelled data that can be read, by their names for --format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from rbc_engine.errors import UsageError
from rbc_engine.training.datasets.base import Dataset
from rbc_engine.training.datasets.formats.boxes_file import load_boxes
from rbc_engine.training.datasets.formats.chula12 import load_chula12
from rbc_engine.training.datasets.formats.coco_boxes import load_coco
from rbc_engine.training.datasets.formats.masks import load_masks
from rbc_engine.training.datasets.formats.synthetic import load_synthetic
from rbc_engine.training.datasets.formats.voc import load_voc

__all__ = ["FORMATS", "LoadDataset", "check_format", "load_dataset"]


class LoadDataset(Protocol):
    def __call__(self, folder: Path, *, threads: int | None = None) -> Dataset:
        """Read and check the whole dataset.

        threads: None for the cores that this process may use.

        Raises UsageError that lists every fault.
        """
        ...


FORMATS: Mapping[str, LoadDataset] = MappingProxyType(
    {
        "chula12": load_chula12,
        "masks": load_masks,
        "voc": load_voc,
        "coco": load_coco,
        "boxes": load_boxes,
        "synthetic": load_synthetic,
    }
)


def check_format(data_format: str) -> None:
    """Raise UsageError for a format that is not in FORMATS."""
    if data_format not in FORMATS:
        raise UsageError(f"--format must be one of {', '.join(FORMATS)} (got {data_format!r})")


def load_dataset(folder: Path, *, data_format: str, threads: int | None = None) -> Dataset:
    """Read and check a dataset of one of FORMATS; see LoadDataset. Raises UsageError also for
    another format.
    """
    check_format(data_format)
    return FORMATS[data_format](folder, threads=threads)
