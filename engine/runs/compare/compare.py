"""Compare two runs of the same smears: regions gained, lost and relabelled, and slides whose call
changed.

A is the earlier run, B the later one. Fields that both have done are compared; regions of a field
are the same if their boxes overlap with an IoU of at least 0.5. Types are compared by name, those
that both runs have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from rbc_engine.errors import ResultsError
from rbc_engine.runs.compare.pairing import pair_fields
from rbc_engine.runs.finished.finished_run import FieldRow, FinishedRun
from rbc_engine.stats.counts import SlideCounts, SlideTally
from rbc_engine.stats.grade import TypeShare, type_shares
from rbc_engine.stats.match import match_boxes
from rbc_engine.text import encodable
from rbc_engine.types.kinds import Kind
from rbc_engine.types.regions import Regions
from rbc_engine.types.results import FieldResult

__all__ = [
    "Change",
    "Comparison",
    "GradeDifference",
    "SlideDifference",
    "TypeDifference",
    "compare_runs",
    "no_overlap",
]

LEAST_IOU = 0.5
_MOST_RELABELLINGS = 1000

SlideVerdict = Callable[[SlideCounts, SlideCounts], str | None]
"""Return how the abnormal share of a slide in A and in B changed; None if it did not."""


def no_overlap(a: SlideCounts, b: SlideCounts) -> str | None:
    """Return whether the abnormal share is higher or lower now, if its 95 % intervals do not
    overlap.
    """
    if a.ci_low is None or a.ci_high is None or b.ci_low is None or b.ci_high is None:
        return None
    if a.ci_high < b.ci_low:
        return "higher"
    return "lower" if b.ci_high < a.ci_low else None


@dataclass(frozen=True, kw_only=True)
class Change:
    """Describe a region that is not the same in both runs.

    kind: gained (only in B), lost (only in A), relabelled (other types, or another kind), flipped
        (abnormal in one run only).
    region: its number in each run. box: x0 y0 x1 y1, px; of B if B has it.
    types, abnormal: in each run; None for a run without the region.
    """

    kind: str
    slide: str
    field: str
    region: tuple[int | None, int | None]
    box: tuple[float, float, float, float]
    iou: float | None
    types: tuple[str | None, str | None]
    abnormal: tuple[bool | None, bool | None]
    abnormal_p: tuple[float | None, float | None]


@dataclass(kw_only=True)
class TypeDifference:
    """Count the regions that hold a type in each run, and what became of them.

    kept: regions in both runs, with the type in both. gained, lost: regions in both, with it in B
    or A only.
    new, gone: regions with the type that only B or A has.
    """

    name: str
    a: int = 0
    b: int = 0
    kept: int = 0
    gained: int = 0
    lost: int = 0
    new: int = 0
    gone: int = 0


@dataclass(kw_only=True)
class RegionDifference:
    """Count the regions of A and of B, and what they have in common.

    to_abnormal, to_normal: regions in both whose call changed. relabelled: those whose types did.
    """

    a: int = 0
    b: int = 0
    matched: int = 0
    gained: int = 0
    lost: int = 0
    relabelled: int = 0
    to_abnormal: int = 0
    to_normal: int = 0


@dataclass(kw_only=True)
class GradeDifference:
    """Hold the grades of a type that both runs count as abnormal, on a slide. a, b: None without
    regions clear of the border.
    """

    name: str
    a: TypeShare | None
    b: TypeShare | None

    @property
    def changed(self) -> bool:
        """Return whether the grade changed; it did not if only one run has one."""
        if self.a is None or self.b is None or self.a.grades is None or self.b.grades is None:
            return False
        return self.a.grades.grade != self.b.grades.grade


@dataclass(kw_only=True)
class SlideDifference:
    """Hold the counts of a slide over the fields that both runs have done. verdict: how its
    abnormal share changed, or None.
    """

    slide: str
    fields: int
    regions: RegionDifference
    a: SlideCounts
    b: SlideCounts
    grades: list[GradeDifference]
    verdict: str | None


@dataclass(kw_only=True)
class Comparison:
    """Hold what compare.json holds, as types.

    renamed: fields that B has under another name, found by their image.
    other_images: fields compared whose image has another size in px or bytes in B.
    only_a, only_b: fields done in one run, and missing or failed in the other.
    types: in both runs. types_only_a, types_only_b: in one.
    ungraded: A, B, if the run does not state which types are abnormal, so that there are no grades
    to compare.
    relabellings: the commonest, (types in A, types in B) and how often.
    """

    fields: int = 0
    renamed: int = 0
    other_images: int = 0
    only_a: list[tuple[str, str, str]] = field(default_factory=list)
    only_b: list[tuple[str, str, str]] = field(default_factory=list)
    regions: RegionDifference = field(default_factory=RegionDifference)
    types: list[TypeDifference] = field(default_factory=list)
    types_only_a: list[str] = field(default_factory=list)
    types_only_b: list[str] = field(default_factory=list)
    ungraded: list[str] = field(default_factory=list)
    slides: list[SlideDifference] = field(default_factory=list)
    relabellings: list[tuple[str, str, int]] = field(default_factory=list)
    relabellings_left_out: int = 0


def compare_runs(
    a: FinishedRun,
    b: FinishedRun,
    *,
    on_change: Callable[[Change], object],
    slide_verdict: SlideVerdict = no_overlap,
) -> Comparison:
    """Compare field by field, in the order of A's tables; only the regions of a few row groups are
    in memory.

    on_change: called with every region that is not the same in both, in order.

    Raises ResultsError if a run turns out to be damaged, or no field is in both.
    """
    common = [name for name in a.types if name in b.types]
    graded = (a.abnormal_types or frozenset()) & (b.abnormal_types or frozenset())
    found = Comparison(
        types=[TypeDifference(name=name) for name in common],
        types_only_a=[name for name in a.types if name not in b.types],
        types_only_b=[name for name in b.types if name not in a.types],
        ungraded=[name for name, run in (("A", a), ("B", b)) if run.abnormal_types is None],
    )
    pairing = pair_fields(a, b)
    if not pairing.pairs:
        raise ResultsError(_nothing_in_common(a, b))
    found.fields, found.renamed = len(pairing.pairs), pairing.renamed
    found.only_a, found.only_b = pairing.only_a, pairing.only_b
    found.other_images = sum(_is_other_image(a.rows[at], b.rows[to]) for at, to in pairing.pairs)
    comparer = _Comparer(a.types, b.types, common, found, on_change)
    tallies = SlideTally(), SlideTally()
    by_slide: dict[str, RegionDifference] = {}
    for index_a, index_b in pairing.pairs:
        result_a = a.result(index_a)
        # B may call the slide otherwise: its counts stand beside those of A's.
        result_b = replace(b.result(index_b), slide=result_a.slide)
        for tally, result in zip(tallies, (result_a, result_b), strict=True):
            tally.add(result)
        difference = by_slide.setdefault(result_a.slide, RegionDifference())
        comparer.add(result_a, result_b, difference)
    for counts_a, counts_b in zip(tallies[0].rows(), tallies[1].rows(), strict=True):
        shares_a, shares_b = _shares(counts_a, a.types, graded), _shares(counts_b, b.types, graded)
        found.slides.append(
            SlideDifference(
                slide=counts_a.slide,
                fields=counts_a.fields,
                regions=by_slide[counts_a.slide],
                a=counts_a,
                b=counts_b,
                grades=[
                    GradeDifference(name=name, a=shares_a[name], b=shares_b[name])
                    for name in common
                    if name in graded
                ],
                verdict=slide_verdict(counts_a, counts_b),
            )
        )
    found.relabellings = [
        (*types, count) for types, count in comparer.relabellings.most_common(_MOST_RELABELLINGS)
    ]
    found.relabellings_left_out = len(comparer.relabellings) - len(found.relabellings)
    return found


def _shares(
    counts: SlideCounts, types: tuple[str, ...], graded: frozenset[str]
) -> dict[str, TypeShare | None]:
    return dict(zip(types, type_shares(counts, types, abnormal=graded), strict=True))


def _nothing_in_common(a: FinishedRun, b: FinishedRun) -> str:
    said = []
    for run in (a, b):
        done = [row for row in run.rows if row.ok]
        first = f", the first {encodable(done[0].field):.80}" if done else ""
        said.append(f"{encodable(str(run.folder))} has {len(done)} fields done{first}")
    return (
        f"no field is in both runs, neither by name nor by its image: {'; '.join(said)}; compare "
        "runs of the same images"
    )


def _is_other_image(a: FieldRow, b: FieldRow) -> bool:
    stamps_differ = a.stamp and b.stamp and a.stamp.bytes != b.stamp.bytes
    return bool(stamps_differ) or (a.width, a.height) != (b.width, b.height)


class _Comparer:
    """Add up the differences of fields."""

    def __init__(
        self,
        types_a: tuple[str, ...],
        types_b: tuple[str, ...],
        common: list[str],
        found: Comparison,
        on_change: Callable[[Change], object],
    ) -> None:
        self._types = types_a, types_b
        self._columns = [
            np.array([types.index(name) for name in common], np.intp)
            for types in (types_a, types_b)
        ]
        self._found = found
        self._on_change = on_change
        self.relabellings: Counter[tuple[str, str]] = Counter()

    def add(self, a: FieldResult, b: FieldResult, slide: RegionDifference) -> None:
        """Add a field that both have done. slide: the sums of its slide."""
        one, other = a.regions, b.regions
        assert one is not None
        assert other is not None
        in_a, in_b, iou = match_boxes(one.boxes, other.boxes, least_iou=LEAST_IOU)
        lost = np.setdiff1d(np.arange(len(one)), in_a)
        gained = np.setdiff1d(np.arange(len(other)), in_b)
        has_a, has_b = one.has[:, self._columns[0]], other.has[:, self._columns[1]]
        relabelled = (has_a[in_a] != has_b[in_b]).any(axis=1)
        relabelled |= one.kinds[in_a] != other.kinds[in_b]
        flipped = one.abnormal[in_a] != other.abnormal[in_b]
        to_abnormal = int((flipped & other.abnormal[in_b]).sum())
        for total in (slide, self._found.regions):
            total.a += len(one)
            total.b += len(other)
            total.matched += len(in_a)
            total.lost += len(lost)
            total.gained += len(gained)
            total.relabelled += int(relabelled.sum())
            total.to_abnormal += to_abnormal
            total.to_normal += int(flipped.sum()) - to_abnormal
        self._add_types(has_a, has_b, in_a, in_b, lost, gained)
        for index in lost.tolist():
            self._tell("lost", a, one, index, None, None, None)
        for pair in np.flatnonzero(relabelled | flipped).tolist():
            index_a, index_b = int(in_a[pair]), int(in_b[pair])
            kind = "relabelled" if relabelled[pair] else "flipped"
            self._tell(kind, a, one, index_a, other, index_b, float(iou[pair]))
        for index in gained.tolist():
            self._tell("gained", a, None, None, other, index, None)

    def _add_types(
        self,
        has_a: npt.NDArray[np.bool_],
        has_b: npt.NDArray[np.bool_],
        in_a: npt.NDArray[np.int64],
        in_b: npt.NDArray[np.int64],
        lost: npt.NDArray[np.int64],
        gained: npt.NDArray[np.int64],
    ) -> None:
        was, now = has_a[in_a], has_b[in_b]
        sums = {
            "a": has_a,
            "b": has_b,
            "kept": was & now,
            "gained": now & ~was,
            "lost": was & ~now,
            "new": has_b[gained],
            "gone": has_a[lost],
        }
        for name, holds in sums.items():
            for total, count in zip(self._found.types, holds.sum(axis=0).tolist(), strict=True):
                setattr(total, name, getattr(total, name) + count)

    def _tell(
        self,
        kind: str,
        named: FieldResult,
        one: Regions | None,
        index_a: int | None,
        other: Regions | None,
        index_b: int | None,
        iou: float | None,
    ) -> None:
        sides = ((one, index_a, self._types[0]), (other, index_b, self._types[1]))
        shown = [_shown(*side) for side in sides]
        (types_a, abnormal_a, p_a, _), (types_b, abnormal_b, p_b, _) = shown
        if kind == "relabelled":
            self.relabellings[types_a or "", types_b or ""] += 1
        box = shown[1][3] or shown[0][3]
        assert box is not None
        self._on_change(
            Change(
                kind=kind,
                slide=named.slide,
                field=named.field,
                region=(index_a, index_b),
                box=box,
                iou=iou,
                types=(types_a, types_b),
                abnormal=(abnormal_a, abnormal_b),
                abnormal_p=(p_a, p_b),
            )
        )


def _shown(regions: Regions | None, index: int | None, types: tuple[str, ...]) -> tuple[Any, ...]:
    """Return types joined by ';', or the kind if that is not red, abnormal, abnormal_p and box of a
    region; Nones for none.
    """
    if regions is None or index is None:
        return None, None, None, None
    kind = Kind(regions.kinds[index])
    held = ";".join(types[number] for number in np.flatnonzero(regions.has[index]).tolist())
    if kind is not Kind.RED:
        held = kind.label
    box = tuple(regions.boxes[index].tolist())
    return held, bool(regions.abnormal[index]), float(regions.abnormal_p[index]), box
