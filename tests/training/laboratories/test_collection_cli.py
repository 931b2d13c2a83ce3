"""`rbc-engine train --collection`: what is refused by name, a killed training moved elsewhere, and
teachers.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from rbc_engine.cli.models.train import app
from rbc_engine.engine import Engine
from rbc_engine.errors import UsageError
from rbc_engine.packs.pack import Pack
from rbc_engine.sources.images.decode import read_image
from rbc_engine.training.collection_plan import CollectionPlan
from rbc_engine.training.datasets.formats.chula12 import TYPES
from rbc_engine.training.fit.steps.checkpoint import load_checkpoint
from rbc_engine.training.workspace import Workspace

from .fake_laboratories import COLLECTION, edit_boxes, first_rows, write_laboratories

SPLIT = ["--threads", 1, "--validation-share", 0.35]
SCRATCH = ["--trunk-weights", "scratch"]
DETECTOR = ["--steps", 4, *SCRATCH]
CLASSIFIER = [
    *("--stages", "32:32,40:32", "--batch", 16, "--classifier-trunk", "resnet18"),
    *SCRATCH,
]
# Kills itself in the third step; a checkpoint is written after every one.
KILLED = """
import os, signal, sys
from rbc_engine.training.fit.steps import loop
class Killed(loop.StepClock):
    def checkpoint_due(self):
        return True
    def tick(self, step, loss, rate):
        if step == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().tick(step, loss, rate)
