"""Keep pictures for a page that must stay small: the best of each group, shared evenly under a
budget of bytes.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Hashable, Iterator
from typing import Generic, NamedTuple, TypeVar

__all__ = ["Stock"]

Group = TypeVar("Group", bound=Hashable)
Item = TypeVar("Item")


class _Held(NamedTuple):
    rank: float
    serial: int
    size: int
    item: object


class Stock(Generic[Group, Item]):
    """Keep, of every group, the items with the lowest ranks.

    Whenever the sizes add up to more than the budget, the group with the most items gives up its
    worst one. So memory is bounded by the budget whatever the number of items, and groups with few
    items keep them.
    """

    def __init__(self, *, budget_bytes: int, most: int | None = None) -> None:
        """Start empty. most: largest number of items per group."""
        self._budget_bytes = budget_bytes
        self._most = most
        self._bytes = 0
        self._serial = 0
        self._held: dict[Group, list[_Held]] = {}
        self._bar: dict[Group, float] = {}
        self._groups_of: dict[int, dict[Group, None]] = {}
        self._largest = 0

    def wants(self, group: Group, rank: float) -> bool:
        """Return whether an item would be kept: no better one of the group was given up before."""
        held = self._held.get(group, [])
        if self._most is not None and len(held) >= self._most and rank >= held[-1].rank:
            return False
        return rank < self._bar.get(group, float("inf"))

    def add(self, group: Group, rank: float, item: Item, *, size: int) -> None:
        """Add an item, unless the stock does not want it. size: bytes."""
        if not self.wants(group, rank):
            return
        held = self._held.setdefault(group, [])
        insort(held, _Held(rank, self._serial, size, item))
        self._serial += 1
        self._bytes += size
        self._moved(group, len(held) - 1)
        if self._most is not None and len(held) > self._most:
            self._give_up(group)
        while self._bytes > self._budget_bytes and self._largest:
            self._give_up(next(reversed(self._groups_of[self._largest])))

    def of(self, group: Group) -> Iterator[Item]:
        """Yield the items of a group, lowest rank first."""
        for held in self._held.get(group, []):
            yield held.item  # type: ignore[misc]

    def _give_up(self, group: Group) -> None:
        held = self._held[group]
        worst = held.pop()
        self._bytes -= worst.size
        self._bar[group] = min(worst.rank, self._bar.get(group, worst.rank))
        self._moved(group, len(held) + 1)

    def _moved(self, group: Group, before: int) -> None:
        """Record a group whose number of items changed."""
        if before:
            del self._groups_of[before][group]
        now = len(self._held[group])
        if now:
            self._groups_of.setdefault(now, {})[group] = None
        self._largest = max(self._largest, now)
        while self._largest and not self._groups_of.get(self._largest):
            self._largest -= 1
