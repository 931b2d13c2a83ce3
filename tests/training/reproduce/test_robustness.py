"""Fields as other microscopes show them: pixels lie where they should, and looks work."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from typer.testing import CliRunner

from rbc_engine.cli.models.reproduce import app
from rbc_engine.errors import UsageError
from rbc_engine.packs.pack import Pack, find_pack
from rbc_engine.training.datasets.base import Dataset, LabelledField
from rbc_engine.training.reproduce.robustness import LOOKS, measure_robustness
from rbc_engine.types.regions import Regions
from rbc_engine.types.results import FieldResult

from ..fake_chula import write_chula

SHAPE = (240, 320)


def boxes_of(dark):
    """float32 [R, 4] of the parts of a mask."""
    parts = ndimage.find_objects(ndimage.label(dark)[0])
    rows = [(x.start, y.start, x.stop, y.stop) for y, x in parts]
    return np.array(rows, np.float32).reshape(-1, 4)


class Thresholding:
    """Stand for an engine: what is darker than the rest is a region.

    Its view of a black square is exact.
    """

    def __init__(self, share=1.0):
        """share: of the regions, those that it reports."""
        self.pack = Pack.open(find_pack("chula12"))
        self.choice = SimpleNamespace(device=SimpleNamespace(precision="fp32"))
        self._share = share

    def run(self, decoded):
        for one in decoded:
            grey = one.frame.pixels.astype(int).sum(axis=2)
            boxes = boxes_of(grey < (int(grey.min()) + int(grey.max())) / 2)
            # Of a sliver at the edge, most of a pixel may be beyond it.
            boxes = boxes[(boxes[:, 2:] - boxes[:, :2]).min(axis=1) >= 3]
            boxes = boxes[: int(np.ceil(len(boxes) * self._share))]
            count = len(boxes)
            yield FieldResult(
                slide=one.ref.slide,
                field=one.ref.field,
                regions=Regions.by_area(
                    boxes=boxes,
                    scores=np.ones(count, np.float32),
                    probabilities=np.zeros((count, 12), np.float32),
                    has=np.zeros((count, 12), bool),
                    abnormal_p=np.zeros(count, np.float32),
                    abnormal=np.zeros(count, bool),
                    flags=np.zeros(count, np.uint8),
                ),
            )


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """Four fields of black squares on white, every cell of them labelled."""
    folder = tmp_path_factory.mktemp("squares")
    fields = []
    for index in range(4):
        rng = np.random.default_rng(index)
        pixels = np.full((*SHAPE, 3), 255, np.uint8)
        for y in range(8, SHAPE[0] - 30, 36):
            for x in range(8, SHAPE[1] - 30, 36):
                dy, dx = rng.integers(0, 8, 2)
                pixels[y + dy : y + dy + 20, x + dx : x + dx + 20] = 0
        path = folder / f"{index}.png"
        Image.fromarray(pixels).save(path)
        boxes = boxes_of(pixels[..., 0] == 0)
        count = len(boxes)
        fields.append(
            LabelledField(
                path=path,
                group=str(index),
                boxes=boxes,
                types=np.ones((count, 1), bool),
                cells=np.ones(count, np.int64),
                centres=(boxes[:, :2] + boxes[:, 2:]) / 2,
                known=np.ones(count, bool),
                labelled=True,
            )
        )
    return Dataset(name="squares", types=("square",), abnormal=(), fields=tuple(fields))


def measure(engine, squares, *, magnifications=(1.0,), looks=("as it is",), seed=0):
    return measure_robustness(
        engine, squares, squares.fields,
        magnifications=magnifications, looks=looks, seed=seed, log=lambda _: None,
    ).rows  # fmt: skip


@given(times=st.floats(1, 6), seed=st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_what_is_in_view_lies_where_its_pixels_are(squares, times, seed):
    [row] = measure(Thresholding(), squares, magnifications=[times], seed=seed)
    assert row.found in (None, 1.0)
    assert row.cut_found in (None, 1.0)
    assert row.centres_hit in (None, 1.0)
    assert row.on_background in (None, 0.0)
    in_view = sum(len(field.boxes) for field in squares.fields) / times**2
    assert 0.2 * in_view - 8 <= row.cells <= row.centres + 4
    assert row.centres <= 2 * in_view + 8


def test_what_is_not_found_is_missed(squares):
    all_of_them, half = (measure(Thresholding(share), squares)[0] for share in (1, 0.5))
    assert all_of_them.cells == half.cells == sum(len(field.boxes) for field in squares.fields)
    assert half.found == pytest.approx(0.5, abs=0.02)
    assert half.centres_hit == pytest.approx(0.5, abs=0.02)


def test_squares_are_found_in_every_look(squares):
    rows = measure(Thresholding(), squares, magnifications=[1, 2], looks=list(LOOKS))
    assert [(row.magnification, row.look) for row in rows] == [
        (times, look) for times in (1, 2) for look in LOOKS
    ]
    assert all(row.found == 1 and row.centres_hit == 1 for row in rows)
    assert all(row.cut > 0 and row.cut_found == 1 for row in rows if row.magnification == 2)


def test_looks_do_what_they_say():
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(20, 236, (12, 16, 3), np.uint8))
    pixels = np.asarray(small.resize((320, 240), Image.Resampling.BICUBIC))
    seen = {name: look(pixels).astype(int) for name, look in LOOKS.items()}
    given = pixels.astype(int)
    for name, look in seen.items():
        assert look.shape == given.shape, name
        assert (name == "as it is") == np.array_equal(look, given), name

    def spread(image):
        return (image.max(axis=2) - image.min(axis=2)).mean()

    assert (seen["red and blue exchanged"] == given[..., ::-1]).all()
    assert spread(seen["grey"]) == 0
    assert spread(seen["saturated"]) > 1.5 * spread(given)
    np.testing.assert_allclose(seen["dark"], given * 0.55, atol=0.5)
    np.testing.assert_allclose(255 - seen["pale"], (255 - given) / 2, atol=1)
    red, green, blue = (seen["pink"] - given).mean(axis=(0, 1))
    assert green < blue + 1e-9 < red
    assert (seen["yellow"] - given)[..., 2].mean() < -10
    expected = np.stack(
        [ndimage.gaussian_filter(given[..., c].astype(float), 1.0) for c in range(3)], 2
    )
    assert np.abs(seen["out of focus"] - expected)[8:-8, 8:-8].mean() < 2
    assert (seen["noisy"] - given).std() == pytest.approx(12, abs=1.5)
    assert 0 < np.abs(seen["JPEG of quality 30"] - given).mean() < 12


def invoke(*arguments):
    return CliRunner().invoke(app, ["robustness", *map(str, arguments)])


@pytest.mark.slow
def test_the_command(tmp_path):
    write_chula(tmp_path / "data", groups=2, fields_per_group=4)
    at = ["--data", tmp_path / "data", "--out", tmp_path / "out"]
    result = invoke(*at, "--magnifications", "1,2.5", "--looks", "as it is, dark")
    assert result.exit_code == 0, result.exception
    table = json.loads((tmp_path / "out/robustness.json").read_text())
    assert [(row["magnification"], row["look"]) for row in table["rows"]] == [
        (1, "as it is"), (1, "dark"), (2.5, "as it is"), (2.5, "dark"),
    ]  # fmt: skip
    assert table["rows"][0]["cells"] > 10
    found = sum(row["cells"] * row["found"] for row in table["rows"] if row["cells"])
    assert found > 0.8 * sum(row["cells"] for row in table["rows"])
    assert "trained on 8 of these 8 images" in table["notes"][0]
    assert "| 2.5 | dark |" in (tmp_path / "out/robustness.md").read_text()


def test_wrong_options_are_refused(squares, tmp_path):
    with pytest.raises(UsageError, match=r"--looks must be of as it is, pink.*\(got mauve\)"):
        measure(Thresholding(), squares, looks=["mauve"])
    with pytest.raises(UsageError, match=r"--magnifications must lie in 1..8 \(got 0.5\)"):
        measure(Thresholding(), squares, magnifications=[0.5])
    with pytest.raises(UsageError, match=r"--magnifications must lie in 1..8 \(got nan\)"):
        measure(Thresholding(), squares, magnifications=[float("nan")])
    refused = invoke("--data", tmp_path, "--out", tmp_path / "out", "--magnifications", "two")
    assert "--magnifications must be numbers" in str(refused.exception)
