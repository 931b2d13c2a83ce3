"""The floors of the house, docs/architecture.md: imports go down, in no circle; rooms and files
stay of a size to be read.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from .house import (
    FACE,
    FLOORS,
    FOLDERS,
    REPOSITORY,
    SIDEWAYS,
    circle,
    floor_of,
    imports,
    modules,
    room_of,
)

MOST_MODULES = 12
"""Of a folder, its __init__ not counted: about a dozen. kernels/ is flat and holds no Python."""
MOST_IN_ROOT = 12
MOST_LINES = 400
SOURCES = (".py", ".pyi", ".h", ".cuh", ".cu", ".cpp")


def test_every_room_has_its_floor() -> None:
    rooms = {room_of(module) for module in modules() if module != FACE}
    known = {room for floor in FLOORS for room in floor}
    unknown = rooms - known
    assert not unknown, f"{sorted(unknown)} have no floor: add them to FLOORS in tests/house.py"
    gone = known - rooms - {"_kernels"}
    assert not gone, f"{sorted(gone)} are gone: take them out of FLOORS in tests/house.py"


def test_imports_go_down() -> None:
    wrong = []
    for found in imports():
        begin, end = room_of(found.importer), room_of(found.imported)
        if found.importer == FACE or begin == end or (begin, end) in SIDEWAYS:
            continue
        if found.imported == FACE:
            wrong.append(f"{found}: inside, a name is imported from the module that defines it")
        elif floor_of(begin) >= floor_of(end):
            way = "up" if floor_of(begin) > floor_of(end) else "sideways"
            wrong.append(
                f"{found}: {way}, from {begin} to {end}. Move what both need to a floor below, or "
                f"hand it in as an argument, typed by a protocol below"
            )
    assert not wrong, "\n".join(wrong)


def test_every_way_sideways_is_needed() -> None:
    taken = {(room_of(found.importer), room_of(found.imported)) for found in imports()}
    unused = SIDEWAYS - taken
    assert not unused, f"{sorted(unused)} are no longer needed: take them out of SIDEWAYS"


def test_no_two_modules_import_each_other() -> None:
    """By no way round, and whether an import is lazy, or for types only."""
    found = circle(
        (found.importer, found.imported) for found in imports() if found.importer != FACE
    )
    assert not found, (
        f"a circle: {' imports '.join(found)}. Join them, or move what they share to a module of "
        "its own"
    )


@pytest.mark.parametrize("package", sorted({name.rpartition(".")[0] for name in modules()} - {""}))
def test_no_two_rooms_import_each_other(package: str) -> None:
    """Nor two folders within a room: folders and modules side by side are in no circle either."""
    depth = package.count(".") + 2
    arrows = set()
    for found in imports():
        if all(name.startswith(f"{package}.") for name in (found.importer, found.imported)):
            begin, end = (
                ".".join(name.split(".")[:depth]) for name in (found.importer, found.imported)
            )
            if begin != end:
                arrows.add((begin, end))
    found = circle(arrows)
    why = [
        str(one)
        for one in imports()
        for begin, end in pairwise(found)
        if one.importer.startswith(begin) and one.imported.startswith(end)
    ]
    assert not found, f"a circle: {' imports '.join(found)}:\n" + "\n".join(why)


def test_rooms_are_of_a_size_to_be_seen() -> None:
    files = [path for path in modules().values() if path.name != "__init__.py"]
    files += [path for path in (REPOSITORY / "tests").rglob("*.py") if path.name != "__init__.py"]
    wrong = [
        f"{folder.relative_to(REPOSITORY)}/ holds {count} modules, more than {MOST_MODULES}: make "
        "a room in it"
        for folder, count in Counter(path.parent for path in files).items()
        if count > MOST_MODULES
    ]
    root = len(list((REPOSITORY / "engine").glob("*.py")))
    if root > MOST_IN_ROOT:
        wrong.append(
            f"engine/ holds {root} Python files, more than {MOST_IN_ROOT}: each has a room"
        )
    assert not wrong, "\n".join(wrong)


def test_files_are_of_a_length_to_be_read() -> None:
    wrong = []
    for folder in (*FOLDERS, "kernels", "tests", "examples"):
        for path in sorted((REPOSITORY / folder).rglob("*")):
            if path.suffix in SOURCES:
                lines = len(path.read_text("utf-8").splitlines())
                if lines > MOST_LINES:
                    wrong.append(
                        f"{path.relative_to(REPOSITORY)} has {lines} lines, more than "
                        f"{MOST_LINES}: cut it in two"
                    )
    assert not wrong, "\n".join(wrong)
