"""Checkpoints on a real disk, damaged and full; and trainings that are stopped and go on."""

from __future__ import annotations

import functools
import resource
import signal
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from rbc_engine.errors import OutputError, UsageError
from rbc_engine.packs.manifest import ClassifierSettings
from rbc_engine.training.datasets.formats.chula12 import load_chula12
from rbc_engine.training.fit import classifier, detector
from rbc_engine.training.fit.region_set import load_regions
from rbc_engine.training.fit.steps import loop
from rbc_engine.training.fit.steps.checkpoint import load_checkpoint, load_finished, save_checkpoint
from rbc_engine.training.fit.steps.schedule import StepClock
from rbc_engine.training.recipes import CHULA12

from ..fake_chula import write_chula


@contextmanager
def full_disk(at_bytes: int):
    """No file of this process may grow over a size: the kernel then fails the write, as on a full
    disk.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (at_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def state(step: int) -> dict[str, object]:
    return {"step": step, "model": {"weight": torch.full((50_000,), float(step))}}


def test_what_is_saved_is_loaded(tmp_path: Path):
    path = tmp_path / "new" / "folder" / "net.pt"
    assert load_checkpoint(path) == (None, "no checkpoint yet")
    save_checkpoint(path, state(1))
    save_checkpoint(path, state(2))
    loaded, line = load_checkpoint(path)
    assert loaded is not None
    assert loaded["step"] == 2
    assert torch.equal(loaded["model"]["weight"], torch.full((50_000,), 2.0))
    assert line == f"resuming from {path}"
    assert sorted(p.name for p in path.parent.iterdir()) == ["net.pt", "net.pt.previous"]


@pytest.mark.parametrize("length", [0, 1, 1000, 150_000])
def test_the_one_before_stands_in_for_a_truncated_one(tmp_path: Path, length: int):
    path = tmp_path / "net.pt"
    save_checkpoint(path, state(1))
    save_checkpoint(path, state(2))
    path.write_bytes(path.read_bytes()[:length])
    loaded, line = load_checkpoint(path)
    assert loaded is not None
    assert loaded["step"] == 1
    assert f"{path} is damaged" in line
    assert f"resuming from {path}.previous" in line
    path.with_name("net.pt.previous").write_bytes(b"PK\x03\x04")
    loaded, line = load_checkpoint(path)
    assert loaded is None
    assert line.count("is damaged") == 2
    assert line.endswith("no checkpoint yet")


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path):
    path = tmp_path / "net.pt"
    save_checkpoint(path, state(1))
    with full_disk(at_bytes=100_000), pytest.raises(OutputError, match="free disk space"):
        save_checkpoint(path, state(2))
    loaded, _ = load_checkpoint(path)
    assert loaded is not None
    assert loaded["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["net.pt"]


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"step": 1, "model": Bomb()}, tmp_path / "net.pt")
    loaded, line = load_checkpoint(tmp_path / "net.pt")
    assert loaded is None
    assert "is damaged" in line
    assert not Path("exploded").exists()


def test_only_a_finished_training_counts(tmp_path: Path):
    path = tmp_path / "detector.pt"
    with pytest.raises(UsageError, match=r"took 0 of 5 steps .* run `rbc-engine train detector`"):
        load_finished(path, steps=5)
    save_checkpoint(path, state(4))
    with pytest.raises(UsageError, match="took 4 of 5 steps"):
        load_finished(path, steps=5)
    assert load_finished(path, steps=4)["step"] == 4


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("chula") / "data"
    write_chula(folder, groups=2, fields_per_group=1)
    return load_chula12(folder, threads=1).fields


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class InterruptedClock(StepClock):
    """Presses Ctrl-C in the second step."""

    def tick(self, step: int, loss: float, rate: float) -> str | None:
        if step == 1:
            signal.raise_signal(signal.SIGINT)
        return super().tick(step, loss, rate)


def train_detector(fields, checkpoint: Path, lines: list[str], start: Path | None = None):
    return detector.train_detector(
        fields,
        settings=CHULA12.detector.model_copy(update={"proposals": 50, "feature_channels": 16}),
        training=detector.DetectorTraining(steps=3, batch=2, canvas_px=64, seed=5),
        checkpoint=checkpoint,
        start=start,
        log=lines.append,
    )


def train_classifier(fields, checkpoint: Path, lines: list[str], start: Path | None = None):
    settings: ClassifierSettings = CHULA12.classifier
    return classifier.train_classifier(
        load_regions(fields, short_side_px=320),
        settings=settings,
        training=classifier.ClassifierTraining(
            trunk="resnet18", stages=((32, 8), (40, 4)), batch=4, seed=5
        ),
        checkpoint=checkpoint,
        start=start,
        log=lines.append,
    )


def train_heads(fields, checkpoint: Path, lines: list[str], start: Path | None = None):
    return classifier.train_classifier(
        load_regions(fields, short_side_px=320),
        settings=CHULA12.classifier.model_copy(update={"patch_px": 32}),
        training=classifier.ClassifierTraining(
            trunk="resnet18", frozen_trunk=True, stages=((32, 12),), batch=4, seed=5
        ),
        checkpoint=checkpoint,
        start=start,
        log=lines.append,
    )


def same(first, second) -> bool:
    """Bit for bit, tensors at any depth."""
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


def in_bf16(train):
    """The same training, computed in bfloat16."""

    def begin(*arguments):
        with pytest.MonkeyPatch.context() as patch:
            for module, name in (
                (detector, "DetectorTraining"),
                (classifier, "ClassifierTraining"),
            ):
                patch.setattr(module, name, functools.partial(getattr(module, name), bf16=True))
            return train(*arguments)

    return begin


@pytest.mark.slow
@pytest.mark.parametrize(
    "train",
    [
        train_detector,
        train_classifier,
        train_heads,
        in_bf16(train_detector),
        in_bf16(train_classifier),
        in_bf16(train_heads),
    ],
    ids=["detector", "classifier", "heads", "detector bf16", "classifier bf16", "heads bf16"],
)
def test_a_training_that_was_stopped_ends_as_if_it_was_not(
    fields, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train
):
    lines: list[str] = []
    whole = train(fields, tmp_path / "whole.pt", lines)
    assert "no checkpoint yet" in lines

    stopped = tmp_path / "stopped.pt"
    with monkeypatch.context() as patch:
        patch.setattr(loop, "StepClock", InterruptedClock)
        with pytest.raises(KeyboardInterrupt):
            train(fields, stopped, lines)
    assert "stopped after step 2" in lines[-1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    at_stop, _ = load_checkpoint(stopped)
    assert at_stop is not None
    assert at_stop["step"] == 2

    lines.clear()
    resumed = train(fields, stopped, lines)
    assert f"resuming from {stopped}" in lines
    final, expected = load_checkpoint(stopped)[0], load_checkpoint(tmp_path / "whole.pt")[0]
    assert same(final, expected)
    assert same(dict(resumed.state_dict()), dict(whole.state_dict()))
    assert not same(at_stop["model"], expected["model"])  # or the last step changed nothing


@pytest.mark.slow
def test_bf16_computes_otherwise_but_nearly_the_same(fields, tmp_path: Path):
    weights = [
        torch.cat([p.flatten() for p in train(fields, tmp_path / f"{n}.pt", []).trunk.parameters()])
        for n, train in enumerate([train_classifier, in_bf16(train_classifier)])
    ]
    assert not torch.equal(*weights)
    torch.testing.assert_close(*weights, rtol=0.1, atol=0.02)


def test_a_loss_that_is_not_finite_ends_the_training(fields, tmp_path: Path):
    training = classifier.ClassifierTraining(
        trunk="resnet18",
        stages=((32, 400),),
        batch=4,
        learning_rate=1e30,
        checkpoint_every_s=0.0,
    )
    with pytest.raises(FloatingPointError, match=r"in step \d+; the weights before it are in"):
        classifier.train_classifier(
            load_regions(fields, short_side_px=320),
            settings=CHULA12.classifier,
            training=training,
            checkpoint=tmp_path / "net.pt",
            log=lambda line: None,
        )
    state, _ = load_checkpoint(tmp_path / "net.pt")
    assert state is not None
    weights = [value for value in state["model"].values() if value.is_floating_point()]
    assert all(bool(value.isfinite().all()) for value in weights)


def test_a_frozen_trunk_stays_and_its_features_are_computed_once(fields, tmp_path: Path):
    lines: list[str] = []
    train_classifier(fields, tmp_path / "first.pt", lines)
    first = load_checkpoint(tmp_path / "first.pt")[0]
    assert first is not None
    model = train_heads(fields, tmp_path / "heads.pt", lines, start=tmp_path / "first.pt")
    for name, value in model.trunk.state_dict().items():
        assert torch.equal(value, first["average"][f"module.trunk.{name}"]), name
    assert not torch.equal(model.head.first.weight, first["average"]["module.head.first.weight"])
    regions = load_regions(fields, short_side_px=320)
    with np.load(tmp_path / "features.npz", allow_pickle=False) as stored:
        features = stored["features"]
    settings = CHULA12.classifier.model_copy(update={"patch_px": 32})
    chosen = np.arange(len(regions))
    patches = regions.cut(
        chosen, regions.windows(chosen, settings), size_px=32, settings=settings, threads=1
    )
    with torch.inference_mode():
        expected = model.trunk(torch.from_numpy(patches))["feature_map"].mean((2, 3)).numpy()
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)

    (tmp_path / "heads.pt").unlink()
    lines.clear()
    train_heads(fields, tmp_path / "heads.pt", lines, start=tmp_path / "first.pt")
    assert any("read from" in line for line in lines)
    (tmp_path / "heads.pt").unlink()
    train_heads(fields, tmp_path / "heads.pt", lines)  # random weights now: other features
    assert any("is of another trunk" in line for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize(
    "train", [train_detector, train_classifier], ids=["detector", "classifier"]
)
def test_a_training_starts_from_another(fields, tmp_path: Path, train):
    lines: list[str] = []
    train(fields, tmp_path / "first.pt", lines)
    first = load_checkpoint(tmp_path / "first.pt")[0]
    assert first is not None
    second = train(fields, tmp_path / "second.pt", lines, start=tmp_path / "first.pt")
    assert f"starting with the weights of {tmp_path / 'first.pt'}, step 3" in lines
    final = load_checkpoint(tmp_path / "second.pt")[0]
    assert final is not None
    assert int(final["average"]["n_averaged"]) == 3
    # Three small steps away from where it began, and far from where random weights begin.
    name = next(name for name in final["model"] if name.endswith("layer1.0.conv1.weight"))
    begun = first["average"][f"module.{name}"]
    step = float((final["model"][name] - begun).norm() / begun.norm())
    assert 0 < step < 0.3
    assert not same(second.state_dict()[name], begun)
    with pytest.raises(UsageError, match="holds no weights to start from"):
        train(fields, tmp_path / "third.pt", lines, start=tmp_path / "absent.pt")
