"""The house as it stands: imports between modules, the floor of every room, and the picture.

    python tests/house.py      # draws docs/architecture.svg anew

Reads the sources and imports none of them. An import counts wherever it stands: in a function, for
types only, or as a module's name in a string, which `import_module` takes.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PICTURE = REPOSITORY / "docs" / "architecture.svg"

FACE = "rbc_engine"
"""The public face: its names are imported at their first use, from all floors."""

FOLDERS = {
    "engine": FACE,
    "training": "rbc_engine.training",
    "calibration": "rbc_engine.calibration",
    "bench": "rbc_engine.bench",
}

FLOORS: tuple[Mapping[str, str], ...] = (
    {"__main__": "python -m rbc_engine", "cli": "one file a command; the terminal"},
    {
        "bench": "speed, peers, studies",
        "training": "data sets, networks, fit, packs",
        "calibration": "lower precisions",
    },
    {"runs": "run, live, resume, recall, compare"},
    {
        "engine": "open, analyze, run, session",
        "session": "frames in, five outcomes out",
        "sources": "images, slides, cameras",
        "sinks": "tables, formats, report, journal",
    },
    {"lanes": "batches in flight, and the stages of one"},
    {"devices": "memory, networks, ops: CPU, GPU"},
    {"packs": "the model pack, checked", "stats": "counts, intervals, match, drift"},
    {"types": "frames, results, outcomes", "naming": "arguments or options, in errors"},
    {
        "errors": "what can go wrong",
        "text": "names made printable",
        "closing": "with blocks",
        "libraries": "what may be missing",
        "meter": "where the time goes",
        "_kernels": "C++ and CUDA: kernels/",
    },
)
"""Floors, top down, with their rooms and what each is for.

A room imports from the floors below it, and from itself.
"""

SIDEWAYS = {
    ("__main__", "cli"),
    ("bench", "training"),
    ("engine", "session"),
    ("sources", "session"),
}
"""The imports between rooms of one floor that there may be."""


@dataclass(frozen=True)
class Import:
    """One module imports another. Both by their full names."""

    importer: str
    imported: str
    path: Path
    line: int

    def __str__(self) -> str:
        return f"{self.path.relative_to(REPOSITORY)}:{self.line} imports {self.imported}"


def floor_of(room: str) -> int:
    """Counts from the top. Raises KeyError for a room that FLOORS lacks."""
    for number, floor in enumerate(FLOORS):
        if room in floor:
            return number
    raise KeyError(room)


def room_of(module: str) -> str:
    """The room of a module: the first name below rbc_engine, '' for the face itself."""
    return (*module.split("."), "")[1]


@cache
def modules() -> Mapping[str, Path]:
    """Every Python module of the package, by its full name."""
    found = {}
    for folder, package in FOLDERS.items():
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            parts = path.relative_to(REPOSITORY / folder).with_suffix("").parts
            found[".".join((package, *(part for part in parts if part != "__init__")))] = path
    return found


@cache
def imports() -> tuple[Import, ...]:
    """Every import of one module of the package by another, in order."""
    known = {*modules(), "rbc_engine._kernels"}
    found = []
    for importer, path in modules().items():
        for line, imported in sorted(set(_imported(importer, path, known))):
            if imported != importer:
                found.append(Import(importer, imported, path, line))
    return tuple(found)


def _imported(importer: str, path: Path, known: set[str]) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = importer.split(".")
            if path.name != "__init__.py":
                package.pop()
            package = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join((*package, *filter(None, [node.module])))
            names = [f"{source}.{alias.name}" for alias in node.names]
            names = [name if name in known else source for name in names]
        elif isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
            room = str(node.values[0].value).rpartition(".")[0]
            names = [name for name in known if room and name.rpartition(".")[0] == room]
        elif isinstance(node, ast.Constant) and node.value != FACE:
            names = [str(node.value)]
        yield from ((node.lineno, name) for name in names if name in known)


def circle(arrows: Iterable[tuple[str, str]]) -> list[str]:
    """Some circle of a graph, its first name again at its end; empty if there is none."""
    after: dict[str, list[str]] = {}
    for begin, end in arrows:
        after.setdefault(begin, []).append(end)
    done: set[str] = set()
    trail: list[str] = []

    def visit(name: str) -> list[str]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in done:
            return []
        trail.append(name)
        for following in after.get(name, ()):
            if found := visit(following):
                return found
        done.add(trail.pop())
        return []

    return next(filter(None, map(visit, sorted(after))), [])


def room_arrows() -> set[tuple[str, str]]:
    """Which room imports which. The face's own imports are left out."""
    pairs = ((room_of(found.importer), room_of(found.imported)) for found in imports())
    return {(begin, end) for begin, end in pairs if begin != end and begin and end}


# ---- the picture ----

_WIDTH, _FLOOR_HEIGHT, _MARGIN, _GAP = 1180, 96, 24, 22
_BOX_WIDTH, _BOX_HEIGHT = 260, 54
_NAMES = (
    ("the command line",),
    ("what is made", "and measured with it"),
    ("whole runs",),
    ("frames in,", "results out"),
    ("work",),
    ("hardware",),
    ("models, numbers",),
    ("words",),
    ("the ground,", "open to all floors"),
)


