"""Damage bytes a little, as transmission does, or as somebody would who knows the formats."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable

__all__ = ["mutant"]

_EDGES = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    1 << 40,
    1 << 63,
)
_WORDS = (
    b"0", b"-1", b"1e999", b"nan", b"inf", b"9" * 20, b"9" * 5000, b"true", b"null", b'""', b"[]", b"{}",
    b"\\u001b[2J", b"\\ud800", b"../x", b"/dev/zero", b"[[[[[[[[", b"\xff\xfe",
)  # fmt: skip
_NUMBER = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?(?:e-?[0-9]+)?")


def _flip(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _edge(data: bytearray, rng: random.Random) -> None:
    size = rng.choice((1, 2, 4, 8))
    at = rng.randrange(len(data))
    value = rng.choice(_EDGES) & ((1 << 8 * size) - 1)
    data[at : at + size] = value.to_bytes(size, rng.choice(("little", "big")))


def _near(data: bytearray, rng: random.Random) -> None:
    """Change a number by a little."""
    at = rng.randrange(len(data))
    if at + 2 <= len(data):
        (value,) = struct.unpack_from("<H", data, at)
        struct.pack_into("<H", data, at, value + rng.randrange(-4, 5) & 0xFFFF)


def _cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def _remove(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.choice((1, 2, 4, 16, 100))]


def _repeat(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    part = data[at : at + rng.choice((1, 4, 16, 200))]
    to = rng.randrange(len(data))
    data[to:to] = bytes(part) * rng.choice((1, 2, 50))


def _copy(data: bytearray, rng: random.Random) -> None:
    size = rng.choice((1, 2, 4, 12, 64))
    at, to = rng.randrange(len(data)), rng.randrange(len(data))
    part = bytes(data[at : at + size])
    data[to : to + len(part)] = part


def _word(data: bytearray, rng: random.Random) -> None:
    """Put an odd word in place of a number, where there is text; else anywhere."""
    found = list(_NUMBER.finditer(bytes(data[: 1 << 16])))
    word = rng.choice(_WORDS)
    if found:
        one = rng.choice(found)
        data[one.start() : one.end()] = word
    else:
        at = rng.randrange(len(data))
        data[at : at + len(word)] = word


_BINARY: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip, _flip, _flip, _edge, _edge, _near, _near, _copy, _cut, _remove, _repeat,
)  # fmt: skip
_TEXT = (_word, _word, _word, _word, _word, _word, _flip, _copy, _remove, _cut)


def mutant(seed: bytes, rng: random.Random, *, text: bool) -> bytes:
    """Return a damaged copy. text: of JSON, TOML or CSV."""
    head = bytearray(seed)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if head:
            rng.choice(_TEXT if text else _BINARY)(head, rng)
    return bytes(head)
