"""Finding the fields of a run and reading them: real files, real folders, real permissions."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rbc_engine.errors import UsageError
from rbc_engine.sources.find import find_fields
from rbc_engine.sources.images.files import FileSource
from rbc_engine.types.frames import Decoded, FieldRef


def save(path: Path, *, level: int = 128, size: tuple[int, int] = (40, 36)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, level, level)).save(path, "PNG")
    return path


def found_names(*inputs: Path) -> list[tuple[str, str]]:
    refs = [e.ref if isinstance(e, Decoded) else e for e in find_fields(inputs).entries]
    return [(ref.slide, ref.field) for ref in refs]


def read(entries: list[FieldRef | Decoded]) -> list[Decoded]:
    with FileSource(entries, workers=2, ahead=3) as source:
        return list(source)


def test_a_folder_of_images_is_one_slide(tmp_path):
    for name in ("img10.png", "img2.jpg", "IMG1.TIF", "img2b.webp"):
        save(tmp_path / "smear 7" / name)
    names = found_names(tmp_path / "smear 7")
    assert names == [("smear 7", f) for f in ("IMG1.TIF", "img2.jpg", "img2b.webp", "img10.png")]


def test_a_folder_of_folders_is_one_slide_each_named_by_its_path(tmp_path):
    root = tmp_path / "study"
    for name in ("s10/1.png", "s2/b/1.png", "s2/a.png", "s2/deep/er/1.png", "top.png"):
        save(root / name)
    assert found_names(root) == [
        ("s2", "s2/a.png"),
        ("s2/b", "s2/b/1.png"),
        ("s2/deep/er", "s2/deep/er/1.png"),
        ("s10", "s10/1.png"),
        ("study", "top.png"),
    ]


def test_a_file_belongs_to_the_slide_of_its_folder(tmp_path, monkeypatch):
    path = save(tmp_path / "smear" / "a.png")
    unusual = save(tmp_path / "smear" / "export.dat")  # its first bytes say that it is a PNG
    assert found_names(path, unusual) == [("smear", "a.png"), ("smear", "export.dat")]
    monkeypatch.chdir(tmp_path / "smear")
    assert found_names(Path("a.png")) == [("smear", "a.png")]
    assert found_names(Path()) == [("smear", "a.png")]
    assert found_names(Path("../smear/..")) == [("smear", "smear/a.png")]


def test_order_does_not_depend_on_the_file_system_or_the_inputs(tmp_path):
    names = [f"{s}{n}/{f}{n}.png" for s in "aB" for f in "xY٣" for n in (1, 2, 10, 11)]
    random.Random(1).shuffle(names)
    for name in names:
        save(tmp_path / "in" / name)
    slides = sorted((tmp_path / "in").iterdir())
    assert found_names(*slides) == found_names(*slides[::-1])
    found = found_names(tmp_path / "in")
    assert [s for s, _ in found][::3] == ["a1", "a2", "a10", "a11", "B1", "B2", "B10", "B11"]
    assert len(found) == len(names)


def test_what_is_passed_over_is_counted(tmp_path):
    root = tmp_path / "in"
    save(root / "a.png")
    save(root / ".hidden.png")
    save(root / ".thumbnails" / "a.png")
    save(tmp_path / "elsewhere" / "b.png")
    (root / "notes.txt").write_text("x")
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "loop").symlink_to(root)
    found = find_fields([root])
    assert [entry.path for entry in found.entries] == [root / "a.png"]
    assert found.passed_over.count == 5
    assert found.passed_over.lines() == [
        "passed over, no images by their endings: 1 .txt",
        "passed over: 2 hidden, 2 links to folders",
    ]


def test_an_input_may_be_a_link(tmp_path):
    save(tmp_path / "real" / "a.png")
    (tmp_path / "latest").symlink_to(tmp_path / "real")
    assert found_names(tmp_path / "latest") == [("latest", "a.png")]


def test_missing_or_empty_inputs_are_refused_by_name(tmp_path):
    save(tmp_path / "good" / "a.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    for name, expected in [
        ("absent", "does not exist"),
        ("good/a.png/b", "cannot be read"),
        ("null\0", "cannot be read"),
        ("empty", r"no image \(.*\.jpg .*passed over: 0"),
        ("texts", "passed over: 1"),
        ("pipe", "neither a file nor a folder"),
    ]:
        with pytest.raises(UsageError, match=expected) as caught:
            find_fields([tmp_path / "good", tmp_path / name])
        assert name.rstrip("\0") in str(caught.value)
        assert str(caught.value).isprintable()
    with pytest.raises(UsageError, match="INPUT is missing"):
        find_fields([])


def test_the_same_file_from_two_inputs_is_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "in" / "s1" / "a.png")
    (tmp_path / "alias").symlink_to(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    for first, second in [
        (path, path),
        (path, Path("in/s1/a.png")),
        (tmp_path / "in", path),
        (tmp_path / "in", tmp_path / "in/s1"),
        (tmp_path / "in", tmp_path / "alias"),
    ]:
        with pytest.raises(UsageError, match="given twice") as caught:
            find_fields([first, second])
        assert str(first) in str(caught.value)
        assert str(second) in str(caught.value)


@pytest.mark.parametrize("second_name", ["a.png", "b.png"])
def test_a_slide_name_for_two_folders_is_refused(tmp_path, second_name):
    """Also where no two fields share a name: two patients' cells would be counted as one
    slide's.
    """
    save(tmp_path / "day1" / "s1" / "a.png")
    save(tmp_path / "day2" / "s1" / second_name)
    inputs = [tmp_path / "day1", tmp_path / "day2"]
    with pytest.raises(UsageError, match="slide name 's1'") as caught:
        find_fields(inputs)
    assert all(str(given) in str(caught.value) for given in inputs)
    assert found_names(tmp_path) == [
        ("day1/s1", "day1/s1/a.png"),
        ("day2/s1", f"day2/s1/{second_name}"),
    ]


def test_odd_names_are_printable_distinct_and_readable(tmp_path):
    names = [
        b"with space.png",
        "Prüfung 涂片.png".encode(),
        b"new\nline.png",
        b"latin\xe9.png",
        rb"latin\xe9.png",
        rb"latin\udce9.png",
    ]
    for level, name in enumerate(names):
        save(Path(os.fsdecode(bytes(tmp_path / "in") + b"/" + name)), level=level)
    (tmp_path / "in").rename(os.fsdecode(bytes(tmp_path) + b"/in\xff"))
    (given,) = tmp_path.iterdir()
    entries = find_fields([given]).entries
    fields = [entry.field for entry in entries]
    assert {"with space.png", "Prüfung 涂片.png", "new\\nline.png"} < set(fields)
    assert len(set(fields)) == len(names)
    for entry in entries:
        (entry.slide + entry.field).encode("utf-8")
        assert (entry.slide + entry.field).isprintable()
    levels = sorted(int(decoded.frame.pixels[0, 0, 0]) for decoded in read(entries))
    assert levels == list(range(len(names)))


def test_frames_come_in_order_with_their_names(tmp_path):
    for index in range(30):
        save(tmp_path / "s" / f"f{index}.png", level=index)
    with FileSource(
        find_fields([tmp_path / "s"]).entries, workers=3, ahead=4, pixel_um=0.1
    ) as source:
        for index, decoded in enumerate(source):
            frame = decoded.frame
            assert decoded.error is None
            assert (frame.slide, frame.field, frame.pixel_um) == ("s", f"f{index}.png", 0.1)
            np.testing.assert_array_equal(frame.pixels, np.full((36, 40, 3), index, np.uint8))
            assert decoded.seconds > 0
    assert index == 29


def test_bad_files_have_their_error_and_stop_nothing(tmp_path):
    whole = save(tmp_path / "s" / "0 good.png").read_bytes()
    bad = {"1 empty.jpg": b"", "2 text.jpg": b"hello", "3 cut.png": whole[:60]}
    for name, data in bad.items():
        (tmp_path / "s" / name).write_bytes(data)
    (tmp_path / "s" / "4 nowhere.png").symlink_to(tmp_path / "absent.png")
    save(tmp_path / "s" / "5 tiny.png", size=(1, 1))
    os.mkfifo(tmp_path / "s" / "6 pipe.tif")  # opening it would wait for ever
    save(tmp_path / "s" / "7 good.png")
    results = read(find_fields([tmp_path / "s"]).entries)
    assert [decoded.error is None for decoded in results] == [True] + [False] * 6 + [True]
    for decoded in results[1:-1]:
        assert decoded.frame is None
        assert decoded.error.startswith(f"{decoded.ref.field}: ")


def test_many_bad_files_leave_no_thread_when_the_reader_stops(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    entries = [
        FieldRef(slide="s", field=f"{n}.png", path=tmp_path / "a.png") for n in range(20_000)
    ]
    before = threading.active_count()
    with FileSource(entries, workers=4, ahead=8) as source:
        for count, _ in enumerate(source):
            if count == 20:
                break
    assert threading.active_count() == before


UNPRIVILEGED = """
import os, pathlib, sys
from rbc_engine.sources.find import find_fields
from rbc_engine.sources.images.files import FileSource
from rbc_engine.errors import UsageError
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
root = pathlib.Path(sys.argv[1])
with FileSource(find_fields([root]).entries, workers=1, ahead=1) as source:
    for decoded in source:
        print(decoded.ref.slide, decoded.ref.field, decoded.error or "ok", sep="|")
try:
    find_fields([root / "locked"])
except UsageError as error:
    print(error)
"""


def test_unreadable_files_and_folders_get_their_row():
    """As an ordinary user: root may read everything."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "in"
        save(root / "s1" / "good.png")
        save(root / "s1" / "secret.png").chmod(0)
        save(root / "locked" / "a.png")
        Path(name).chmod(0o755)
        (root / "locked").chmod(0)
        try:
            run = subprocess.run(
                [sys.executable, "-c", UNPRIVILEGED, root],
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            (root / "locked").chmod(0o755)
    assert run.stderr == ""
    locked, good, secret, refused = run.stdout.splitlines()
    assert good == "s1|s1/good.png|ok"
    assert secret.startswith("s1|s1/secret.png|s1/secret.png: cannot be read: Permission denied")
    assert locked.startswith(
        "locked|locked|locked: this folder cannot be listed: Permission denied"
    )
    assert "locked cannot be listed: Permission denied" in refused
