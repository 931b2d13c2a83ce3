"""What a search of INPUT passes over: folders of systems, of earlier results, links, endings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from rbc_engine.errors import UsageError
from rbc_engine.sources.copies import copy_notes
from rbc_engine.sources.find import Found, find_fields

RESULT_FILES = ("run.json", "run.journal")


def save(path: Path, *, level: int = 128) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 36), (level, level, level)).save(path, "PNG")
    return path


def names(found: Found) -> list[str]:
    return [entry.field for entry in found.entries]


@pytest.mark.parametrize(
    "folder",
    [
        *("@eaDir", "$RECYCLE.BIN", "$Recycle.Bin", "#recycle", "@Recycle", "#snapshot"),
        *("~snapshot", "System Volume Information", "__MACOSX", "lost+found", "RECYCLER"),
        *("FOUND.000", "@__thumb"),
    ],
)
def test_system_folders_are_passed_over_at_any_depth(tmp_path, folder):
    save(tmp_path / "s1" / "a.png")
    save(tmp_path / "s1" / folder / "a.png" / "THUMB_S.png")
    save(tmp_path / folder / "S-1-5-21" / "$R1.png")
    found = find_fields([tmp_path])
    assert names(found) == ["s1/a.png"]
    assert found.passed_over.count == 2
    assert found.passed_over.lines() == [
        f"passed over, folders of the system or of a NAS: {folder} (2)"
    ]


def test_a_system_folder_that_is_given_is_searched(tmp_path):
    save(tmp_path / "lost+found" / "a.png")
    assert names(find_fields([tmp_path / "lost+found"])) == ["a.png"]


@pytest.mark.parametrize("file", RESULT_FILES)
def test_folders_with_results_are_passed_over(tmp_path, file):
    save(tmp_path / "s1" / "a.png")
    save(tmp_path / "earlier" / "overlay" / "s1" / "a.png")
    (tmp_path / "earlier" / file).write_text("{}")
    found = find_fields([tmp_path], result_files=RESULT_FILES)
    assert names(found) == ["s1/a.png"]
    assert found.passed_over.lines() == ["passed over, folders with results of a run: earlier"]
    theirs = find_fields([tmp_path], result_files=RESULT_FILES, holds_results=lambda folder: False)
    assert len(names(theirs)) == 2, "a run.json of another program says nothing"
    with pytest.raises(UsageError, match="results of a run: earlier"):
        find_fields([tmp_path / "earlier"], result_files=RESULT_FILES)


def test_the_output_folder_is_never_input(tmp_path, monkeypatch):
    save(tmp_path / "in" / "a.png")
    save(tmp_path / "in" / "out" / "patches" / "a.png")
    (tmp_path / "alias").symlink_to(tmp_path / "in" / "out")
    monkeypatch.chdir(tmp_path / "in")
    for out in (tmp_path / "in" / "out", tmp_path / "alias", Path("out"), Path("../in/out")):
        assert names(find_fields([tmp_path / "in"], out=out)) == ["a.png"]
    assert len(names(find_fields([tmp_path / "in"], out=tmp_path / "none"))) == 2


def test_links_are_followed_once(tmp_path):
    save(tmp_path / "s" / "100.png")
    os.link(tmp_path / "s" / "100.png", tmp_path / "s" / "hard.png")
    (tmp_path / "s" / "1_link.png").symlink_to("100.png")
    save(tmp_path / "elsewhere.png", level=90)
    (tmp_path / "s" / "far.png").symlink_to(tmp_path / "elsewhere.png")
    (tmp_path / "s" / "further.png").symlink_to(tmp_path / "elsewhere.png")
    (tmp_path / "s" / "broken.png").symlink_to("nowhere.png")
    found = find_fields([tmp_path / "s"])
    assert names(found) == ["100.png", "broken.png", "far.png"]
    (line,) = found.passed_over.lines()
    for link in ("1_link.png (of 100.png)", "hard.png (of 100.png)", "further.png (of far.png)"):
        assert link in line


def test_copies_are_named_and_counted(tmp_path):
    for index, level in enumerate((10, 10, 10, 20)):
        save(tmp_path / "s" / f"{index}.png", level=level)
    save(tmp_path / "t" / "9.png", level=20)
    large = bytes(200_000)
    for name, middle in (("a", b"1"), ("b", b"2"), ("c", b"2")):
        (tmp_path / "t" / f"{name}.bmp").write_bytes(large + middle + large)
    found = find_fields([tmp_path])
    assert len(names(found)) == 8, "copies are run all the same"
    (note,) = copy_notes(found.entries)
    assert note.startswith("4 pictures are copies")
    for group in ("s/0.png = s/1.png = s/2.png", "s/3.png = t/9.png", "t/b.bmp = t/c.bmp"):
        assert group in note
    assert "t/a.bmp" not in note
    assert copy_notes(found.entries[:1]) == []


def test_endings_are_named_with_a_count(tmp_path, monkeypatch):
    # As without the extra `phones`, whatever is installed here.
    monkeypatch.setattr("rbc_engine.sources.find.IMAGE_SUFFIXES", (".jpg", ".jfif", ".jpe", ".dib"))
    for name in ("a.jpg", "b.JFIF", "c.jpe", "d.dib"):
        save(tmp_path / name)
    for name in ("1.HEIC", "2.heic", "3.txt", "README"):
        (tmp_path / name).write_bytes(b"x")
    found = find_fields([tmp_path])
    assert names(found) == ["a.jpg", "b.JFIF", "c.jpe", "d.dib"]
    (line,) = found.passed_over.lines()
    assert "2 .heic (export as JPEG" in line
    assert "1 .txt" in line
    assert "1 without an ending" in line
