"""Make compare.html: a comparison of two runs as one page, without scripts or external content."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from rbc_engine.stats.grade import grade_text

__all__ = ["comparison_page"]

_MOST_ROWS = 1000
"""Most rows shown of fields that only one run has, and of relabellings; compare.json has all."""

_STYLE = """
:root { color-scheme: light dark; --line: #8888; --soft: #8882; --mark: #c2410c }
@media (prefers-color-scheme: dark) { :root { --mark: #fdba74 } }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.5rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
caption { text-align: left; padding: .3rem 0; max-width: 60rem }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top }
td, tbody th { min-width: 5rem; overflow-wrap: anywhere }
thead th { border-bottom-width: 2px }
td.n { min-width: 0; text-align: right; white-space: nowrap }
tr.changed { background: var(--soft) }
tr.changed .why { color: var(--mark); font-weight: 600 }
@media print { body { max-width: none; margin: 0; font-size: 9pt } details > * { display: block }
  tr { break-inside: avoid } thead { display: table-header-group } .scroll { overflow: visible } }
"""


def comparison_page(record: dict[str, Any]) -> str:
    """Return the page. record: of compare.json; everything in it of outside origin is escaped."""
    parts = [
        _summary(record),
        _slides(record["slides"]),
        _grades(record["slides"]),
        _types(record["types"]),
        _relabellings(record),
        _runs(record),
        _only(record["fields"]["only_a"], "A"),
        _only(record["fields"]["only_b"], "B"),
    ]
    title = f"{record['a']['folder']} and {record['b']['folder']} compared"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; style-src '
        "'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>Two runs compared</h1>\n{''.join(parts)}</main>\n</body>\n</html>\n"
    )


def _summary(record: dict[str, Any]) -> str:
    regions, slides = record["regions"], record["slides"]
    changed = sum(row["verdict"] is not None for row in slides)
    regraded = sum(any(each["changed"] for each in row["grades"]) for row in slides)
    flips = regions["to_abnormal"] + regions["to_normal"]
    lines = [
        f"{record['fields']['compared']:,} fields of {len(slides):,} slides are compared, with "
        f"{regions['a']:,} regions in A and {regions['b']:,} in B.",
        f"{regions['matched']:,} regions are in both (boxes that overlap with an IoU of at least "
        f"{record['least_iou']}): {regions['relabelled']:,} of them have other types now, "
        f"{flips:,} another call ({regions['to_abnormal']:,} abnormal now, "
        f"{regions['to_normal']:,} no longer).",
        f"{regions['gained']:,} regions are only in B, {regions['lost']:,} only in A.",
        f"The abnormal share of {changed:,} slides changed: its 95 % intervals do not overlap. On "
        f"{regraded:,} slides a type has another grade.",
    ]
    notes = "".join(f"<p><strong>Note:</strong> {escape(note)}.</p>\n" for note in record["notes"])
    return "".join(f"<p>{line}</p>\n" for line in lines) + notes


def _runs(record: dict[str, Any]) -> str:
    a, b = record["a"], record["b"]
    rows = [["folder", a["folder"], b["folder"]]]
    rows += [
        [key, _flat(a[key]), _flat(b[key])]
        for key in ("pack", "program", "backend", "precision", "decoder")
    ]
    rows += [
        [f"setting {key}", _flat(a["settings"].get(key)), _flat(b["settings"].get(key))]
        for key in {**a["settings"], **b["settings"]}
        if a["settings"].get(key) != b["settings"].get(key)
    ]
    if a["recalled_from"] or b["recalled_from"]:
        rows.append(["recalled from", _flat(a["recalled_from"]), _flat(b["recalled_from"])])
    return _table(
        "The runs",
        "Differences are marked; settings that are the same are omitted.",
        ["", "A", "B"],
        ([*row, row[1] != row[2]] for row in rows),
    )


def _slides(slides: Sequence[dict[str, Any]]) -> str:
    rows = (
        [
            row["slide"],
            row["fields"],
            row["regions"]["a"],
            row["regions"]["b"],
            row["regions"]["gained"],
            row["regions"]["lost"],
            row["regions"]["relabelled"],
            row["regions"]["to_abnormal"],
            row["regions"]["to_normal"],
            _share(row["abnormal_a"]),
            _share(row["abnormal_b"]),
            row["verdict"] or "",
            row["verdict"] is not None,
        ]
        for row in sorted(slides, key=lambda row: row["verdict"] is None)
    )
    heads = ["slide", "fields", "regions A", "regions B", "gained", "lost", "relabelled"]
    heads += ["abnormal now", "normal now", "abnormal share A", "abnormal share B", "share is"]
    return _table(
        "Slides",
        "Over the fields that both runs have done. Shares are of red regions clear of the border, "
        "with their 95 % intervals; changed slides are listed first.",
        heads,
        rows,
    )


def _grades(slides: Sequence[dict[str, Any]]) -> str:
    rows = (
        [row["slide"], each["name"], *map(_grade, (each["a"], each["b"])), False]
        for row in slides
        for each in row["grades"]
        if each["changed"]
    )
    return _table(
        "Slides whose grade changed",
        "Types that both runs count as abnormal, over the fields that both have done, without "
        "regions at the border. In brackets the share, and the grades of the ends of its 95 % "
        "interval.",
        ["slide", "type", "grade in A", "grade in B"],
        rows,
    )


def _grade(share: dict[str, Any]) -> str:
    grades = share["grades"]
    at, low, high = (grade_text(grades[key]) for key in ("grade", "low", "high"))
    return f"{at} ({share['share']:.1%}, {low} to {high})"


def _types(types: Sequence[dict[str, Any]]) -> str:
    rows = (
        [
            *(row[key] for key in ("name", "a", "b", "kept", "gained", "lost", "new", "gone")),
            row["a"] != row["kept"] or row["b"] != row["kept"],
        ]
        for row in types
    )
    return _table(
        "Types",
        "Regions that hold a type. Gained, lost: regions in both runs that have it only in B, only "
        "in A. New, gone: regions that are only in B, only in A.",
        ["type", "A", "B", "in both", "gained", "lost", "new", "gone"],
        rows,
    )


def _relabellings(record: dict[str, Any]) -> str:
    rows = record["relabellings"]
    left_out = len(rows) - len(rows[:_MOST_ROWS]) + record["relabellings_left_out"]
    more = f" {left_out:,} rarer kinds are omitted." if left_out else ""
    return _table(
        "Relabelled regions",
        f"Regions in both runs whose types changed, the commonest first.{more}",
        ["types in A", "types in B", "regions"],
        (
            [row["types_a"] or "none", row["types_b"] or "none", row["regions"], False]
            for row in rows[:_MOST_ROWS]
        ),
    )


def _only(fields: Sequence[dict[str, str]], run: str) -> str:
    if not fields:
        return ""
    more = f", of which the first {_MOST_ROWS:,} are shown" if len(fields) > _MOST_ROWS else ""
    return _table(
        f"Fields done only in {run}",
        f"{len(fields):,} fields{more}; their regions are not compared.",
        ["slide", "field", "why"],
        ([row["slide"], row["field"], row["why"], False] for row in fields[:_MOST_ROWS]),
    )


def _table(title: str, caption: str, heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table. rows: their cells, text or numbers, and whether to mark them."""
    lines = []
    for *cells, marked in rows:
        shown = [f'<th scope="row">{escape(str(cells[0]))}</th>']
        for cell in cells[1:]:
            number = isinstance(cell, int)
            text = f"{cell:,}" if number else escape(str(cell))
            shown.append(f'<td class="n">{text}</td>' if number else f"<td>{text}</td>")
        if marked:
            shown[-1] = shown[-1].replace("<td>", '<td class="why">', 1)
        begin = '<tr class="changed">' if marked else "<tr>"
        lines.append(f"{begin}{''.join(shown)}</tr>\n")
    if not lines:
        lines = [f'<tr><td colspan="{len(heads)}">none</td></tr>\n']
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    return (
        f"<h2>{escape(title)}</h2>\n"
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(title)}">\n'
        f"<table>\n<caption>{escape(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{''.join(lines)}</tbody>\n</table>\n</div>\n"
    )


def _share(share: dict[str, Any]) -> str:
    if share["fraction"] is None:
        return "no regions"
    return (
        f"{share['fraction']:.1%} ({share['ci_low']:.1%} to {share['ci_high']:.1%}), "
        f"{share['abnormal']:,} of {share['regions']:,}; {share['border']:,} at the border left out"
    )


def _flat(value: Any) -> str:
    """Return a value of run.json on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(part)}" for key, part in value.items())
    if isinstance(value, list):
        return ", ".join(_flat(part) for part in value)
    return "" if value is None else str(value)
