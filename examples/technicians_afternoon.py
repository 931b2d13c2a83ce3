"""Play a lab technician's afternoon at the command line: two patients' fields, a scanned slide, and
a broken file.

    python examples/technicians_afternoon.py [FOLDER]

Runs them, is killed in the middle, resumes, reads the report, opens the GeoJSON as QuPath would,
changes a threshold, and compares two packs. Every step checks what it claims, so this is a test as
well. The smears are rendered, and FOLDER (by default a temporary one) must not exist. Takes about
half a minute on two cores.
"""

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import tifffile
from read_geojson import read_objects

from rbc_engine.sources.synthetic.field import render_field

EXIT_REFUSED, EXIT_SOME_FAILED = 1, 3
FIELDS = 2 * 4 + 1 + 1  # of two patients, the slide, and the broken file
SLIDE_PX, SLIDE_UM_PER_PX = (1500, 1200), 0.19


def rbc_engine(*arguments: object, exit_code: int = 0) -> str:
    """Run the command, check its exit code, and return what it printed."""
    command = ["rbc-engine", *map(str, arguments)]
    print("\n$", *command)
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "rbc_engine", *command[1:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(done.stdout + f"(exit code {done.returncode}, {time.perf_counter() - began:.1f} s)")
    assert done.returncode == exit_code
    return done.stdout


def make_smears(smears: Path) -> None:
    """Render two patients' folders with four fields each, a scanned slide, and a truncated
    field.
    """
    rbc_engine(
        *("synth", "--out", smears, "--slides", 2, "--fields", 4, "--size", "640x480"),
        *("--cells", 40, "--mix", "patient:oval_disc=8,elongated_sickle=1,echinocyte=1"),
    )
    whole = (smears / "patient-1" / "field-1.jpg").read_bytes()
    (smears / "patient-1" / "field-5.jpg").write_bytes(whole[: len(whole) // 3])
    width, height = SLIDE_PX
    pixels = render_field(seed=3, width=width, height=height, cells=150, cell_px=40).pixels
    write_pyramid(smears / "patient-3.tif", pixels)


def write_pyramid(path: Path, pixels: np.ndarray) -> None:
    """Write a slide as a scanner's software exports it: tiles of JPEG, a smaller level, and the
    scale as a resolution.
    """
    options = {"photometric": "rgb", "compression": "jpeg", "tile": (256, 256), "metadata": None}
    px_per_cm = 1e4 / SLIDE_UM_PER_PX
    scale = {"resolution": (px_per_cm, px_per_cm), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(pixels, subifds=1, **scale, **options)
        tiff.write(pixels[::4, ::4], subfiletype=1, **options)


def lose_power(smears: Path, results: Path) -> None:
    """Start the run, and kill it as soon as some results are on disk."""
    command = ["run", str(smears), "--out", str(results), "--formats", "geojson"]
    print("\n$ rbc-engine", *command, " # killed in the middle")
    journal = results / "run.journal"
    first_size = None
    with subprocess.Popen(
        [sys.executable, "-m", "rbc_engine", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as run:
        while run.poll() is None:
            size = journal.stat().st_size if journal.exists() else None
            first_size = size if first_size is None else first_size
            if size is not None and size > first_size:
                break
            time.sleep(0.005)
        run.kill()
    assert run.returncode == -signal.SIGKILL, "the run ended before it could be killed"
    visible = [path.name for path in results.iterdir() if not path.name.startswith(".")]
    print(f"(killed; the folder shows {', '.join(visible)})")
    assert visible == ["run.journal"], "nothing may look finished"


def go_on(smears: Path, results: Path) -> None:
    """Check that the same command is refused with advice, and that --resume does the rest, and
    nothing twice.
    """
    again = ("run", smears, "--out", results, "--formats", "geojson")
    assert "--resume" in rbc_engine(*again, exit_code=EXIT_REFUSED)
    rbc_engine(*again, "--resume", exit_code=EXIT_SOME_FAILED)
    kept = kept_fields(results)
    assert 0 < kept < FIELDS - 1
    rows = read_csv(results / "fields.csv")
    assert len({(row["slide"], row["field"]) for row in rows}) == len(rows) == FIELDS
    [failed] = [row for row in rows if row["status"] != "done"]
    assert failed["field"] == "patient-1/field-5.jpg"
    print(f"{kept} fields were kept, {len(rows) - kept} run. Failed: {failed['error']}")
    regions = pq.read_table(results / "regions.parquet").to_pylist()
    places = Counter((row["slide"], row["field"]) for row in regions)
    assert all(places[row["slide"], row["field"]] == int(row["regions"] or 0) for row in rows)
    assert len({(row["field"], row["region"]) for row in regions}) == len(regions)

    before = (results / "regions.parquet").read_bytes()
    rbc_engine(*again, "--resume", "--quiet", exit_code=EXIT_SOME_FAILED)
    assert kept_fields(results) == FIELDS - 1
    assert read_json(results / "run.json")["network_seconds"] == 0
    assert (results / "regions.parquet").read_bytes() == before
    print("Resumed once more: only the broken file was tried again, and no network ran.")


def kept_fields(results: Path) -> int:
    """Return how many fields a resumed run says it kept."""
    said = " ".join(read_json(results / "run.json")["warnings"])
    kept, of = re.search(r"resumed: (\d+) of (\d+) fields were done before", said).groups()
    assert int(of) == FIELDS
    return int(kept)


def read_report(results: Path) -> None:
    """Check that the page shows the same of each slide as the tables."""
    data = ReportData((results / "report.html").read_text("utf-8")).data
    print("\nreport.html:")
    for slide, row in zip(data["slides"], read_csv(results / "slides.csv"), strict=True):
        assert [slide[key] for key in ("name", "regions", "abnormal", "failed")] == [
            row["slide"],
            *(int(row[key]) for key in ("regions", "abnormal", "failed")),
        ]
        low, high = slide["cells"]
        assert slide["regions"] <= low <= high
        grades = [
            f"{kind['label']} {found['grades'][0]}+"
            for kind, found in zip(data["types"], slide["types"], strict=True)
            if found["grades"] and found["grades"][0]
        ]
        cut = slide["regions"] - slide["whole"]
        print(f"  {slide['name']}: {low} to {high} cells in {slide['regions']} regions")
        print(f"    grades, without {cut} regions at the border: {', '.join(grades) or 'none'}")
    assert ["patient-1/field-5.jpg" in text for text in data["fields"]["error"].values()] == [True]


class ReportData(HTMLParser):
    """Parse the numbers behind the tables of report.html."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self._inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._inside = tag == "script" and ("id", "data") in attributes

    def handle_data(self, text: str) -> None:
        if self._inside:
            self.data = json.loads(text)
            self._inside = False


def open_in_qupath(results: Path) -> None:
    """Check that every region is a detection, with its box, its class and its probabilities."""
    types = read_json(results / "run.json")["abnormal_types"]
    regions = pq.read_table(results / "regions.parquet").to_pylist()
    classes: Counter[str] = Counter()
    print("\ngeojson/:")
    for path in sorted((results / "geojson").rglob("*.geojson")):
        field = read_json(path)["rbc_engine"]["field"]
        rows = [row for row in regions if row["field"] == field]
        objects = read_objects(path)
        assert len(objects) == len(rows)
        for row, found in zip(rows, objects, strict=True):
            assert found.object_type == "detection"
            corners = np.array(found.rings[0])
            box = [row[name] for name in ("x0", "y0", "x1", "y1")]
            assert np.allclose([*corners.min(0), *corners.max(0)], box, atol=0.006)
            assert {name for name in found.names or () if name in types} == {
                name for name in types if row[f"has_{name}"]
            }
            assert np.isclose(found.measurements["abnormal p"], row["abnormal_p"], atol=1e-6)
            classes[": ".join(found.names or ["no class"])] += 1
        print(f"  {path.relative_to(results)}: {len(objects)} detections")
    assert sum(classes.values()) == len(regions)
    print(f"  classes: {', '.join(f'{count} {name}' for name, count in classes.most_common(5))}, …")


def change_a_threshold(results: Path, stricter: Path) -> None:
    """Call schistocytes only where the pack is sure: the same regions, other labels, no image and
    no network.
    """
    rbc_engine(
        *("recall", results, "--out", stricter),
        *("--threshold", "schistocyte=0.9", "--no-at-least-one"),
    )
    was, now = (pq.read_table(folder / "regions.parquet") for folder in (results, stricter))
    for name in ("field", "x0", "y0", "x1", "y1", "p_schistocyte", "flags"):
        assert was[name].equals(now[name])
    p = now["p_schistocyte"].to_numpy()
    assert (now["has_schistocyte"].to_numpy() == (p >= 0.9)).all()
    before, after = (table["has_schistocyte"].to_numpy().sum() for table in (was, now))
    assert after < before
    print(f"{before} regions held a schistocyte, {after} do now.")
    assert "recalled_from" in read_json(stricter / "run.json")


def make_strict_pack(folder: Path) -> None:
    """Make the shipped pack with other thresholds. Only pack.toml differs, and by its hash so does
    the pack.
    """
    shown = rbc_engine("packs", "show", "chula12")
    shutil.copytree(re.search(r"^folder: (.+)$", shown, re.MULTILINE)[1], folder)
    text = (folder / "pack.toml").read_text()
    for old, new in (
        (r'^name = ".*"', 'name = "chula12-strict"'),
        (r"^thresholds = \[[^]]*\]", f"thresholds = {[0.8] * 12}"),
        (r"^at_least_one = true", "at_least_one = false"),
    ):
        text, changed = re.subn(old, new, text, count=1, flags=re.MULTILINE)
        assert changed
    (folder / "pack.toml").write_text(text)
    rbc_engine("packs", "verify", folder)


def compare_packs(smears: Path, results: Path, folder: Path) -> None:
    """Check for the same regions with fewer labels; slides whose grade changed are named."""
    other, compared = folder / "results-strict", folder / "compared"
    rbc_engine(
        *("run", smears, "--out", other, "--pack", folder / "strict", "--quiet"),
        exit_code=EXIT_SOME_FAILED,
    )
    rbc_engine("compare", results, other, "--out", compared)
    found = read_json(compared / "compare.json")
    assert found["a"]["pack"]["sha256"] != found["b"]["pack"]["sha256"]
    assert found["fields"] == {
        **{"compared": FIELDS - 1, "renamed": 0},
        **{"only_a": [], "only_b": []},
    }
    was, now = (pq.read_table(run / "regions.parquet") for run in (results, other))
    regions = found["regions"]
    assert (regions["a"], regions["b"]) == (len(was), len(now))
    # The networks are the same; fields that ran in other batches may differ in the last digits.
    assert regions["matched"] > 0.98 * len(was)
    for row in found["types"]:
        counts = [int(table[f"has_{row['name']}"].to_numpy().sum()) for table in (was, now)]
        assert [row["a"], row["b"]] == counts
        assert counts[1] <= counts[0]
    changed = {
        slide["slide"]: [each["name"] for each in slide["grades"] if each["changed"]]
        for slide in found["slides"]
    }
    assert any(changed.values())
    page = (compared / "compare.html").read_text("utf-8")
    assert all(slide in page for slide in changed)
    print(f"{regions['relabelled']} of {regions['matched']} regions have other types now.")


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def read_json(path: Path) -> dict:
    return json.loads(path.read_text("utf-8"))


def main(folder: Path) -> None:
    folder.mkdir(parents=True)
    smears, results = folder / "smears", folder / "results"
    make_smears(smears)
    lose_power(smears, results)
    go_on(smears, results)
    read_report(results)
    open_in_qupath(results)
    change_a_threshold(results, folder / "results-stricter")
    make_strict_pack(folder / "strict")
    compare_packs(smears, results, folder)
    print("\nThe afternoon is over: everything was as it should be.")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary) / "afternoon")
