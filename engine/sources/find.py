"""Finds the fields and whole slides of a run: image files, and folders of them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from rbc_engine.errors import ImageError, UsageError
from rbc_engine.sources.base import Entry, entry_ref, field_order
from rbc_engine.sources.copies import same_files
from rbc_engine.sources.images.table import IMAGE_SUFFIXES
from rbc_engine.sources.passed_over import PassedOver, is_system_folder
from rbc_engine.sources.slides.dicom_header import dicom_header
from rbc_engine.sources.slides.open import is_whole_slide
from rbc_engine.sources.slides.slide_parts import named_parts
from rbc_engine.sources.slides.table import SLIDE_SUFFIXES
from rbc_engine.text import printable
from rbc_engine.types.frames import Decoded, FieldRef, SlideRef

__all__ = ["Found", "find_fields"]


@dataclass(frozen=True, kw_only=True)
class Found:
    """Hold the fields of a run.

    entries: by slide, then field, in natural order (img2 before img10). A folder that cannot be
        listed has a Decoded with its error here, so that it gets its row.
    passed_over: what was not taken, by kind.
    """

    entries: list[Entry]
    passed_over: PassedOver


def find_fields(
    inputs: Sequence[Path],
    *,
    out: Path | None = None,
    result_files: Collection[str] = (),
    holds_results: Callable[[Path], bool] = lambda folder: True,
) -> Found:
    """Find the images and whole slides of every INPUT, a file or a folder with its subfolders.

    Each folder that directly holds images is one slide, named by its path relative to INPUT; INPUT
    itself, and the folder of a file INPUT, by its own name. A file that is a whole slide
    (is_whole_slide) is a slide of its own, a SlideRef, and both its names are its path relative to
    INPUT. `field` is the path relative to INPUT. Both are POSIX paths with unprintable characters,
    undecodable bytes and backslashes escaped, so that names that differ stay different.

    Passed over are hidden files and folders, folders of the system or of a NAS, links to folders,
    further names of one file in a folder, and folders with results: `out`, and those that hold one
    of `result_files` if `holds_results` says so of them.

    Raises UsageError if an INPUT is missing or holds no image, if two INPUTs hold the same file, or
    if one slide name stands for two folders.
    """
    if not inputs:
        raise UsageError("INPUT is missing; give image files or folders of images")
    found: list[tuple[Path, Entry]] = []
    passed_over = PassedOver()
    is_out = _is_same(out)

    def is_results(folder: Path, files: Collection[str]) -> bool:
        named = any(name in files for name in result_files)
        return is_out(folder) or (named and holds_results(folder))

    for given in inputs:
        here = _search(given, is_results)
        found += [(given, entry) for entry in here.entries]
        passed_over.update(here.passed_over)
    _refuse_repeats(found)
    entries = sorted((entry for _, entry in found), key=lambda entry: field_order(entry_ref(entry)))
    return Found(entries=entries, passed_over=passed_over)


_IsResults = Callable[[Path, Collection[str]], bool]
"""Tell from a folder and the names of its files whether it holds results."""


def _is_same(folder: Path | None) -> Callable[[Path], bool]:
    """Tell whether a folder is this one, under whatever name."""
    try:
        status = None if folder is None else folder.stat()
    except (OSError, ValueError):
        status = None
    if status is None:
        return lambda other: False
    identity = (status.st_dev, status.st_ino)

    def is_it(other: Path) -> bool:
        try:
            found = other.stat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == identity

    return is_it


def _search(given: Path, is_results: _IsResults) -> Found:
    shown = printable(str(given))
    try:
        mode = given.stat().st_mode
    except FileNotFoundError as error:
        raise UsageError(f"INPUT {shown} does not exist; check its name") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"INPUT {shown} cannot be read: {_reason(error)}") from error
    if stat.S_ISREG(mode):
        slide, name = _escape(_own_name(given.parent)), _escape(given.name)
        entry = _entry(slide=slide, field=name, path=given)
        return Found(entries=[entry], passed_over=PassedOver())
    if not stat.S_ISDIR(mode):
        raise UsageError(f"INPUT {shown} is neither a file nor a folder; give one of these")
    found = _search_folder(given, is_results)
    if not found.entries:
        over = found.passed_over
        kinds = "".join(f"; {line}" for line in over.lines())
        raise UsageError(
            f"INPUT {shown} holds no image ({' '.join(IMAGE_SUFFIXES)}) and no slide "
            f"({' '.join(SLIDE_SUFFIXES)}); files and folders passed over: {over.count}{kinds}"
        )
    return found


def _search_folder(folder: Path, is_results: _IsResults) -> Found:
    entries: list[Entry] = []
    passed_over = PassedOver()
    failures: list[OSError] = []
    for parent, subfolders, files in os.walk(folder, onerror=failures.append):
        here = Path(parent)
        relative = here.relative_to(folder)
        if is_results(here, files):
            passed_over.add_results(relative.as_posix() if relative.parts else _own_name(folder))
            subfolders.clear()
            continue
        images = _images(here, files, passed_over)
        subfolders[:] = _searched(here, subfolders, passed_over)
        slide = _escape(relative.as_posix() if relative.parts else _own_name(folder))
        entries += [
            _entry(slide=slide, field=_escape((relative / name).as_posix()), path=here / name)
            for name in images
        ]
    for failure in failures:
        path = Path(failure.filename)
        if path == folder:
            raise UsageError(
                f"INPUT {printable(str(folder))} cannot be listed: {_reason(failure)}; make it "
                "readable"
            ) from failure
        name = _escape(path.relative_to(folder).as_posix())
        message = f"{name}: this folder cannot be listed: {_reason(failure)}; make it readable"
        entries.append(Decoded(ref=FieldRef(slide=name, field=name, path=path), error=message))
    return Found(entries=entries, passed_over=passed_over)


def _images(folder: Path, files: Sequence[str], passed_over: PassedOver) -> list[str]:
    """Return the images of a folder, each file once, and count the others."""
    parts = _slide_parts(folder, files)
    images = []
    for name in files:
        if name.startswith("."):
            passed_over.add_other("hidden")
        elif name in parts:
            passed_over.add_other("parts of a slide")
        elif name.lower().endswith(IMAGE_SUFFIXES + SLIDE_SUFFIXES):
            images.append(name)
        else:
            passed_over.add_file(name)
    further = same_files([folder / name for name in sorted(images)])
    for link, target in further.items():
        passed_over.add_link(link.name, target.name)
    return [name for name in images if folder / name not in further]


def _searched(folder: Path, subfolders: Sequence[str], passed_over: PassedOver) -> list[str]:
    """Return the subfolders that are to be searched, and count the others."""
    kept = []
    for name in subfolders:
        if is_system_folder(name):
            passed_over.add_system(name)
        elif name.startswith("."):
            passed_over.add_other("hidden")
        elif (folder / name).is_symlink():
            passed_over.add_other("links to folders")
        else:
            kept.append(name)
    return kept


def _refuse_repeats(found: Sequence[tuple[Path, Entry]]) -> None:
    resolved: dict[Path, Path] = {}
    files: dict[Path, Path] = {}
    slides: dict[str, tuple[Path, Path]] = {}
    for given, entry in found:
        ref = entry_ref(entry)
        parent = ref.path if isinstance(entry, Decoded) else ref.path.parent
        if parent not in resolved:
            resolved[parent] = parent.resolve()
        folder = resolved[parent]
        file = folder / ref.path.name
        if file in files:
            raise UsageError(
                f"{printable(str(file))} is given twice, by INPUT {printable(str(files[file]))} "
                f"and by INPUT {printable(str(given))}; leave one of them out"
            )
        files[file] = given
        other, other_given = slides.setdefault(ref.slide, (folder, given))
        if other != folder:
            raise UsageError(
                f"slide name {ref.slide!r} stands for two folders, {printable(str(other))} (INPUT "
                f"{printable(str(other_given))}) and {printable(str(folder))} (INPUT "
                f"{printable(str(given))}); give the folder above both as one INPUT, or rename one"
            )


def _entry(*, slide: str, field: str, path: Path) -> FieldRef:
    if is_whole_slide(path):
        return SlideRef(slide=field, field=field, path=path)
    return FieldRef(slide=slide, field=field, path=path)


def _slide_parts(folder: Path, files: Sequence[str]) -> set[str]:
    """Return files that are parts of a slide in several: named in a .vms or .vmu, or further ones
    of a DICOM series.
    """
    named: set[str] = set()
    series: set[str] = set()
    for name in sorted(files):
        if name.lower().endswith(".dcm"):
            header = dicom_header(folder / name)
            if header is not None and (header.series in series or not header.is_level):
                named.add(name)
            elif header is not None:
                series.add(header.series)
        if name.lower().endswith((".vms", ".vmu")):
            try:
                named.update(named_parts(folder / name))
            except (ImageError, OSError):  # comes up when the slide is opened
                continue
    return named


def _own_name(folder: Path) -> str:
    """Return a folder's name, even if it is given as '.' or '..'."""
    if folder.name in ("", ".."):
        folder = folder.resolve()
    return folder.name or folder.as_posix()


def _escape(path: str) -> str:
    return printable(path.replace("\\", "\\\\"))


def _reason(error: OSError | ValueError) -> str:
    return printable(getattr(error, "strerror", None) or str(error))
