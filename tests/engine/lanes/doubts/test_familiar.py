"""Fields unlike the training: distances by the definition, and what a lane makes of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pydantic import ValidationError
from scipy.spatial.distance import mahalanobis

from rbc_engine.devices.choose import open_device
from rbc_engine.engine import Engine
from rbc_engine.lanes.measure import measure_field
from rbc_engine.lanes.stages.doubts.familiar import MOST_DISTANCE, Familiarity, describe_field
from rbc_engine.packs.manifest import FIELD_FEATURES, FamiliaritySettings
from rbc_engine.packs.pack import Pack, find_pack
from rbc_engine.sources.synthetic.field import render_field
from rbc_engine.training.packing.honesty import describe_fields, fit_familiarity
from rbc_engine.types.results import FieldFlag

WIDTH = len(FIELD_FEATURES)


def rendered(seed: int):
    return render_field(
        seed=seed, width=480, height=360, cells=24 + seed % 9, cell_px=38.0, touching=0.1
    ).pixels


def page():
    image = Image.new("RGB", (480, 360), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    for line in range(24):
        draw.text((10, 5 + 15 * line), "A page of text, of no blood at all. " * 2, fill=(0, 0, 0))
    return np.array(image)


def waves():
    y, x = np.mgrid[:360, :480]
    return np.stack(
        [127 + 120 * np.sin(x / 30), 127 + 120 * np.sin((x + y) / 40), 127 + 120 * np.sin(y / 50)],
        axis=2,
    ).astype(np.uint8)


STRANGE = {
    "inverted": lambda: 255 - rendered(900),
    "a page of text": page,
    "the waves of a test camera": waves,
    "noise": lambda: np.random.default_rng(0).integers(0, 256, (360, 480, 3), np.uint8),
}


@pytest.fixture(scope="module")
def settings():
    fields = [("here", str(seed), rendered(seed)) for seed in range(60)]
    return fit_familiarity(describe_fields(fields))


def described(pixels):
    return describe_field(measure_field(pixels), pixels.shape[:2])


def test_the_distance_is_mahalanobis():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(WIDTH, WIDTH))
    precision = root @ root.T + np.eye(WIDTH)
    mean, place = rng.normal(size=(2, WIDTH))
    settings = FamiliaritySettings(
        mean=tuple(mean), precision=tuple(map(tuple, precision)), threshold=2.0
    )
    familiarity = Familiarity(settings)
    expected = mahalanobis(place, mean, precision) / np.sqrt(WIDTH)
    assert familiarity.distance(place) == pytest.approx(expected)
    assert familiarity.distance(mean) == 0
    assert familiarity.distance(mean + 1e9) == MOST_DISTANCE
    assert familiarity.is_strange(2.01)
    assert not familiarity.is_strange(2.0)


def test_a_frame_with_nothing_on_it_is_not_described():
    assert described(np.full((360, 480, 3), 220, np.uint8)) is None


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_no_smear_is_far_from_smears(settings, name):
    familiarity = Familiarity(settings)
    assert familiarity.is_strange(familiarity.distance(described(STRANGE[name]())))


def test_others_of_the_same_kind_are_near(settings):
    familiarity = Familiarity(settings)
    distances = [familiarity.distance(described(rendered(seed))) for seed in range(500, 530)]
    assert np.mean([familiarity.is_strange(one) for one in distances]) < 0.15


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"mean": (0.0,) * 3}, "mean needs", id="too few"),
        pytest.param({"mean": (float("nan"),) * WIDTH}, "mean", id="NaN"),
        pytest.param({"threshold": float("inf")}, "threshold", id="infinite"),
        pytest.param({"features": ("other",)}, "make the pack again", id="other features"),
        pytest.param(
            {"precision": tuple(map(tuple, -np.eye(WIDTH)))}, "eigenvalues", id="not positive"
        ),
        pytest.param(
            {"precision": tuple(map(tuple, np.triu(np.ones((WIDTH, WIDTH)))))},
            "symmetric",
            id="not symmetric",
        ),
    ],
)
def test_statistics_that_are_none_are_refused(change, message):
    good = {
        "mean": (0.0,) * WIDTH,
        "precision": tuple(map(tuple, np.eye(WIDTH))),
        "threshold": 1.5,
    }
    FamiliaritySettings(**good)
    with pytest.raises(ValidationError, match=message):
        FamiliaritySettings(**{**good, **change})


def test_a_lane_flags_strange_fields_and_leaves_their_mix_of_types_alone(settings):
    pack = Pack.open(find_pack("chula12"))
    knowing = replace(pack, manifest=pack.manifest.model_copy(update={"familiarity": settings}))
    inverted = 255 - rendered(900)
    strict = settings.model_copy(update={"threshold": 1e-6})
    distrusting = replace(pack, manifest=pack.manifest.model_copy(update={"familiarity": strict}))

    def run(pack, pixels, *, field_prior=True):
        with Engine.on(pack, open_device("cpu"), field_prior=field_prior) as engine:
            return [engine.analyze(one) for one in pixels]

    usual, strange, empty = run(knowing, [rendered(5), inverted, np.full_like(inverted, 220)])
    assert usual.flags == FieldFlag(0)
    assert usual.unfamiliar_distance is not None
    assert usual.uncovered is not None
    assert usual.uncovered < 0.3
    assert FieldFlag.UNFAMILIAR in strange.flags
    assert strange.unfamiliar_distance > settings.threshold
    assert (empty.unfamiliar_distance, empty.uncovered, empty.flags) == (None, None, FieldFlag(0))

    [flagged] = run(distrusting, [rendered(5)])
    [alone] = run(pack, [rendered(5)], field_prior=False)
    assert FieldFlag.UNFAMILIAR in flagged.flags
    assert alone.unfamiliar_distance is None
    np.testing.assert_array_equal(flagged.regions.probabilities, alone.regions.probabilities)
    assert not np.array_equal(usual.regions.probabilities, alone.regions.probabilities)
