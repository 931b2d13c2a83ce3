"""Draw the plots of a bench as PNG, each on a canvas of its own, so that no window system is
needed.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

__all__ = ["draw_plots"]

_DPI = 120

Report = Mapping[str, Any]


def draw_plots(report: Report) -> dict[str, bytes]:
    """Return PNG files by name: stages.png (if the stages were measured), throughput.png,
    latency.png.
    """
    plots = {"latency.png": _latency(report["end_to_end"])}
    if report["stages"] is not None:
        plots["stages.png"] = _stages(report["stages"])
    if report["sweep"]:
        plots["throughput.png"] = _throughput(report["sweep"])
    return plots


def _stages(stages: Mapping[str, Any]) -> bytes:
    """Draw a waterfall: each part begins where the previous one ends; next to it, darker, the
    machine's limit.
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    parts = [part for part in stages["parts"] if part["seconds"] > 0]
    begin = 0.0
    for row, part in enumerate(parts):
        axes.barh(row, part["seconds"] * 1e3, left=begin, color="tab:blue", alpha=0.5)
        if part["limit_seconds"] is not None:
            axes.barh(row, part["limit_seconds"] * 1e3, left=begin, height=0.4, color="tab:blue")
        begin += part["seconds"] * 1e3
    axes.barh(
        len(parts), stages["idle"] * stages["wall_seconds"] * 1e3, left=begin, color="tab:grey"
    )
    axes.set_yticks(range(len(parts) + 1), [*(part["name"] for part in parts), "idle"])
    axes.invert_yaxis()
    axes.set_xlabel("ms of all cores per field (dark: at the machine's limit)")
    axes.set_title(f"Where a field's time goes, {stages['fields']}")
    return _png(figure)


def _throughput(sweep: Any) -> bytes:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for lanes in sorted({point["lanes"] for point in sweep}):
        points = [point for point in sweep if point["lanes"] == lanes]
        axes.errorbar(
            [point["batch"] for point in points],
            [point["fields_per_s"]["median"] for point in points],
            yerr=[
                [p["fields_per_s"]["median"] - p["fields_per_s"]["min"] for p in points],
                [p["fields_per_s"]["max"] - p["fields_per_s"]["median"] for p in points],
            ],
            marker="o",
            label=f"{lanes} lanes",
        )
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("frames per batch of a lane")
    axes.set_ylabel("fields/s, from memory")
    axes.legend()
    return _png(figure)


def _latency(sets: Mapping[str, Any]) -> bytes:
    """Draw the cumulative share of frames done within each number of milliseconds."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, entry in sets.items():
        axes.ecdf(entry["latency"]["samples_ms"], label=name)
    axes.set_xlabel("ms from frame to regions, one at a time")
    axes.set_ylabel("share of frames")
    axes.legend()
    return _png(figure)


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI, metadata={"Software": None})
    return file.getvalue()
