"""The journal of a live run: what it gives back, however it was cut short."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from rbc_engine.errors import OutputError
from rbc_engine.sinks.journal.live_journal import LiveJournal, read_live_journal
from rbc_engine.sinks.out_folder import claim
from rbc_engine.sinks.own_files import LIVE_JOURNAL
from rbc_engine.types.ends import Ended, FrameStatus


@pytest.fixture
def ends(make_result, make_failure):
    results = [make_result(field=f"{i}", count=i) for i in range(4)]
    done = [
        Ended(number=i, status=FrameStatus.DONE, slide="s", field=f"{i}", result=result)
        for i, result in enumerate(results)
    ]
    failed = Ended(
        number=4,
        status=FrameStatus.FAILED,
        slide="s",
        field="bad\udce4",
        cause="x",
        result=make_failure(),
    )
    return [
        *done,
        failed,
        Ended(number=5, status=FrameStatus.STALE, slide="s", field="old", cause="too old"),
    ]


def write(folder, ends):
    with LiveJournal(claim(folder), {"run": {"x": 1}}) as journal:
        for ended in ends:
            journal.write(ended)
        journal.note_lost(3)
        journal.note_lost(3)


def test_what_is_written_is_read(tmp_path, ends):
    write(tmp_path, ends)
    head, read = read_live_journal(tmp_path, types=3)
    assert head["run"] == {"x": 1}
    *got, lost = list(read)
    assert lost == 3
    assert [(e.number, e.status, e.cause) for e in got] == [
        (e.number, e.status, e.cause) for e in ends
    ]
    for mine, theirs in zip(ends[:4], got, strict=False):
        for name in ("boxes", "scores", "probabilities", "has", "abnormal_p", "abnormal", "flags"):
            np.testing.assert_array_equal(
                getattr(mine.result.regions, name), getattr(theirs.result.regions, name)
            )
        assert theirs.result.path == mine.result.path
    assert got[4].result.error == "bad.jpg: damaged"
    assert got[4].field == "bad\\udce4"


def test_cut_anywhere_it_gives_what_is_whole(tmp_path, ends):
    write(tmp_path, ends)
    path = tmp_path / LIVE_JOURNAL
    whole = path.read_bytes()
    counts = []
    for length in range(60, len(whole), 37):
        path.write_bytes(whole[:length])
        counts.append(sum(1 for _ in read_live_journal(tmp_path, types=3)[1]))
    assert counts == sorted(counts)
    assert counts[0] == 0
    assert counts[-1] >= len(ends) - 1


def test_damage_ends_the_reading(tmp_path, ends):
    write(tmp_path, ends)
    path = tmp_path / LIVE_JOURNAL
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.integers(60, len(whole), 60).tolist():
        damaged = bytearray(whole)
        damaged[position] ^= 0x41
        path.write_bytes(damaged)
        got = list(read_live_journal(tmp_path, types=3)[1])
        assert len(got) < len(ends) + 1  # undamaged: every end, and the frames lost


@pytest.mark.parametrize("header", [b"[]", b'{"status": 5}', b'{"slide": 1, "seconds": 2}', b"x"])
def test_records_that_do_not_fit_end_the_reading(tmp_path, ends, header):
    write(tmp_path, ends)
    body = len(header).to_bytes(4, "little") + header + b"123"
    record = b"RBCJ" + len(body).to_bytes(4, "little") + zlib.crc32(body).to_bytes(4, "little")
    with (tmp_path / LIVE_JOURNAL).open("ab") as file:
        file.write(record + body)
    assert len(list(read_live_journal(tmp_path, types=3)[1])) == len(ends) + 1


def test_another_number_of_types_is_not_misread(tmp_path, ends):
    write(tmp_path, ends)
    got = list(read_live_journal(tmp_path, types=4)[1])
    assert len(got) == 1  # the field without regions


def test_missing_foreign_and_open_journals_are_refused(tmp_path):
    with pytest.raises(OutputError, match=LIVE_JOURNAL):
        read_live_journal(tmp_path)
    (tmp_path / LIVE_JOURNAL).write_bytes(b"something else")
    with pytest.raises(OutputError, match="not a journal that this version reads"):
        read_live_journal(tmp_path)
    with (
        LiveJournal(claim(tmp_path, "overwrite"), {}),
        pytest.raises(OutputError, match="still being written"),
    ):
        read_live_journal(tmp_path)
    assert read_live_journal(tmp_path)[0]["schema"] == 3
