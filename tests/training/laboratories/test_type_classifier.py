"""The classifier over several laboratories: what it is drawn, what it is taught, and what is left
of it in the end.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rbc_engine.errors import UsageError
from rbc_engine.packs.manifest import ClassifierSettings
from rbc_engine.training.datasets.formats.chula12 import ABNORMAL, TYPES
from rbc_engine.training.datasets.laboratories.base import overlap
from rbc_engine.training.datasets.laboratories.collection import find_collection
from rbc_engine.training.datasets.laboratories.load import load_fields
from rbc_engine.training.fit.cell_types.draws import TypeBatch, TypeDraws
from rbc_engine.training.fit.cell_types.examples import Role, gather_examples, normal_type
from rbc_engine.training.fit.cell_types.teachers import Teachers
from rbc_engine.training.fit.cell_types.train import (
    load_type_classifier,
    loss_of,
    train_type_classifier,
    without_auxiliary,
)
from rbc_engine.training.fit.cell_types.training_options import AUXILIARY, TypeTraining
from rbc_engine.training.fit.classifier import (
    ClassifierTraining,
    new_classifier,
    train_classifier,
)
from rbc_engine.training.networks.models import Classifier
from rbc_engine.training.packing.cell_recipe import CELL_RECIPE, classifier_settings

from .fake_laboratories import write_laboratories

T = len(TYPES)
TRAINING = TypeTraining(
    trunk="resnet18", stages=((32, 32), (48, 16)), batch=16, seed=5, platelet_share=0.08
)
SETTINGS = classifier_settings(TRAINING, types=TYPES)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("laboratories")
    collection = find_collection(str(write_laboratories(folder, smears=3)))
    return load_fields(collection.to_train(), folder, threads=1, log=lambda line: None)


@pytest.fixture(scope="module")
def examples(loaded):
    return examples_of(loaded.fields, loaded.entries)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def examples_of(fields, entries):
    return gather_examples(
        fields,
        entries,
        types=T,
        short_side_px=CELL_RECIPE.detector.short_side_px,
        cell_canvas_px=30.0,
    )


def draws_of(examples, loaded, **changes):
    training = replace(TRAINING, **changes)
    return TypeDraws(examples, loaded.fields, normal=0, settings=SETTINGS, training=training)


def test_the_default_trunk_has_its_own_normalisation():
    lite = classifier_settings(TypeTraining(), types=TYPES)
    assert (lite.mean_rgb, lite.std_rgb, lite.patch_px) == ((127.0,) * 3, (128.0,) * 3, 96)
    assert SETTINGS.mean_rgb == CELL_RECIPE.classifier.mean_rgb
    assert SETTINGS.patch_px == 48
    ClassifierSettings.model_validate(lite.model_dump())


def test_examples_are_what_is_known_of_each_cell(loaded, examples):
    labs = examples.laboratories
    assert set(labs[examples.of(Role.TYPED)]) == {"typed"}
    assert set(labs[examples.of(Role.WEAK_NORMAL)]) == {"white", "donors"}
    assert set(labs[examples.of(Role.WHITE_CELL)]) == {"white"}
    assert set(labs[examples.of(Role.PLATELET)]) == {"white"}
    assert "plain" in set(labs[examples.of(Role.UNLABELLED)])
    regions = examples.regions
    assert regions.types[examples.of(Role.TYPED)].any(axis=1).all()
    assert not regions.types[examples.roles != Role.TYPED].any()
    fields = {id(field.pixels): field for field in loaded.fields}
    for role in (Role.WEAK_NORMAL, Role.WHITE_CELL):
        for index in examples.of(role):
            field = fields[id(regions.frames[regions.frame_index[index]])]
            box = regions.boxes[index]
            height, width = field.pixels.shape[:2]
            assert (box[:2] > 1).all()
            assert (box[2:] < np.array([width, height]) - 1).all()
            if role == Role.WEAK_NORMAL:
                shared = overlap(box[None], field.boxes)
                assert (shared > 0.03).sum() == 1
            np.testing.assert_array_equal(examples.density[index], field.stain.density)
    # The median cell of any field has the size that a pack's cells have.
    side = np.sqrt((regions.boxes[:, 2:] - regions.boxes[:, :2]).prod(axis=1))
    weak = examples.of(Role.WEAK_NORMAL)
    assert 27 < np.median((side * regions.canvas_scales)[weak]) < 33


def test_without_types_or_one_normal_type_it_is_refused(loaded):
    with pytest.raises(ValueError, match="no field has a region whose types are known"):
        examples_of([f for f in loaded.fields if f.labels is None], loaded.entries)
    assert normal_type(TYPES, ABNORMAL) == 0
    with pytest.raises(UsageError, match=r"have 2 of them .*--without"):
        normal_type(("a", "b", "c"), ("c",))


def test_a_batch_teaches_each_role_its_own(examples, loaded):
    batch = draws_of(examples, loaded).batch(0)
    assert batch.patches.shape == (16, 3, 32, 32)
    assert batch.wanted.shape == batch.weights.shape == (16, T + len(AUXILIARY))
    assert bool(batch.patches.isfinite().all())
    assert bool(batch.labelled.all())
    # By shares: 9 typed, 3 weak normals, 1 white cell, 1 platelet, 2 clumps.
    wanted, weights = batch.wanted.numpy(), batch.weights.numpy()
    weak = slice(9, 12)
    np.testing.assert_allclose(wanted[weak, 0], 0.95)
    assert not wanted[weak, 1:].any()
    np.testing.assert_allclose(weights[weak, :T], 0.4)
    np.testing.assert_allclose(weights[weak, T:], 1)
    np.testing.assert_array_equal(wanted[12, T:], [1, 0])
    np.testing.assert_array_equal(wanted[13, T:], [0, 1])
    assert not wanted[12:14, :T].any()
    assert (wanted[:9, :T].sum(axis=1) >= 1).all()
    assert (wanted[14:, :T].sum(axis=1) >= 1).all()
    assert not wanted[:9, T:].any()
    np.testing.assert_array_equal(weights[[*range(9), *range(12, 16)]], 1)


def test_batches_repeat_and_change_size_with_the_stage(examples, loaded):
    draws = draws_of(examples, loaded)
    torch.manual_seed(1)
    first = draws.batch(2)
    torch.manual_seed(2)
    again = draws.batch(2)
    assert first.patches.shape[-1] == 48
    for name in ("patches", "wanted", "weights", "labelled"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert not torch.equal(draws.batch(0).patches, draws.batch(1).patches)


def test_unlabelled_cells_are_drawn_for_teachers_only(examples, loaded):
    batch = draws_of(examples, loaded, unlabelled_share=0.5).batch(0)
    assert int((~batch.labelled).sum()) == 8
    assert not batch.weights[~batch.labelled].any()
    assert not batch.wanted[~batch.labelled].any()


def test_a_laboratory_without_white_cells_is_made_up_for_by_types(loaded):
    fields = [field for field in loaded.fields if field.laboratory in ("typed", "plain")]
    examples = examples_of(fields, loaded.entries)
    draws = TypeDraws(examples, fields, normal=0, settings=SETTINGS, training=TRAINING)
    batch = draws.batch(0)
    assert len(batch.patches) == 16
    assert not batch.wanted[:, T:].any()
    assert (batch.wanted[:, :T].sum(dim=1) >= 1).all()


def test_frequencies_are_what_is_drawn(examples, loaded):
    draws = draws_of(examples, loaded, batch=200, clump_share=0.0)
    drawn = []
    for step in range(12):
        batch = draws.batch(step)
        red = ~(batch.wanted[:, T:] > 0).any(dim=1)
        drawn.append((batch.wanted[red][:, :T] > 0.5).float().mean(dim=0))
    np.testing.assert_allclose(
        draws.frequencies(), torch.stack(drawn).mean(dim=0).numpy(), atol=0.03
    )


def test_auxiliary_outputs_are_left_out_and_the_rest_stays():
    torch.manual_seed(0)
    model = Classifier(types=T + len(AUXILIARY), trunk="resnet18", hidden=8).eval()
    patches = torch.randn(2, 3, 32, 32)
    trimmed = without_auxiliary(model)
    with torch.inference_mode():
        torch.testing.assert_close(trimmed(patches)[1], model(patches)[1][:, :T])
    assert model.head.second.out_channels == T + len(AUXILIARY)


def batch_of(wanted, weights, labelled) -> TypeBatch:
    return TypeBatch(
        patches=torch.zeros(len(wanted), 3, 1, 1),
        wanted=torch.tensor(wanted),
        weights=torch.tensor(weights),
        labelled=torch.tensor(labelled),
    )


def test_the_loss_by_hand():
    def entropy(p: float, want: float) -> float:
        return -(want * np.log(p) + (1 - want) * np.log(1 - p))

    p = np.array([[0.8, 0.3], [0.6, 0.5]])
    logits = torch.from_numpy(np.log(p / (1 - p)))
    batch = batch_of([[1.0, 0.0], [0.0, 0.0]], [[1.0, 0.5], [0.0, 0.0]], [True, False])
    hard = entropy(0.8, 1) + 0.5 * entropy(0.3, 0)
    assert float(loss_of(logits, batch, None, soft_weight=0.0)) == pytest.approx(hard / 4)
    answers = torch.tensor([[0.9, 0.2], [0.7, 0.1]], dtype=torch.float64)
    soft = entropy(0.8, 0.9) + entropy(0.3, 0.2)
    unlabelled = entropy(0.6, 0.7) + entropy(0.5, 0.1)
    expected = (0.25 * hard + 0.75 * soft + unlabelled) / 4
    assert float(loss_of(logits, batch, answers, soft_weight=0.75)) == pytest.approx(expected)


def test_teachers_see_the_students_patches_as_their_own():
    torch.manual_seed(0)
    teachers = [Classifier(types=3, trunk="resnet18", hidden=4).eval() for _ in range(2)]
    own = SETTINGS.model_copy(
        update={"patch_px": 40, "mean_rgb": (127.0,) * 3, "std_rgb": (128.0,) * 3}
    )
    student = SETTINGS.model_copy(update={"patch_px": 40})
    levels = torch.randint(0, 256, (4, 3, 40, 40)).float()

    def normalised(settings):
        mean, std = (
            torch.tensor(v).view(1, 3, 1, 1) for v in (settings.mean_rgb, settings.std_rgb)
        )
        return (levels - mean) / std

    with torch.inference_mode():
        expected = sum(
            model(normalised(settings))[1].sigmoid()
            for model, settings in zip(teachers, (own, student), strict=True)
        )
    found = Teachers(
        [(teachers[0], own), (teachers[1], student)], student=student, device=torch.device("cpu")
    )(normalised(student))
    torch.testing.assert_close(found, expected / 2, rtol=1e-3, atol=1e-4)
    assert not found.requires_grad
    smaller = student.model_copy(update={"patch_px": 32})
    answers = Teachers([(teachers[0], smaller)], student=student, device=torch.device("cpu"))
    assert answers(normalised(student)).shape == (4, 3)
    with pytest.raises(ValueError, match="at least one teacher"):
        Teachers([], student=student, device=torch.device("cpu"))


def train(draws, checkpoint: Path, training=TRAINING, **options):
    return train_type_classifier(
        draws,
        types=T,
        settings=SETTINGS,
        training=training,
        checkpoint=checkpoint,
        log=lambda line: None,
        **options,
    )


def test_every_tensor_of_a_step_is_on_the_device(
    examples, loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A device that knows no values, but refuses tensors of any other: the first value asked for is
    the step's loss.
    """
    device = torch.device("meta")
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(torch.optim, "AdamW", lambda groups, lr, fused: torch.optim.SGD(groups, lr))
    teacher = Classifier(types=T + len(AUXILIARY), trunk="resnet18", hidden=4)
    settings = SETTINGS.model_copy(update={"patch_px": 40, "mean_rgb": (127.0,) * 3})
    with pytest.raises(RuntimeError, match=r"item\(\) cannot be called on meta tensors") as caught:
        train(
            draws_of(examples, loaded),
            tmp_path / "classifier.pt",
            teachers=Teachers([(teacher, settings)], student=SETTINGS, device=device),
            device=device,
        )
    assert any("refuse_divergence" in str(entry) for entry in caught.traceback)
    with pytest.raises(RuntimeError, match=r"item\(\) cannot be called on meta tensors") as caught:
        train_classifier(
            examples.regions,
            settings=SETTINGS,
            training=ClassifierTraining(trunk="resnet18", stages=((32, 16),), batch=16),
            checkpoint=tmp_path / "plain.pt",
            device=device,
            log=lambda line: None,
        )
    assert any("refuse_divergence" in str(entry) for entry in caught.traceback)