def picture() -> str:
    """The floors with their rooms, and the imports between them, as an SVG.

    Left out are arrows that follow from others (what runs imports, cli may too), and those to the
    ground floor.
    """
    boxes: dict[str, tuple[float, float, float]] = {}
    left = 190
    floors, rooms, texts = [], [], []
    for number, floor in enumerate(FLOORS):
        top = _MARGIN + number * _FLOOR_HEIGHT
        floors.append(
            f'<rect class="floor" x="{_MARGIN}" y="{top - 10}" width="{_WIDTH - 2 * _MARGIN}" '
            f'height="{_BOX_HEIGHT + 20}" rx="8"/>'
        )
        for line, words in enumerate(_NAMES[number]):
            texts.append(
                f'<text class="floor" x="{_MARGIN + 14}" '
                f'y="{top + 31 + 16 * line - 8 * (len(_NAMES[number]) - 1)}">{escape(words)}</text>'
            )
        space = (_WIDTH - left - _MARGIN) / len(floor)
        width = min(_BOX_WIDTH, space - _GAP)
        for place, (room, purpose) in enumerate(floor.items()):
            x = left + (place + 0.5) * space - width / 2
            boxes[room] = (x, top, width)
            rooms.append(
                f'<rect class="room" x="{x:.0f}" y="{top}" width="{width:.0f}" '
                f'height="{_BOX_HEIGHT}" rx="5"/>'
            )
            middle = x + width / 2
            texts.append(
                f'<text class="room" x="{middle:.0f}" y="{top + 23}">{escape(room)}</text>'
            )
            texts.append(f'<text x="{middle:.0f}" y="{top + 42}">{escape(purpose)}</text>')
    arrows = sorted(pair for pair in _needed(room_arrows()) if pair[1] not in FLOORS[-1])
    lines = [_line(boxes, begin, end, arrows) for begin, end in arrows]
    height = 2 * _MARGIN + (len(FLOORS) - 1) * _FLOOR_HEIGHT + _BOX_HEIGHT
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
            f'width="{_WIDTH}" height="{height}">',
            "<!-- Made by tests/house.py from the imports. Do not edit: run `python "
            "tests/house.py`. -->",
            "<title>The rooms of rbc_engine, floor by floor, with their imports</title>",
            "<defs><marker id='head' viewBox='0 0 10 10' refX='9' refY='5' markerWidth='7' "
            "markerHeight='7' orient='auto'><path d='M0 0 10 5 0 10z' "
            "fill='#42526e'/></marker></defs>",
            "<style>",
            "text { font: 12px sans-serif; fill: #42526e; text-anchor: middle }",
            "text.room { font: bold 15px monospace; fill: #10243e }",
            "text.floor { text-anchor: start; font-style: italic }",
            "rect.floor { fill: #f3f5f8 } rect.room { fill: #ffffff; stroke: #8696ad }",
            "path.arrow { fill: none; stroke: #42526e; stroke-width: 1.2; marker-end: url(#head) }",
            "</style>",
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            *floors,
            *lines,
            *rooms,
            *texts,
            "</svg>",
            "",
        ]
    )


def _needed(arrows: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The arrows that do not follow from others."""
    after: dict[str, set[str]] = {}
    for begin, end in arrows:
        after.setdefault(begin, set()).add(end)

    def reached(begin: str) -> set[str]:
        here = after.get(begin, set())
        return here.union(*map(reached, here))

    return {
        (begin, end)
        for begin, end in arrows
        if not any(end in reached(other) for other in after[begin] - {end})
    }


def _line(
    boxes: Mapping[str, tuple[float, float, float]],
    begin: str,
    end: str,
    arrows: list[tuple[str, str]],
) -> str:
    """An arrow, from its own place on the edge of one box to its own place on that of the other."""
    (x0, y0, width0), (x1, y1, width1) = boxes[begin], boxes[end]
    if y0 == y1:
        ends = (x0 + width0, x1) if x1 > x0 else (x0, x1 + width1)
        return f'<path class="arrow" d="M{ends[0]:.0f} {y0 + _BOX_HEIGHT / 2:.0f}H{ends[1]:.0f}"/>'
    middles = {room: x + width / 2 for room, (x, _, width) in boxes.items()}
    outs = sorted((e for b, e in arrows if b == begin and boxes[e][1] != y0), key=middles.get)
    ins = sorted((b for b, e in arrows if e == end and boxes[b][1] != y1), key=middles.get)
    a = x0 + width0 * (outs.index(end) + 1) / (len(outs) + 1)
    b = x1 + width1 * (ins.index(begin) + 1) / (len(ins) + 1)
    top, bottom = y0 + _BOX_HEIGHT, y1
    bend = min(60, (bottom - top) / 2)
    return (
        f'<path class="arrow" d="M{a:.0f} {top}'
        f"C{a:.0f} {top + bend:.0f} {b:.0f} {bottom - bend:.0f} "
        f'{b:.0f} {bottom}"/>'
    )


if __name__ == "__main__":
    PICTURE.write_text(picture(), "utf-8")
    print(f"drew {PICTURE}")
