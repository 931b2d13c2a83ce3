"""Pages of report.html made for the browser: results at random on rendered frames."""

from __future__ import annotations

import numpy as np

from rbc_engine.packs.pack import Pack, find_pack
from rbc_engine.sinks.formats.report_page import ReportPage
from rbc_engine.sinks.run_json import RunRecord
from rbc_engine.types.cells import count_cells
from rbc_engine.types.frames import Frame
from rbc_engine.types.regions import Regions
from rbc_engine.types.results import FieldResult


def regions_of(rng, count, types, *, width, height):
    sides = rng.uniform(20, 48, (count, 2))
    sides[::7] += 40  # clumps
    corners = rng.random((count, 2)) * ((width, height) - sides)
    p = rng.beta(0.4, 2, (count, types)).astype(np.float32)
    has = p >= 0.6
    has[np.arange(count), p.argmax(axis=1)] = True
    abnormal_p = rng.random(count).astype(np.float32)
    boxes = np.hstack([corners, corners + sides]).astype(np.float32)
    cut = (rng.random(count) < 0.1).astype(np.uint8)
    clumps = count_cells(boxes, cut=cut > 0).clump.astype(np.uint8)
    return Regions.by_area(
        boxes=boxes,
        scores=rng.random(count).astype(np.float32),
        probabilities=p,
        has=has,
        abnormal_p=abnormal_p,
        abnormal=abnormal_p >= 0.5,
        flags=cut | clumps << 1 | (p.max(axis=1) < 0.35).astype(np.uint8) << 3,
    )


def write_report(folder, fields, *, slides, frames, regions=40, run=None):
    """fields: how many, shared out among slides, on shifted copies of the frames."""
    rng = np.random.default_rng(0)
    pack = Pack.open(find_pack("chula12"))
    page = ReportPage(folder, pack)
    for at in range(fields):
        name = slides[at * len(slides) // fields]
        if at % 97 == 3:
            failed = FieldResult(slide=name, field=f"{name}/{at}.jpg", error=f"{name}: damaged")
            page.write(failed)
            continue
        frame = frames[at % len(frames)]
        height, width = frame.shape[:2]
        pixels = np.roll(frame, (37 * at, 53 * at), axis=(0, 1))
        result = FieldResult(
            slide=name,
            field=f"{name}/{at}.jpg",
            width=width,
            height=height,
            regions=regions_of(rng, regions + at % 7, len(pack.types), width=width, height=height),
            saturated=at % 50 == 4,
            frame=Frame(pixels=pixels),
        )
        page.write(result)
    said = run or {"warnings": ["one <b>warning</b>"], "stage_seconds": {"detect": 2.0}}
    page.describe(RunRecord.of(pack, **said))
    page.finish()
    return folder / ReportPage.NAME


def column(page, table, at):
    return page.locator(f"#{table} tbody tr > *:nth-child({at})").all_inner_texts()