@pytest.mark.slow
def test_a_student_comes_to_answer_as_its_teacher(examples, loaded, tmp_path: Path):
    """A teacher that says yes to one output and no to all others, against the labels."""
    torch.manual_seed(0)
    teacher = Classifier(types=T + len(AUXILIARY), trunk="resnet18", hidden=4)
    with torch.no_grad():
        teacher.head.second.weight.zero_()
        teacher.head.second.bias.fill_(-6.0)
        teacher.head.second.bias[4] = 6.0
    training = replace(
        TRAINING,
        stages=((32, 16 * 40),),
        learning_rate=3e-3,
        ema_decay=0.0,
        soft_weight=1.0,
        unlabelled_share=0.4,
    )
    draws = TypeDraws(examples, loaded.fields, normal=0, settings=SETTINGS, training=training)
    device = torch.device("cpu")
    teachers = Teachers([(teacher, SETTINGS)], student=SETTINGS, device=device)
    student = train(draws, tmp_path / "student.pt", training, teachers=teachers)
    with torch.inference_mode():
        answers = student(draws.batch(50).patches)[1].sigmoid().mean(dim=0)
    assert answers.shape == (T,)
    assert int(answers.argmax()) == 4
    assert answers[4] > 0.8
    assert answers[0] < 0.2


@pytest.mark.slow
def test_a_finished_training_is_loaded_with_and_without_auxiliary_outputs(
    examples, loaded, tmp_path: Path
):
    path = tmp_path / "classifier.pt"
    trained = train(draws_of(examples, loaded), path)
    again = load_type_classifier(path, types=T, training=TRAINING)
    for name, value in trained.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    whole = load_type_classifier(path, types=T, training=TRAINING, auxiliary=True)
    assert whole.head.second.out_channels == T + len(AUXILIARY)
    # A second call has nothing left to do.
    assert torch.equal(
        train(draws_of(examples, loaded), path).head.second.bias, trained.head.second.bias
    )


@pytest.mark.slow
def test_frozen_norms_keep_their_statistics(examples, loaded, tmp_path: Path):
    training = replace(TRAINING, frozen_norms=True)
    model = train(draws_of(examples, loaded), tmp_path / "frozen.pt", training)
    torch.manual_seed(TRAINING.seed)
    begun = new_classifier(T + len(AUXILIARY), TRAINING)
    for name, value in model.trunk.state_dict().items():
        if "running_" in name:
            assert torch.equal(value, begun.trunk.state_dict()[name])
    assert not torch.equal(model.trunk.conv1.weight, begun.trunk.conv1.weight)
