"""What a session gives back once it takes no more frames."""

from __future__ import annotations


def fields(session):
    session.finish()
    return [ended.field for ended in session.results()]


def by_field(session):
    session.finish()
    return {ended.field: ended for ended in session.results()}
