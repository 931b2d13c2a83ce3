"""`rbc-engine train` in this process."""

from __future__ import annotations

from typer.testing import CliRunner

from rbc_engine.cli.models.train import app
from rbc_engine.errors import UsageError


def train(*arguments: object):
    """The exception, if any, is result.exception."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments: object) -> str:
    exception = train(*arguments).exception
    assert isinstance(exception, UsageError), exception
    return str(exception)
