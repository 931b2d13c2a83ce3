"""`rbc-engine train`: from labelled images to a pack that the engine opens, with a Ctrl-C on the
way.
"""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rbc_engine.engine import Engine
from rbc_engine.packs.golden import compare, read_golden
from rbc_engine.packs.pack import Pack
from rbc_engine.training.datasets.formats.chula12 import TYPES

from .commands import refused, train
from .fake_chula import write_chula

SMEARS = 7
PROGRAM = [sys.executable, "-m", "rbc_engine", "train"]
SPLIT = ["--threads", "1", "--validation-share", "0.35"]
SCRATCH = ["--trunk-weights", "scratch"]
DETECTOR = ["--steps", "2", *SCRATCH]
CLASSIFIER = ["--stages", "32:32,40:32", "--classifier-trunk", "resnet18", *SCRATCH]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chula") / "data"
    write_chula(folder, groups=SMEARS, fields_per_group=1)
    return folder


@pytest.fixture(scope="module")
def work(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a finished detector, and a classifier that a Ctrl-C ended in the first of
    two steps.
    """
    folder = tmp_path_factory.mktemp("train") / "work"
    arguments = ["all", "--data", data, "--work", folder, "--out", folder / "pack"]
    command = [*PROGRAM, *arguments, *SPLIT, *DETECTOR, *CLASSIFIER]
    with subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "".join(lines).count("no checkpoint yet") == 2:  # the detector's, the classifier's
                break
        process.send_signal(signal.SIGINT)
        lines += process.stderr
    assert process.returncode == 130, "".join(lines)
    assert any(line.startswith("detector step 2/2") for line in lines)
    assert lines[-1].startswith("interrupted; repeat the command to resume")
    assert "Traceback" not in "".join(lines)
    return folder


@pytest.fixture(scope="module")
def finished(data: Path, work: Path) -> Path:
    common = ["--data", data, "--work", work, *SPLIT]
    unfinished = refused("pack", *common, "--out", work / "pack")
    assert "run `rbc-engine train classifier` to finish it" in unfinished
    result = train("classifier", *common, *CLASSIFIER)
    assert result.exit_code == 0, result.output
    assert "classifier step 2/2" in result.stderr
    result = train("detector", *common, *DETECTOR)
    assert result.exit_code == 0, result.output
    assert f"resuming from {work / 'detector.pt'}" in result.stderr
    assert "detector step" not in result.stderr
    return work


@pytest.mark.slow
def test_a_pack_is_made_that_the_engine_opens(data: Path, finished: Path, tmp_path: Path):
    out = tmp_path / "packs" / "mine"
    arguments = ["pack", "--data", data, "--work", finished, "--out", out, *SPLIT]
    command = [*PROGRAM, *arguments, "--max-false-share", "1"]
    result = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert f"written to {out}" in result.stderr
    assert [path.name for path in out.parent.iterdir()] == ["mine"]
    assert not list(finished.glob("draft-*"))

    pack = Pack.open(out)
    assert pack.types == TYPES
    notes, accuracy = pack.manifest.training, pack.manifest.accuracy
    record = json.loads((finished / "training.json").read_text())
    held_out = record["sections"]["data"]["validation_groups"]
    assert notes["held_out_smear_groups"] == ", ".join(held_out)
    assert (
        accuracy["fields"] == accuracy["smear_groups"] == len(held_out) == SMEARS - notes["fields"]
    )
    assert accuracy["labelled_cells"] == 14 * len(held_out)
    for name in ("ap50", "cell_centre_hit_recall", "abnormal_auc_regions_cross_validated_by_smear"):
        assert 0 <= accuracy[name] <= 1
    assert "--steps 2 --detector-trunk resnet18" in notes["detector_command"]
    settings = pack.manifest.classifier
    assert settings.temperatures is not None
    assert settings.field_prior is not None
    assert sum(settings.field_prior.frequencies) >= 1 - 1e-9  # a region may hold several
    assert "--stages 32:32,40:32 --classifier-trunk resnet18" in notes["classifier_command"]
    assert "--validation-share 0.35" in notes["classifier_command"]
    text = (out / "pack.toml").read_text()
    assert not any(str(folder) in text for folder in (data, finished, out)), "folders are private"

    case = read_golden(pack.read("golden.npz"))[1]
    # As the golden answers were made: the finds of a detector of two steps give no scale.
    with Engine.open(out, device="cpu", precision="fp32", estimate_scale=False) as engine:
        assert compare(case.expected, engine.analyze(case.frame).regions) == []

    finish_on_all_smears(data, finished, pack, tmp_path)


def finish_on_all_smears(data: Path, finished: Path, measured: Pack, folder: Path) -> None:
    """The last training: nothing held out, begun with the weights of the one that was measured."""
    common = ["--data", data, "--work", folder / "work", "--threads", 1, "--validation-share", 0]
    start = ["--start-from", finished]
    for arguments in (["detector", *DETECTOR], ["classifier", *CLASSIFIER]):
        result = train(*arguments, *common, *start)
        assert result.exit_code == 0, result.output
        assert f"starting with the weights of {finished}" in result.stderr
    out = folder / "final"
    assert "only then" in refused("pack", *common, "--out", out)
    measured_by = ["--measured-by", measured.folder]
    elsewhere = ["--data", data, "--work", finished, *SPLIT, "--out", out]
    assert "only then" in refused("pack", *elsewhere, *measured_by)
    result = train("pack", *common, "--out", out, *measured_by)
    assert result.exit_code == 0, result.output

    pack = Pack.open(out)
    assert pack.manifest.accuracy == measured.manifest.accuracy
    assert pack.manifest.classifier == measured.manifest.classifier
    assert pack.read("caller.treelite") == measured.read("caller.treelite")
    assert pack.read("classifier.onnx") != measured.read("classifier.onnx")
    notes = pack.manifest.training
    assert notes["fields"] == SMEARS
    assert notes["held_out_smear_groups"] == ""
    held_out = measured.manifest.training["held_out_smear_groups"]
    assert notes["accuracy_measured_with_smear_groups_held_out"] == held_out
    begun = hashlib.sha256((finished / "detector.pt").read_bytes()).hexdigest()
    assert notes["detector_started_from_sha256"] == begun
    case = read_golden(pack.read("golden.npz"))[0]
    with Engine.open(out, device="cpu", precision="fp32", estimate_scale=False) as engine:
        assert compare(case.expected, engine.analyze(case.frame).regions) == []


def test_weights_trained_on_what_is_held_out_here_are_refused(
    data: Path, work: Path, tmp_path: Path
):
    common = ["--data", data, "--work", tmp_path / "work", "--threads", 1]
    other_split = [*common, "--validation-share", 0.6, "--start-from", work]
    message = refused("detector", *other_split, *DETECTOR)
    assert "images that are held out here" in message
    (tmp_path / "empty").mkdir()
    assert "has no data" in refused(
        "detector",
        *common[:2],
        "--work",
        tmp_path / "other",
        *SPLIT,
        "--start-from",
        tmp_path / "empty",
    )


@pytest.mark.slow
def test_a_training_begins_with_a_pack(data: Path, finished: Path, tmp_path: Path):
    common = ["--data", data, "--threads", 1]
    pack = tmp_path / "pack"
    made = train(
        *("pack", *common, "--work", finished, *SPLIT[2:], "--out", pack),
        *("--max-false-share", 1, "--name", "mine"),
    )
    assert made.exit_code == 0, made.output
    start = [*common, "--work", tmp_path / "work", "--start-from"]
    leaky = [*common, "--work", tmp_path / "leaky", "--start-from"]
    assert "images that are held out here" in refused(
        "detector", *leaky, pack, "--validation-share", 0.6, *DETECTOR
    )
    # The shipped pack, by its name, was trained on every smear of data that are called so.
    leaky[-2] = tmp_path / "leaky too"
    assert "held out here" in refused("classifier", *leaky, "chula12", *SPLIT[2:], *CLASSIFIER)
    for network, options in (("detector", DETECTOR), ("classifier", CLASSIFIER)):
        result = train(network, *start, pack, *SPLIT[2:], *options)
        assert result.exit_code == 0, result.output
        assert f"{network} step 2/2" in result.stderr
        assert "start with those of Pack('mine'" in result.stderr or (
            "the detector starts with that of Pack('mine'" in result.stderr
        )
    record = json.loads((tmp_path / "work" / "training.json").read_text())
    assert record["sections"]["classifier"]["start_sha256"] == Pack.open(pack).sha256
    assert "architecture" in str(
        train(
            *("classifier", *common, "--work", tmp_path / "other", "--start-from", pack),
            *(*SPLIT[2:], "--stages", "32:32", "--classifier-trunk", "resnet34"),
        ).exception
    )


def test_other_options_than_it_was_begun_with_are_refused(data: Path, work: Path, tmp_path: Path):
    common = ["--data", data, "--work", work, "--threads", "1"]
    # Another split would evaluate the networks on what they were trained on.
    assert "was started with data validation_" in refused("detector", *common, *DETECTOR)
    assert "was started with detector steps = 2 (got 3)" in refused(
        "detector", *common, *SPLIT, "--steps", 3
    )
    assert "was started with classifier trunk" in refused(
        "classifier", *common, *SPLIT, *CLASSIFIER[:2], "--classifier-trunk", "resnet34"
    )
    # A checkpoint of which nobody knows how it came about.
    (tmp_path / "detector.pt").write_bytes((work / "detector.pt").read_bytes())
    common = ["--data", data, "--work", tmp_path, *SPLIT]
    assert "restore that file" in refused("detector", *common, *DETECTOR)


def test_wrong_options_are_refused(data: Path, tmp_path: Path):
    (tmp_path / "there").mkdir()
    common = ["--work", tmp_path / "work", *SPLIT]
    nowhere = ["--data", tmp_path / "nowhere", *common]
    here = ["--data", data, *common]
    assert "lacks images, labels, smears.csv" in refused("detector", *nowhere)
    assert "--format must be one of chula12" in refused("detector", *nowhere, "--format", "bccd")
    assert "--stages must read" in refused("classifier", *nowhere, "--stages", "40")
    assert "exists; remove it" in refused("pack", *nowhere, "--out", tmp_path / "there")
    assert not (tmp_path / "work").exists()
    assert "has no detector" in refused("pack", *here, "--out", tmp_path / "pack")
    assert "--detector-trunk must be one of" in refused(
        "detector", *here, "--detector-trunk", "vgg"
    )
    assert "--preset must be one of best, paper" in refused("detector", *here, "--preset", "fast")
    assert "--trunk-weights must be one of auto" in refused(
        "classifier", *here, "--trunk-weights", "mine"
    )
    assert "at least 32 of them (got 40:31)" in refused("classifier", *here, "--stages", "40:31")


def test_without_torch_the_extra_is_named(tmp_path: Path):
    """An interpreter in which torch and scikit-learn cannot be found."""
    code = (
        "import importlib.machinery as m\n"
        "find = m.PathFinder.find_spec\n"
        "m.PathFinder.find_spec = classmethod(lambda cls, name, *rest: "
        "None if name in ('torch', 'sklearn') else find(name, *rest))\n"
        "from rbc_engine.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "train", "detector", "--data", ".", "--work"]
    result = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, check=False)
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("rbc-engine: training needs torch, sklearn")
    assert "pip install 'rbc-engine[train]'" in result.stderr
    assert "Traceback" not in result.stderr
