"""Printing to any terminal, or to nobody: it never changes the exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

NAME = "ผู้ป่วย ๑ Müller"
SCRIPT = """
import sys
from pathlib import Path
from rbc_engine.cli.terminal.streams import escape_unprintable, print_json, printing
from rbc_engine.cli.terminal.summary import print_summary
from rbc_engine.stats.counts import SlideTally
from rbc_engine.types.results import FieldResult
escape_unprintable()
tally = SlideTally()
tally.add(FieldResult(slide=sys.argv[1], field="a", error="no picture"))
with printing():
    if sys.argv[2] == "json":
        print_json('{"slide": "%s"}' % sys.argv[1])
    else:
        print_summary(tally.rows(), [f"note of {sys.argv[1]}"], Path(sys.argv[1]))
        print("x" * 100_000)
print(f"rbc-engine: {sys.argv[1]}", file=sys.stderr)
sys.exit(3)
"""


def ran(form: str, encoding: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", SCRIPT, NAME, form]
    return subprocess.run(command, env=environment, check=False, stderr=subprocess.PIPE, **options)


@pytest.mark.parametrize("encoding", ["ascii", "latin1", "cp1252", "cp874", "utf-8", "utf-16"])
def test_names_that_a_terminal_lacks_are_escaped(encoding):
    done = ran("text", encoding, stdout=subprocess.PIPE)
    assert done.returncode == 3, done.stderr
    shown = done.stdout.decode(encoding)
    assert "results in" in shown
    if encoding in ("ascii", "latin1"):
        assert r"\u0e1c" in shown
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin1", "utf-8"])
def test_json_is_json_in_any_encoding(encoding):
    done = ran("json", encoding, stdout=subprocess.PIPE)
    assert done.returncode == 3
    assert json.loads(done.stdout.decode(encoding)) == {"slide": NAME}


def test_a_reader_that_has_gone_changes_nothing():
    reading, writing = os.pipe()
    os.close(reading)
    done = ran("text", "utf-8", stdout=writing)
    os.close(writing)
    assert done.returncode == 3, done.stderr
    assert b"Broken" not in done.stderr
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = ran("text", "utf-8", stdout=full)
    assert done.returncode == 3, done.stderr
