"""The detector of cells: unknown boxes are in neither loss, and a training that was stopped or
moved ends the same.
"""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
import torch

from rbc_engine.errors import UsageError
from rbc_engine.training.datasets.laboratories.collection import find_collection
from rbc_engine.training.datasets.laboratories.load import load_fields
from rbc_engine.training.fit.cells.train import load_cell_detector, train_cell_detector
from rbc_engine.training.fit.cells.training_options import CellDetectorTraining
from rbc_engine.training.fit.steps import loop
from rbc_engine.training.fit.steps.checkpoint import load_checkpoint
from rbc_engine.training.fit.steps.devices import training_device
from rbc_engine.training.fit.steps.schedule import StepClock
from rbc_engine.training.networks.models import build_detector
from rbc_engine.training.networks.unknown_boxes import in_unknown, leave_out_unknown
from rbc_engine.training.packing.cell_recipe import CELL_KINDS, CELL_RECIPE

from .fake_laboratories import write_laboratories

SETTINGS = CELL_RECIPE.detector.model_copy(update={"proposals": 50, "feature_channels": 16})
TRAINING = CellDetectorTraining(
    steps=3, batch=2, canvas_px=64, seed=5, proposals=50, proposals_per_level=50
)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("laboratories")
    collection = find_collection(str(write_laboratories(folder, smears=2)))
    return load_fields(collection.to_train(), folder, threads=1, log=lambda line: None)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train(loaded, checkpoint: Path, lines: list[str], **options):
    return train_cell_detector(
        loaded.fields,
        loaded.entries,
        kinds=CELL_KINDS,
        settings=SETTINGS,
        training=TRAINING,
        checkpoint=checkpoint,
        log=lines.append,
        **options,
    )


def test_in_unknown():
    unknown = torch.tensor([[10.0, 10, 30, 30], [40, 0, 60, 10]])
    boxes = torch.tensor([[10.0, 10, 30, 30], [25, 10, 45, 30], [20, 10, 40, 30], [0, 0, 200, 200]])
    assert in_unknown(boxes, unknown).tolist() == [True, False, True, False]
    assert in_unknown(boxes, unknown[:0]).tolist() == [False] * 4


def proposals_of(targets):
    """Labels that the two parts of the detector give anchors and proposals."""
    torch.manual_seed(0)
    model = leave_out_unknown(build_detector(settings=SETTINGS, classes=4))
    anchors = torch.tensor(
        [[0.0, 0, 20, 20], [40, 40, 60, 60], [42, 40, 62, 60], [100, 100, 120, 120]]
    )
    rpn, _ = model.rpn.assign_targets_to_anchors([anchors], targets)
    heads = model.roi_heads
    heads._unknown = [target["unknown"] for target in targets]
    _, classes = heads.assign_targets_to_proposals(
        [anchors], [targets[0]["boxes"]], [targets[0]["labels"]]
    )
    return rpn[0].tolist(), classes[0].tolist()


def test_unknown_boxes_are_neither_cells_nor_background():
    target = {
        "boxes": torch.tensor([[0.0, 0, 20, 20]]),
        "labels": torch.tensor([2]),
        "unknown": torch.tensor([[0.0, 0, 20, 20], [40, 40, 60, 60]]),
    }
    rpn, classes = proposals_of([target])
    assert rpn == [1, -1, -1, 0]
    assert classes == [2, -1, -1, 0]
    target["unknown"] = torch.zeros(0, 4)
    rpn, classes = proposals_of([target])
    assert rpn == [1, 0, 0, 0]
    assert classes == [2, 0, 0, 0]


def test_unknown_boxes_change_no_loss_but_by_what_they_leave_out():
    """With everything but the cell unknown, only the cell is learnt from: its objectness alone
    counts.
    """
    torch.manual_seed(0)
    model = leave_out_unknown(build_detector(settings=SETTINGS, classes=4)).train()
    model.transform.min_size = (64,)
    image = torch.rand(3, 64, 64)
    target = {
        "boxes": torch.tensor([[20.0, 20, 44, 44]]),
        "labels": torch.tensor([1]),
        "unknown": torch.tensor([[-500.0, -500, 600, 600]]),
    }
    seen = []
    original = torch.nn.functional.binary_cross_entropy_with_logits

    def note(inputs, labels, *rest):
        seen.append(labels.clone())
        return original(inputs, labels)

    with pytest.MonkeyPatch.context() as patch:
        from torchvision.models.detection import rpn

        patch.setattr(rpn.F, "binary_cross_entropy_with_logits", note)
        model([image], [target])
    assert set(torch.cat(seen).tolist()) == {1.0}


class InterruptedClock(StepClock):
    """Presses Ctrl-C in the second step."""

    def tick(self, step: int, loss: float, rate: float) -> str | None:
        if step == 1:
            signal.raise_signal(signal.SIGINT)
        return super().tick(step, loss, rate)


@pytest.mark.slow
def test_a_training_that_was_stopped_and_moved_ends_as_if_it_was_not(
    loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    lines: list[str] = []
    whole = train(loaded, tmp_path / "whole.pt", lines)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "StepClock", InterruptedClock)
        with pytest.raises(KeyboardInterrupt):
            train(loaded, tmp_path / "stopped.pt", lines)
    (tmp_path / "moved").mkdir()
    moved = tmp_path / "moved/detector.pt"
    shutil.move(tmp_path / "stopped.pt", moved)
    # The same code path as for a GPU.
    resumed = train(loaded, moved, lines, device=training_device("cpu"))
    assert f"resuming from {moved}" in lines
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    final, expected = load_checkpoint(moved)[0], load_checkpoint(tmp_path / "whole.pt")[0]
    assert final is not None
    assert expected is not None
    for name, value in expected["model"].items():
        assert torch.equal(value, final["model"][name]), name

    again = load_cell_detector(moved, kinds=CELL_KINDS, settings=SETTINGS, training=TRAINING)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert again.roi_heads.box_predictor.cls_score.out_features == 1 + len(CELL_KINDS)
    assert type(again.rpn).__module__.startswith("torchvision")
    assert type(whole.rpn).__module__.startswith("torchvision")
    again([torch.rand(3, 80, 90)])


def test_devices_that_do_not_exist_are_refused(monkeypatch: pytest.MonkeyPatch):
    assert training_device("cpu") == torch.device("cpu")
    for name in ("gpu", "cuda:", "cuda:x", "cpu:0", ""):
        with pytest.raises(UsageError, match="--device must be cpu, cuda or cuda:N"):
            training_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="--device cuda needs an NVIDIA GPU"):
        training_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert training_device("cuda") == torch.device("cuda", 0)
    with pytest.raises(UsageError, match="there are 1 GPUs"):
        training_device("cuda:1")
