"""Results are put into a folder without a file being lost that no run wrote."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from rbc_engine.cli import app
from rbc_engine.errors import OutputError, UsageError
from rbc_engine.sinks.out_folder import claim
from rbc_engine.sinks.output import RunOutput
from rbc_engine.sinks.run_json import RunRecord

PICTURES = ("overlays/A/mine.png", "patches/A/mine.jpg", "geojson/mine.geojson")


def write(folder, pack, results=(), *formats, overwrite=False):
    with RunOutput(
        claim(folder, "overwrite" if overwrite else "new"), pack, formats=formats
    ) as output:
        for result in results:
            output.write(result)
        output.finish(RunRecord.of(pack, settings={"formats": list(formats)}))


def content(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def put_pictures(folder: Path) -> dict[str, bytes]:
    for name in PICTURES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"mine")
    return dict.fromkeys(PICTURES, b"mine")


def test_a_folder_of_pictures_is_refused_and_no_remedy_would_lose_them(tmp_path, toy_pack):
    put_pictures(tmp_path)
    (tmp_path / "run.json").write_text('{"name": "of another program"}')
    before = content(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="name another --out") as refused:
            write(tmp_path, toy_pack, overwrite=overwrite)
        assert "--overwrite" not in str(refused.value)
    assert content(tmp_path) == before


@pytest.mark.parametrize("formats", [[], ["overlay", "patches", "geojson"]])
def test_overwrite_removes_what_the_run_wrote_and_nothing_else(
    tmp_path, toy_pack, make_result, with_frame, formats
):
    first, second = (with_frame(make_result(name, f"{name}/{name}1.jpg")) for name in "BC")
    write(tmp_path, toy_pack, [first], "overlay", "patches", "csv")
    pictures = put_pictures(tmp_path)
    write(tmp_path, toy_pack, [second], *formats, overwrite=True)
    found = content(tmp_path)
    assert pictures.items() <= found.items()
    assert not [name for name in found if "B1.jpg" in name]


def test_a_file_that_no_run_wrote_is_not_replaced(tmp_path, toy_pack, make_result, with_frame):
    result = with_frame(make_result("A", "A/1.jpg"))
    write(tmp_path, toy_pack, [])
    (tmp_path / "regions.csv").write_text("mine")
    (tmp_path / "overlays/A").mkdir(parents=True)
    (tmp_path / "overlays/A/1.jpg.png").write_text("mine")
    before = content(tmp_path)
    for name, file in (("csv", "regions.csv"), ("overlay", "1.jpg.png")):
        with pytest.raises(OutputError, match=rf"{file} is in the way.*move it"):
            write(tmp_path, toy_pack, [result], name, overwrite=True)
        assert content(tmp_path) == before


def test_a_list_from_a_stranger_reaches_nothing_outside(tmp_path, toy_pack):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "x.png").write_text("mine")
    write(out, toy_pack)
    (out / "notes.png").write_text("mine")
    (out / "overlays").symlink_to(elsewhere)
    names = ("../elsewhere/x.png", f"{elsewhere}/x.png", "overlays/x.png", "notes.png")
    with (out / ".run.files").open("a") as file:
        file.write("\n".join([*names, "overlays/../notes.png", "", "/", "."]))
    write(out, toy_pack, overwrite=True)
    assert (elsewhere / "x.png").read_text() == (out / "notes.png").read_text() == "mine"


def test_a_run_without_a_list_has_what_its_run_json_names(tmp_path, toy_pack):
    write(tmp_path, toy_pack, [], "csv")
    (tmp_path / ".run.files").unlink()
    (tmp_path / "coco.json").write_text("mine")
    write(tmp_path, toy_pack, overwrite=True)
    visible = {name for name in content(tmp_path) if not name.startswith(".")}
    tables = {"regions.parquet", "cells.parquet", "fields.csv", "slides.csv"}
    assert visible == {"coco.json", "run.json", *tables}


def test_an_out_that_is_an_input_or_contains_one_is_refused(tmp_path):
    smear = tmp_path / "smear"
    smear.mkdir()
    Image.fromarray(np.full((60, 80, 3), 200, np.uint8)).save(smear / "a.png")
    link = tmp_path / "link"
    link.symlink_to(smear)
    before = content(tmp_path)

    def refused(*arguments) -> None:
        with pytest.raises(UsageError, match=r"--out .*(is|contains) .*name another folder"):
            CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)

    for out in (smear, link, tmp_path):
        for option in ((), ("--overwrite",), ("--resume",)):
            refused("run", smear, "--out", out, *option)
            refused("run", smear / "a.png", "--out", out, *option)
        refused("live", "--replay", smear, "--out", out, "--overwrite")
        refused("recall", smear, "--out", out, "--overwrite", "--threshold", "normal=0.1")
        refused("compare", tmp_path / "run", smear, "--out", out, "--overwrite")
    assert content(tmp_path) == before


def test_compare_replaces_a_comparison_only(tmp_path, toy_pack, make_result):
    run = tmp_path / "a"
    with RunOutput(claim(run), toy_pack) as output:
        output.finish(RunRecord.of(toy_pack))
    shutil.copytree(run, tmp_path / "b")
    out = tmp_path / "out"
    out.mkdir()
    (out / "changes.csv").write_text("mine")
    for option in ([], ["--overwrite"]):
        with pytest.raises(OutputError, match="holds no comparison") as refused:
            CliRunner().invoke(
                app,
                ["compare", str(run), str(tmp_path / "b"), "--out", str(out), *option],
                catch_exceptions=False,
            )
        assert "--overwrite" not in str(refused.value)
    assert content(out) == {"changes.csv": b"mine"}
