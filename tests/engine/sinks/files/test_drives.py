"""Drives without locks, or that refuse to sync a folder: the run goes on, and says so."""

from __future__ import annotations

import errno
import fcntl
import os
import stat

import pytest

from rbc_engine.errors import OutputError
from rbc_engine.sinks.files.atomic import AtomicFile
from rbc_engine.sinks.files.drive import NO_LOCKS, NO_SYNC, sync_folder
from rbc_engine.sinks.files.records import RecordReader, RecordWriter, lock_for_reading


@pytest.fixture
def no_locks(monkeypatch):
    def refuse(file, operation):
        raise OSError(refuse.errno, os.strerror(refuse.errno))

    refuse.errno = errno.ENOLCK
    monkeypatch.setattr(fcntl, "flock", refuse)
    return refuse


@pytest.fixture
def no_sync(monkeypatch):
    real = os.fsync

    def refuse(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(refuse.errno, os.strerror(refuse.errno))
        real(descriptor)

    refuse.errno = errno.EINVAL
    monkeypatch.setattr(os, "fsync", refuse)
    return refuse


def write(path) -> list[str]:
    with RecordWriter.create(path, {"a": 1}) as writer:
        writer.publish()
        writer.append({"b": 2}, b"data")
        notes = list(writer.notes)
    with path.open("rb") as file:
        lock_for_reading(path, file)
        reader = RecordReader(file)
        assert len(list(reader)) == 2
    with RecordWriter.reopen(path, end=reader.end) as writer:
        assert writer.notes == [note for note in notes if note == NO_LOCKS]
    return notes


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EACCES])
def test_without_locks(tmp_path, no_locks, number):
    no_locks.errno = number
    assert write(tmp_path / "journal") == [NO_LOCKS]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EPERM, errno.EBADF])
def test_without_sync_of_folders(tmp_path, no_sync, number):
    no_sync.errno = number
    assert write(tmp_path / "journal") == [NO_SYNC]
    file = AtomicFile(tmp_path / "table")
    file.write(b"x")
    file.finish()
    assert (tmp_path / "table").read_bytes() == b"x"


def test_a_drive_that_fails_is_no_drive_that_lacks_something(tmp_path, no_sync):
    for number in (errno.EIO, errno.ENOSPC):
        no_sync.errno = number
        with pytest.raises(OSError, match=os.strerror(number)):
            sync_folder(tmp_path)


def test_a_lock_that_is_held_is_in_the_way(tmp_path):
    assert write(tmp_path / "journal") == []
    path = tmp_path / "held"
    with RecordWriter.create(path, {}) as writer:
        writer.publish()
        with path.open("rb") as file, pytest.raises(OutputError, match="still being written"):
            lock_for_reading(path, file)
        with pytest.raises(OutputError, match="still being written"):
            RecordWriter.reopen(path, end=0)
