"""docs/architecture.md is true: its picture is the one the imports make, its files exist, its
errors are those there are.
"""

from __future__ import annotations

import re
from pathlib import Path

from rbc_engine import errors

from .house import PICTURE, REPOSITORY, picture

MOST_FILES = 12
LONGEST = 100


def page(repository: Path) -> str:
    return (repository / "docs" / "architecture.md").read_text("utf-8")


def sources(kind: str) -> list[Path]:
    return [path for room in ("kernels", "tests") for path in (REPOSITORY / room).rglob(kind)]


def test_the_picture_is_that_of_the_imports() -> None:
    assert PICTURE.read_text("utf-8") == picture(), (
        "docs/architecture.svg shows other imports than there are: run `python tests/house.py`"
    )


def test_every_file_that_is_named_exists(repository: Path) -> None:
    folders = "engine|training|calibration|bench|kernels|tests|docs|examples"
    named = set(re.findall(rf"`((?:{folders})/[^`<>*]*)`", page(repository)))
    assert len(named) > 40
    missing = {name for name in named if "NAME" not in name and not (repository / name).exists()}
    assert not missing, f"docs/architecture.md names {sorted(missing)}, which are not there"


def test_the_path_of_a_field_is_short(repository: Path) -> None:
    steps = re.findall(r"^\| (\d+) \| `(engine/[\w/]+\.py)` \|", page(repository), re.MULTILINE)
    assert [int(number) for number, _ in steps] == list(range(1, len(steps) + 1))
    assert 0 < len({file for _, file in steps}) == len(steps) <= MOST_FILES


def test_the_tree_of_errors_is_theirs(repository: Path) -> None:
    tree = re.search(r"```text\n(RbcError\n.*?)```", page(repository), re.DOTALL)
    assert tree is not None
    above: list[type] = []
    drawn = set()
    for line in tree[1].splitlines():
        found = re.match(r"([│├└─ ]*)(\w+)", line)
        assert found is not None, line
        depth, error = len(found[1]) // 4, getattr(errors, found[2])
        above[depth:] = [error]
        drawn.add(found[2])
        assert error.__bases__[0] is (above[depth - 1] if depth else Exception), line
        assert (ValueError in error.__bases__) == ("(also a ValueError)" in line), line
    assert drawn == set(errors.__all__)


def test_lines_of_prose_are_short(repository: Path) -> None:
    """Ruff holds Python to the same length."""
    pages = [*repository.glob("*.md"), *repository.glob("docs/**/*.md")]
    kernels = [path for kind in ("*.h", "*.cpp", "*.cu", "*.cuh") for path in sources(kind)]
    assert len(pages) > 15
    assert len(kernels) > 50
    lines = [(path, line) for path in pages for line in path.read_text("utf-8").splitlines()]
    lines += [
        (path, line)
        for path in kernels
        for line in path.read_text("utf-8").splitlines()
        if "//" in line
    ]
    long = [f"{path.name}: {line}" for path, line in lines if len(line) > LONGEST]
    assert not long, "\n".join(long)
