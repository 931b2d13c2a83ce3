"""`rbc-engine run` as a user meets it: real processes, real files, real signals."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import Image

from rbc_engine.packs.pack import find_pack
from rbc_engine.sinks.formats.table import FORMATS
from rbc_engine.sources.synthetic.field import render_field

from ...waits import wait_until
from ..journals import results_in

FILES = {".run.files", "regions.parquet", "cells.parquet", "fields.csv", "slides.csv", "run.json"}


def rbc(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rbc_engine", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


def save_field(path: Path, seed: int = 0, **options: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = {"width": 320, "height": 240, "cells": 8, **options}
    Image.fromarray(render_field(seed=seed, **size).pixels).save(path, quality=92)


def rows(out: Path, name: str) -> list[dict[str, str]]:
    with (out / name).open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def summary(out: Path) -> dict[str, object]:
    return json.loads((out / "run.json").read_text(encoding="utf-8"))


def no_leftovers(out: Path) -> bool:
    return {path.name for path in out.iterdir()} <= FILES | {f.output for f in FORMATS.values()}


@pytest.fixture(scope="module")
def samples_run(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    out = tmp_path_factory.mktemp("run") / "results"
    done = rbc("run", repository / "samples", "--out", out, "--formats", ",".join(FORMATS))
    assert done.returncode == 0, done.stderr
    assert "healthy-1" in done.stdout
    assert "note: device" not in done.stdout
    assert done.stderr == ""  # no bar where stderr is no terminal
    return out


def test_samples_give_every_file_and_column(samples_run: Path) -> None:
    table = pq.read_table(samples_run / "regions.parquet")
    types = [name.removeprefix("p_") for name in table.column_names if name.startswith("p_")]
    assert len(types) == 12
    assert table.column_names == [
        *("slide", "field", "region", "x0", "y0", "x1", "y1", "score", "kind"),
        *(f"p_{name}" for name in types),
        *(f"has_{name}" for name in types),
        *("abnormal_p", "abnormal", "cells_low", "cells_high", "flags"),
    ]
    assert table.num_rows > 100
    fields = rows(samples_run, "fields.csv")
    assert list(fields[0]) == [
        *("slide", "field", "path", "width", "height", "status", "error"),
        *("regions", "abnormal", "saturated", "seconds", "bytes", "modified"),
        *("um_per_px", "um_per_px_from", "cells", "unfamiliar_distance", "uncovered", "flags"),
    ]
    assert [row["field"] for row in fields] == [
        f"{slide}/field-{i}.jpg" for slide in ("healthy-1", "mixed-1") for i in (1, 2, 3)
    ]
    slides = rows(samples_run, "slides.csv")
    assert list(slides[0]) == [
        *("slide", "fields", "failed", "regions", "abnormal", "border", "whole_abnormal"),
        *(
            "abnormal_fraction",
            "ci_low",
            "ci_high",
            "abnormal_corrected",
            "corrected_low",
            "corrected_high",
        ),
        *("cells", "white_cells", "platelets", "white_per_100_red", "platelets_per_100_red"),
        *(f"n_{name}" for name in types),
    ]
    assert sum(int(row["regions"]) for row in slides) == table.num_rows
    assert len(list((samples_run / "overlays").rglob("*.png"))) == 6


def test_run_json_says_what_ran_and_adds_up(samples_run: Path) -> None:
    run = summary(samples_run)
    for key in (
        *("schema", "pack", "program", "device", "backend", "precision", "decoder", "settings"),
        *("wall_seconds", "network_seconds", "stage_seconds", "bottleneck", "counts", "warnings"),
    ):
        assert key in run
    said = "device cpu: "  # and why no GPU
    if not str(run["backend"]).startswith("TensorRT"):
        assert any(note.startswith(said) for note in run["device_notes"])  # type: ignore[attr-defined]
    (note,) = run["warnings"]
    assert note.startswith("passed over, no images by their endings: ")
    assert "1 .md" in note  # README.md is no image
    assert f"<li><bdi>{said}" not in (samples_run / "report.html").read_text("utf-8")
    stages = run["stage_seconds"]
    assert isinstance(stages, dict)
    assert list(stages) == ["decode", "detect", "crop", "classify", "call", "write"]
    assert 0 < run["network_seconds"] < run["wall_seconds"]
    assert run["startup_seconds"] < run["first_result_seconds"] < run["wall_seconds"]
    assert run["bottleneck"] in stages
    counts = run["counts"]
    assert isinstance(counts, dict)
    table = pq.read_table(samples_run / "regions.parquet")
    assert counts["regions"] == table.num_rows
    assert counts["abnormal"] == sum(table["abnormal"].to_pylist())
    assert (counts["slides"], counts["fields"], counts["failed"]) == (2, 6, 0)
    assert str(Path.home()) not in (samples_run / "run.json").read_text()


def test_bad_files_get_their_row_and_the_others_finish(tmp_path: Path) -> None:
    slide = tmp_path / "in" / "ein Träger №1"
    save_field(slide / "good 1.jpg", 1)
    save_field(slide / "good 2.png", 2)
    save_field(slide / "turned.jpg", 3)
    whole = (slide / "turned.jpg").read_bytes()
    (slide / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (slide / "empty.jpg").write_bytes(b"")
    (slide / "text.jpg").write_text("not an image")
    Image.fromarray(np.zeros((1, 1, 3), np.uint8)).save(slide / "tiny.png")
    Image.fromarray(np.zeros((40, 30_000), np.uint8)).save(slide / "wide.png")
    out = tmp_path / "out"
    done = rbc("run", tmp_path / "in", "--out", out)
    assert done.returncode == 3, done.stderr
    by_field = {row["field"].rpartition("/")[2]: row for row in rows(out, "fields.csv")}
    bad = {"cut.jpg", "empty.jpg", "text.jpg", "tiny.png", "wide.png"}
    assert {name for name, row in by_field.items() if row["status"] == "failed"} == bad
    for name in bad:
        assert name in by_field[name]["error"]
        assert "\n" not in by_field[name]["error"]
        assert f"failed: {by_field[name]['error']}" in done.stdout
    assert f"results in {out}, to look at: {out / 'report.html'}" in done.stdout
    assert "8192" in by_field["wide.png"]["error"]
    assert all(by_field[name]["slide"] == "ein Träger №1" for name in by_field)
    assert int(by_field["good 1.jpg"]["regions"]) > 0
    run = summary(out)
    assert run["counts"]["failed"] == 5
    assert no_leftovers(out)


def test_a_terminal_sees_a_whole_slide_go_on_tile_by_tile(tmp_path: Path) -> None:
    pixels = render_field(seed=1, width=1000, height=700, cells=80, cell_px=30).pixels
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(pixels, tile=(256, 256), photometric="rgb", subifds=1)
        tiff.write(pixels[::2, ::2], tile=(256, 256), photometric="rgb", subfiletype=1)
    ours, theirs = os.openpty()
    command = [
        sys.executable,
        "-m",
        "rbc_engine",
        "run",
        tmp_path / "a.tif",
        "--out",
        tmp_path / "o",
    ]
    environment = os.environ | {"COLUMNS": "120", "TERM": "xterm"}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while part := os.read(ours, 1 << 16):
                seen += part
    os.close(ours)
    assert process.returncode == 0
    [slide] = summary(tmp_path / "o")["whole_slides"]
    count = slide["tiles"]["run"] + slide["tiles"]["blank"]
    assert count > 1
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    shown = [(int(tile), int(of)) for tile, of in re.findall(r", tile (\d+) of (\d+)", plain)]
    assert {of for _, of in shown} == {count}
    assert [tile for tile, _ in shown] == sorted(tile for tile, _ in shown)
    assert 1 <= shown[0][0] <= shown[-1][0] <= count


def test_nothing_usable_is_exit_1_with_reasons(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "empty.jpg").write_bytes(b"")
    done = rbc("run", tmp_path / "in", "--out", tmp_path / "out")
    assert done.returncode == 1
    assert rows(tmp_path / "out", "fields.csv")[0]["status"] == "failed"


def test_wrong_usage_is_exit_2_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    save_field(tmp_path / "in" / "a.jpg")
    out = tmp_path / "out"
    for arguments in (
        ["run", tmp_path / "missing", "--out", out],
        ["run", tmp_path / "empty", "--out", out],
        ["run", tmp_path / "in", "--out", out, "--device", "tpu"],
        ["run", tmp_path / "in", "--out", out, "--precision", "fp12"],
        ["run", tmp_path / "in", "--out", out, "--formats", "docx"],
        ["run", tmp_path / "in", "--out", out, "--um-per-px", "-1"],
        ["run", tmp_path / "in"],
    ):
        done = rbc(*arguments)
        assert done.returncode == 2, (arguments, done.stderr)
        assert "Traceback" not in done.stderr
        assert not out.exists()


def test_cuda_says_what_is_missing(tmp_path: Path) -> None:
    save_field(tmp_path / "in" / "a.jpg")
    done = rbc("run", tmp_path / "in", "--out", tmp_path / "out", "--device", "cuda")
    assert done.returncode == 1
    assert "--device cpu" in done.stderr


def test_existing_folder_is_refused_then_overwritten(tmp_path: Path) -> None:
    save_field(tmp_path / "in" / "a.jpg", 1)
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("keep me")
    refused = rbc("run", tmp_path / "in", "--out", out, "--pack", tmp_path / "none")
    assert refused.returncode == 1  # before the pack is looked at, and before networks are compiled
    assert "name another --out" in refused.stderr
    assert "--overwrite" not in refused.stderr
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    (out / "notes.txt").unlink()
    done = rbc("run", tmp_path / "in", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    (out / "notes.txt").write_text("keep me")
    refused = rbc("run", tmp_path / "in", "--out", out, "--pack", tmp_path / "none")
    assert refused.returncode == 1
    assert "--overwrite" in refused.stderr
    done = rbc("run", tmp_path / "in", "--out", out, "--overwrite", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == summary(out)
    assert (out / "notes.txt").read_text() == "keep me"


def test_changed_pack_is_refused(tmp_path: Path) -> None:
    import shutil

    pack = Path(shutil.copytree(find_pack("chula12"), tmp_path / "pack"))
    data = bytearray((pack / "detector.onnx").read_bytes())
    data[-1] ^= 1
    (pack / "detector.onnx").write_bytes(data)
    save_field(tmp_path / "in" / "a.jpg")
    done = rbc("run", tmp_path / "in", "--out", tmp_path / "out", "--pack", pack)
    assert done.returncode == 1
    assert "detector.onnx" in done.stderr
    assert "sha256" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("most_bytes", "left"), [(900, []), (3500, ["run.journal"])])
def test_full_disk_leaves_nothing_half_written(
    tmp_path: Path, most_bytes: int, left: list[str]
) -> None:
    """With room for the journal, what was done is kept there.

    A file-size limit of the kernel stands in for the disk: the write itself fails, in the middle.
    """
    save_field(tmp_path / "in" / "a.jpg", 1)
    out = tmp_path / "out"

    def limit_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    done = rbc("run", tmp_path / "in", "--out", out, preexec_fn=limit_files)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("rbc-engine: ")
    assert done.stderr.count("\n") == 1
    assert ("--resume to continue" in done.stderr) == bool(left)
    assert [path.name for path in out.iterdir()] == left


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_interrupt_keeps_what_is_done(tmp_path: Path, number: signal.Signals) -> None:
    save_field(tmp_path / "one.jpg", 1, width=640, height=480, cells=40)
    slide = tmp_path / "in" / "slide"
    slide.mkdir(parents=True)
    for index in range(400):
        shutil.copy(tmp_path / "one.jpg", slide / f"{index}.jpg")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "rbc_engine", "run", str(tmp_path / "in"), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: results_in(out / "run.journal") >= 2 or process.poll() is not None)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert no_leftovers(out)
    run = summary(out)
    done = len(rows(out, "fields.csv"))
    assert 0 < done < 400
    assert any(f"{400 - done} of 400 fields were not run" in line for line in run["warnings"])
    fields = pq.read_table(out / "regions.parquet")["field"].to_pylist()
    assert len(set(fields)) == done


def test_run_imports_neither_torch_nor_sklearn(tmp_path: Path) -> None:
    save_field(tmp_path / "in" / "a.jpg", 1)
    code = (
        "import sys\n"
        "from rbc_engine.cli import app\n"
        f"app(['run', {str(tmp_path / 'in')!r}, '--out', {str(tmp_path / 'out')!r}], "
        "standalone_mode=False)\n"
        "print(sorted({'torch', 'sklearn'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("[]")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "import rbc_engine.cli\n"
        "heavy = {'numpy', 'openvino', 'pyarrow', 'treelite', 'torch', "
        "'rich.progress', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_commands_that_tell() -> None:
    doctor = rbc("doctor", "--json")
    assert doctor.returncode == 0
    report = json.loads(doctor.stdout)
    assert "OpenVINO" in report["backend"]
    assert any("NVIDIA" in note for note in report["notes"])
    assert "chula12" in rbc("packs", "list").stdout
    shown = rbc("packs", "show", "chula12").stdout
    assert "spherocyte: abnormal" in shown
    verified = rbc("packs", "verify", "chula12")
    assert verified.returncode == 0, verified.stderr
    assert "agree" in verified.stdout
