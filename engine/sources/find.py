"""Finds the fields and whole slides of a run: image files, and folders of them."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rbc_engine.errors import ImageError, UsageError
from rbc_engine.sources.base import Entry, entry_ref, field_order
from rbc_engine.sources.images.table import IMAGE_SUFFIXES
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
    skipped: how many files and folders were passed over: hidden ones, links to folders, files that
        are no images.
    """

    entries: list[Entry]
    skipped: int


def find_fields(inputs: Sequence[Path]) -> Found:
    """Find the images and whole slides of every INPUT, a file or a folder with its subfolders.

    Each folder that directly holds images is one slide, named by its path relative to INPUT; INPUT
    itself, and the folder of a file INPUT, by its own name. A file that is a whole slide
    (is_whole_slide) is a slide of its own, a SlideRef, and both its names are its path relative to
    INPUT. `field` is the path relative to INPUT. Both are POSIX paths with unprintable characters,
    undecodable bytes and backslashes escaped, so that names that differ stay different.

    Raises UsageError if an INPUT is missing or holds no image, if two INPUTs hold the same file, or
    if one slide name stands for two folders.
    """
    if not inputs:
        raise UsageError("INPUT is missing; give image files or folders of images")
    found: list[tuple[Path, Entry]] = []
    skipped = 0
    for given in inputs:
        here = _search(given)
        found += [(given, entry) for entry in here.entries]
        skipped += here.skipped
    _refuse_repeats(found)
    entries = sorted((entry for _, entry in found), key=lambda entry: field_order(entry_ref(entry)))
    return Found(entries=entries, skipped=skipped)


def _search(given: Path) -> Found:
    shown = printable(str(given))
    try:
        mode = given.stat().st_mode
    except FileNotFoundError as error:
        raise UsageError(f"INPUT {shown} does not exist; check its name") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"INPUT {shown} cannot be read: {_reason(error)}") from error
    if stat.S_ISREG(mode):
        slide, name = _escape(_own_name(given.parent)), _escape(given.name)
        return Found(entries=[_entry(slide=slide, field=name, path=given)], skipped=0)
    if not stat.S_ISDIR(mode):
        raise UsageError(f"INPUT {shown} is neither a file nor a folder; give one of these")
    found = _search_folder(given)
    if not found.entries:
        raise UsageError(
            f"INPUT {shown} holds no image ({' '.join(IMAGE_SUFFIXES)}) and no slide "
            f"({' '.join(SLIDE_SUFFIXES)}); files and folders passed over: {found.skipped}"
        )
    return found


def _search_folder(folder: Path) -> Found:
    entries: list[Entry] = []
    skipped = 0
    failures: list[OSError] = []
    for parent, subfolders, files in os.walk(folder, onerror=failures.append):
        here = Path(parent)
        relative = here.relative_to(folder)
        parts = _slide_parts(here, files)
        images = [name for name in files if _is_image(name) and name not in parts]
        kept = [
            name
            for name in subfolders
            if not name.startswith(".") and not (here / name).is_symlink()
        ]
        skipped += len(files) - len(images) + len(subfolders) - len(kept)
        subfolders[:] = kept
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
    return Found(entries=entries, skipped=skipped)


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


def _is_image(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES + SLIDE_SUFFIXES)


def _slide_parts(folder: Path, files: Sequence[str]) -> set[str]:
    """Return images that are parts of a slide in several files, named in a .vms or .vmu."""
    named: set[str] = set()
    for name in files:
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