loop.StepClock = Killed
from rbc_engine.cli import main
main()
"""


def invoke(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments: object) -> str:
    exception = invoke(*arguments).exception
    assert isinstance(exception, UsageError), exception
    return str(exception)


@pytest.fixture(scope="module", autouse=True)
def same_threads_afterwards():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("laboratories") / "data"
    folder.mkdir()
    write_laboratories(folder, smears=6)
    return folder


def options(data: Path, work: Path) -> list[object]:
    collection = data / "fake.toml"
    return ["--data", data, "--work", work, "--collection", collection, *SPLIT]


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("train") / "work"
    for network, more in (("detector", DETECTOR), ("classifier", CLASSIFIER)):
        result = invoke(network, *options(data, work), *more)
        assert result.exit_code == 0, (result.output, result.exception)
        assert "forbidden is marked measure-only (licence: none stated): not trained" in (
            result.stderr
        )
        assert f"{network} step 4/4" in result.stderr
    return work


@pytest.mark.slow
@pytest.mark.parametrize("network", ["detector", "classifier"])
def test_a_killed_training_resumed_in_another_folder_ends_the_same(
    data: Path, finished: Path, tmp_path: Path, network: str
):
    more = DETECTOR if network == "detector" else CLASSIFIER
    arguments = ["train", network, *options(data, tmp_path / "here"), *more]
    command = [sys.executable, "-c", KILLED, *map(str, arguments)]
    killed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    checkpoint = load_checkpoint(tmp_path / "here" / f"{network}.pt")[0]
    assert checkpoint is not None
    assert checkpoint["step"] == 2
    # Another machine: other folders for the work and for the data.
    shutil.move(tmp_path / "here", tmp_path / "there")
    shutil.copytree(data, tmp_path / "data")
    resumed = invoke(network, *options(tmp_path / "data", tmp_path / "there"), *more)
    assert resumed.exit_code == 0, (resumed.output, resumed.exception)
    assert "resuming from" in resumed.stderr
    found = load_checkpoint(tmp_path / "there" / f"{network}.pt")[0]
    expected = load_checkpoint(finished / f"{network}.pt")[0]
    assert found is not None
    assert expected is not None
    for part in ("model", "average"):
        for name, value in expected[part].items():
            assert torch.equal(value, found[part][name]), (part, name)


@pytest.mark.slow
def test_what_is_held_out_and_noted(data: Path, finished: Path):
    record = json.loads((finished / "training.json").read_text())["sections"]
    assert record["data"]["collection"] == "fake"
    assert [entry["name"] for entry in record["data"]["datasets"]] == [
        *("typed", "white", "plain", "donors"),
    ]
    held_out = record["data"]["validation_images"]
    assert any(name.startswith("white/") for name in held_out)
    assert any("/" not in name for name in held_out)
    assert str(data) not in (finished / "training.json").read_text()
    plan = CollectionPlan.open(
        data,
        finished,
        collection=str(data / "fake.toml"),
        seed=0,
        threads=1,
        validation_share=0.35,
        log=lambda line: None,
    )
    assert {f.path for f in plan.train}.isdisjoint(f.path for f in plan.held_out)
    model, settings = plan.trained_classifier()
    assert model.head.second.out_channels == len(TYPES)
    assert settings.patch_px == 40
    assert plan.trained_detector().roi_heads.box_predictor.cls_score.out_features == 4


@pytest.mark.slow
def test_the_pack_knows_its_cells_and_whose_pictures_taught_it(
    data: Path, finished: Path, tmp_path: Path
):
    refused_with = refused(
        *("pack", *options(data, finished), "--out", tmp_path / "p", "--best-f1"),
    )
    assert "--best-f1 and --measured-by do not go with --collection" in refused_with
    result = invoke("pack", *options(data, finished), "--out", tmp_path / "p", "--name", "fake")
    assert result.exit_code == 0, (result.output, result.exception)
    manifest = Pack.open(tmp_path / "p").manifest
    assert (manifest.name, manifest.detector.unit) == ("fake", "cell")
    assert manifest.detector.kinds == ("red", "white_cell", "platelet")
    assert manifest.caller.sensitivity is not None
    assert manifest.caller.specificity is not None
    assert manifest.classifier.unsure_below is not None
    notes = manifest.training
    assert notes["laboratories"] == "white, plain, donors"
    assert "attribution" in notes
    assert str(data) not in (tmp_path / "p" / "pack.toml").read_text()
    assert manifest.accuracy["ap50"] >= 0
    with Engine.open(tmp_path / "p", device="cpu", precision="fp32") as engine:
        picture = next((data / "labs" / "white" / "images").iterdir())
        assert engine.analyze(read_image(picture, name="white")).regions is not None


@pytest.mark.slow
def test_a_student_learns_of_its_teachers(data: Path, finished: Path, tmp_path: Path):
    teach = [*options(data, tmp_path / "student"), "--teacher", f"{finished},{finished}"]
    result = invoke("classifier", *teach, *CLASSIFIER, "--soft-weight", 0.5)
    assert result.exit_code == 0, (result.output, result.exception)
    noted = Workspace(tmp_path / "student").options("classifier")
    assert len(noted["teachers_sha256"]) == 2
    assert noted["soft_weight"] == 0.5
    assert noted["unlabelled_share"] > 0
    plain, taught = (
        load_checkpoint(folder / "classifier.pt")[0] for folder in (finished, tmp_path / "student")
    )
    assert plain is not None
    assert taught is not None
    assert not torch.equal(plain["model"]["head.second.bias"], taught["model"]["head.second.bias"])
    # A teacher that was trained on what is held out here would know its answers.
    other = ["--data", data, "--work", tmp_path / "other", "--collection", data / "fake.toml"]
    leaky = refused(
        *("classifier", *other, "--validation-share", 0.6, "--seed", 3, "--threads", 1),
        *(*CLASSIFIER, "--teacher", finished),
    )
    assert f"--teacher {finished} was trained on" in leaky
    # Another seed of the same split is another training, that holds out the same.
    seeded = invoke(
        *("classifier", *options(data, tmp_path / "seeded"), "--seed", 1, "--split-seed", 0),
        *(*CLASSIFIER, "--teacher", finished),
    )
    assert seeded.exit_code == 0, (seeded.output, seeded.exception)
    begun = invoke(
        *("classifier", *options(data, tmp_path / "begun"), "--start-from", finished, *CLASSIFIER)
    )
    assert begun.exit_code == 0, (begun.output, begun.exception)
    assert "starting with the weights of" in begun.stderr


@pytest.mark.slow
def test_other_options_than_it_was_begun_with_are_refused(data: Path, finished: Path):
    common = options(data, finished)
    assert "was started with data datasets" in refused(
        "detector", *common, *DETECTOR, "--without", "donors"
    )
    assert "was started with detector steps = 4 (got 5)" in refused(
        "detector", *common, *SCRATCH, "--steps", 5
    )


def test_what_may_not_or_cannot_be_trained_on_is_refused_by_name(data: Path, tmp_path: Path):
    common = options(data, tmp_path / "work")
    only = refused("detector", *common, *DETECTOR, "--only", "white,forbidden")
    assert "the dataset forbidden is marked measure-only" in only
    assert "licence: none stated" in only
    assert "--without must name datasets" in refused(
        "detector", *common, *DETECTOR, "--without", "mars"
    )
    assert not (tmp_path / "work").exists()
    nowhere = ["--data", data, "--work", tmp_path / "work", *SPLIT]
    assert "--collection must be one of laboratories" in refused(
        "detector", *nowhere, "--collection", "mars"
    )
    alone = refused("classifier", *nowhere, "--teacher", tmp_path, "--only", "white")
    assert "--only and --teacher need a --collection" in alone
    assert "--device must be cpu, cuda or" in refused("detector", *common, "--device", "tpu")
    untyped = refused("classifier", *common, *CLASSIFIER, "--only", "white,plain")
    assert "no dataset of the collection that is trained on has cell types" in untyped
    untaught = refused("classifier", *options(data, tmp_path / "b"), "--soft-weight", 0.5)
    assert "name one with --teacher" in untaught
    assert "at least 16 of them (got 32:15)" in refused(
        "classifier", *options(data, tmp_path / "c"), "--stages", "32:15", "--batch", 16, *SCRATCH
    )
    assert "has no classifier.pt" in refused(
        *("classifier", *options(data, tmp_path / "d"), "--teacher", tmp_path / "work")
    ) or "has no data" in refused(
        *("classifier", *options(data, tmp_path / "d"), "--teacher", tmp_path / "nothing")
    )


def test_faulty_datasets_are_refused_by_name(tmp_path: Path):
    write_laboratories(tmp_path)
    common = options(tmp_path, tmp_path / "work")
    edit_boxes(tmp_path / "labs/plain", lambda c: first_rows(c)[0].__setitem__(4, "wbc"))
    assert "unknown kind 'wbc'; state its meaning in the collection" in refused(
        "detector", *common, *DETECTOR
    )
    edit_boxes(tmp_path / "labs/plain", lambda c: first_rows(c)[0].__setitem__(4, "rbc"))
    edit_boxes(tmp_path / "labs/plain", lambda c: first_rows(c)[0].__setitem__(2, float("nan")))
    assert "needs four finite numbers" in refused("detector", *common, *DETECTOR)
    (tmp_path / "fake.toml").write_text(COLLECTION.replace('"white_cell"', '"parasite"', 1))
    assert "got the kind 'parasite', which no pack has" in refused("detector", *common)


def test_the_laboratories_need_their_folders(tmp_path: Path):
    message = refused(
        *("detector", "--data", tmp_path, "--work", tmp_path / "work"),
        *("--collection", "laboratories", *DETECTOR),
    )
    assert "lacks the folder chula12 of the dataset chula12" in message
