"""The help of every command in a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from rbc_engine.cli import app


def commands(command: Any, name: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield name
    for each, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*name, each))


def found(name: tuple[str, ...]) -> Any:
    command: Any = typer.main.get_command(app)
    for each in name:
        command = command.commands[each]
    return command


@pytest.mark.parametrize("name", [*commands(typer.main.get_command(app))], ids=" ".join)
def test_help_cuts_nothing_at_80_columns(name: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, [*name, "--help"], env={"COLUMNS": "80"}, terminal_width=80)
    assert done.exit_code == 0
    assert "…" not in done.stdout
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    for parameter in found(name).params:
        for option in (*parameter.opts, *parameter.secondary_opts):
            if option.startswith("-"):
                assert option in done.stdout.replace(",", " ").split()
    for below in getattr(found(name), "commands", {}):
        [line] = [line for line in lines if line.startswith(f"  {below} ")]
        assert not line.endswith("...")
