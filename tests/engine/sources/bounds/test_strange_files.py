"""Files that are not what their names say: pipes, files of the system, files that change."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rbc_engine.errors import ImageError
from rbc_engine.sources.bounds import regular_file
from rbc_engine.sources.bounds.regular_file import read_start, read_whole
from rbc_engine.sources.find import find_fields
from rbc_engine.sources.images.decode import read_bytes, read_stamped
from rbc_engine.sources.images.files import FileSource
from rbc_engine.sources.slides.open import is_whole_slide, open_slide
from rbc_engine.types.frames import FieldRef, FileStamp


def picture(path: Path, *, level: int = 200) -> Path:
    Image.new("RGB", (64, 48), (level, level, level)).save(path)
    return path


@pytest.mark.parametrize("name", ["a.jpg", "x.vms", "x.vmu", "x.svs", "x.mrxs", "x.tif"])
def test_a_pipe_is_refused_and_never_waited_for(tmp_path: Path, name: str):
    os.mkfifo(tmp_path / name)
    picture(tmp_path / "good.png")
    found = find_fields([tmp_path])
    assert len(found.entries) == 2
    with pytest.raises(ImageError, match="not a regular file"):
        read_bytes(tmp_path / name, name=name)
    with pytest.raises(ImageError, match="not a regular file"):
        open_slide(tmp_path / name, name=name)
    is_whole_slide(tmp_path / name)


@pytest.mark.parametrize("target", ["/dev/zero", "/dev/tty", "/proc/kmsg"])
def test_a_link_to_a_file_of_the_system_is_not_read_on_and_on(tmp_path: Path, target: str):
    link = tmp_path / "x.jpg"
    link.symlink_to(target)
    try:
        assert read_start(link, 16) == b""  # those of /proc say that they are empty
        assert read_whole(link, most_bytes=100)[0] == b""
    except (ImageError, OSError):
        pass
    with pytest.raises(ImageError):
        open_slide(link, name="x.jpg")


def test_parts_of_a_slide_are_looked_at_before_a_library_opens_them(tmp_path: Path):
    index = tmp_path / "x.vms"
    index.write_text("[Virtual Microscope Specimen]\nImageFile=../secret.jpg\n")
    with pytest.raises(ImageError, match="names a file elsewhere"):
        open_slide(index, name="x.vms")
    index.write_text("[Virtual Microscope Specimen]\nImageFile=part.jpg\n")
    os.mkfifo(tmp_path / "part.jpg")
    with pytest.raises(ImageError, match="part 'part.jpg' is not a regular file"):
        open_slide(index, name="x.vms")
    (tmp_path / "y.mrxs").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "y").mkdir()
    os.mkfifo(tmp_path / "y" / "Data0000.dat")
    with pytest.raises(ImageError, match=r"part 'Data0000\.dat' is not a regular file"):
        open_slide(tmp_path / "y.mrxs", name="y.mrxs")


def test_a_stamp_is_of_the_very_bytes_that_are_read(tmp_path: Path, monkeypatch):
    """The file is replaced by another one between the search and the reading, and once more later."""
    path = picture(tmp_path / "a.png", level=10)
    planned = FileStamp.of(path)
    picture(path, level=250)
    os.utime(path, ns=(1, 987654321))
    entry = FieldRef(slide="s", field="a.png", path=path)
    with FileSource([entry], workers=1, ahead=1) as source:
        [decoded] = source
    assert decoded.stamp == FileStamp(path.stat().st_size, 987654321) != planned
    assert decoded.frame is not None
    assert np.asarray(decoded.frame.pixels).max() == 250


@pytest.mark.parametrize("change", ["grows", "shrinks", "is touched"])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch, change: str):
    path = picture(tmp_path / "a.png")
    real = os.read

    def read(descriptor: int, count: int) -> bytes:
        if change == "grows":
            with path.open("ab") as file:
                file.write(b"more")
        elif change == "shrinks":
            os.truncate(path, 10)
        else:
            os.utime(path, ns=(5, 5))
        return real(descriptor, count)

    monkeypatch.setattr(regular_file.os, "read", read)
    with pytest.raises(ImageError, match=r"a\.png: the file was changed while it was read"):
        read_stamped(path, name="a.png")
