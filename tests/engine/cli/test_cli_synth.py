"""`rbc-engine synth`, through typer, onto a real disk."""

from __future__ import annotations

import json

import numpy as np
import pytest
import typer
from PIL import Image
from scipy import ndimage
from typer.testing import CliRunner

from rbc_engine.cli.synth import synth
from rbc_engine.errors import OutputError, UsageError
from rbc_engine.sources.synthetic.field import render_field

SMALL = ["--fields", "2", "--size", "320x240", "--cells", "9"]


def invoke(*arguments):
    app = typer.Typer()
    app.command()(synth)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_slides_and_truth_agree(tmp_path):
    out, truth = tmp_path / "slides", tmp_path / "truth"
    result = invoke(
        "--out", out, "--truth", truth, "--slides", 2, *SMALL, "--format", "png", "--seed", 7
    )
    assert result.exit_code == 0, result.output
    images = [f"slide-{slide}/field-{field}.png" for slide in (1, 2) for field in (1, 2)]
    assert files(out) == images
    assert files(truth) == [*images, "truth.json"]
    document = json.loads((truth / "truth.json").read_text(encoding="utf-8"))
    assert document["schema"] == 1
    assert [record["image"] for record in document["fields"]] == images
    for record in document["fields"]:
        pixels, mask = read(out / record["image"]), read(truth / record["mask"])
        assert pixels.shape == (record["height"], record["width"], 3) == (240, 320, 3)
        _, count = ndimage.label(mask, np.ones((3, 3)))
        assert len(record["regions"]) == count
        assert len(record["cells"]) == 9
        for region in record["regions"]:
            x0, y0, x1, y1 = (int(side) for side in region["box"])
            assert mask[y0:y1, x0:x1].any()
            assert region["types"]
            assert set(region["types"]) <= set(document["types"])
        again = render_field(
            seed=record["seed"], look_seed=record["look_seed"], width=320, height=240, cells=9
        )
        np.testing.assert_array_equal(again.pixels, pixels)
        np.testing.assert_array_equal(again.mask, mask)
    assert len({record["seed"] for record in document["fields"]}) == 4
    assert len({record["look_seed"] for record in document["fields"]}) == 2


def test_each_mix_has_its_own_slides(tmp_path):
    out, truth = tmp_path / "slides", tmp_path / "truth"
    result = invoke(
        "--out", out, "--truth", truth, *SMALL,
        "--mix", "healthy:oval_disc=1", "--mix", "ill:granular=0.5,echinocyte=0.5",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert files(out) == [f"{name}-1/field-{i}.jpg" for name in ("healthy", "ill") for i in (1, 2)]
    with Image.open(out / "ill-1/field-1.jpg") as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (320, 240))
    seen = {"healthy": set(), "ill": set()}
    for record in json.loads((truth / "truth.json").read_text())["fields"]:
        seen[record["image"].partition("-")[0]] |= {cell["type"] for cell in record["cells"]}
    assert seen == {"healthy": {"oval_disc"}, "ill": {"granular", "echinocyte"}}


def test_overwrite_replaces_its_own_slides_only(tmp_path):
    assert invoke("--out", tmp_path, *SMALL).exit_code == 0
    before = (tmp_path / "slide-1/field-1.jpg").read_bytes()
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "slide-old").mkdir()
    (tmp_path / "slide-old/field-1.jpg").write_bytes(b"mine too")

    refused = invoke("--out", tmp_path, *SMALL, "--seed", 1)
    assert isinstance(refused.exception, OutputError)
    assert "--overwrite" in str(refused.exception)
    assert (tmp_path / "slide-1/field-1.jpg").read_bytes() == before

    again = invoke("--out", tmp_path, "--overwrite", *SMALL, "--seed", 1, "--fields", 1)
    assert again.exit_code == 0, again.output
    assert files(tmp_path) == ["README.md", "slide-1/field-1.jpg", "slide-old/field-1.jpg"]
    assert (tmp_path / "slide-1/field-1.jpg").read_bytes() != before


def test_truth_within_out_is_refused_before_anything_is_written(tmp_path):
    result = invoke("--out", tmp_path / "slides", "--truth", tmp_path / "slides/truth", *SMALL)
    assert isinstance(result.exception, UsageError)
    assert "lies within --out" in str(result.exception)
    assert files(tmp_path) == []


def test_out_that_cannot_be_written_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    result = invoke("--out", tmp_path / "file", *SMALL)
    assert isinstance(result.exception, OutputError)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "640"], "--size must be WIDTHxHEIGHT"),
        (["--size", "8x8"], "width must be"),
        (["--mix", "oval_disc"], "must read"),
        (["--mix", "disc=1"], "disc"),
        (["--mix", "oval_disc=1,oval_disc=2"], "twice"),
        (["--mix", "oval_disc=nan"], "finite"),
        (["--mix", "../x:oval_disc=1"], "name must consist"),
        (["--mix", "oval_disc=1", "--mix", "granular=1"], "twice"),
        (["--size", "320x240", "--cells", "500"], "do not fit"),
    ],
)
def test_wrong_options_are_usage_errors(tmp_path, arguments, message):
    result = invoke("--out", tmp_path / "slides", *arguments)
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)
