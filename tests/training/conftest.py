"""A small detector that has learnt, in a few seconds, to find drawn discs: its boxes mean something."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.detection import FasterRCNN

from rbc_engine.devices.cpu.device import HostDevice
from rbc_engine.packs.manifest import DetectorSettings
from rbc_engine.training.networks.export import export_detector, fold_batchnorm
from rbc_engine.training.networks.models import build_detector
from rbc_engine.types.arrays import Float32, UInt8

from ..kernels.reference import background, exposure_gain
from .fake_datasets import write_synthetic

SETTINGS = DetectorSettings(
    short_side_px=96,
    mean_rgb=(228, 210, 215),
    strides_px=(4, 8, 16, 32),
    anchor_sizes_px=((12.0,), (24.0,), (48.0,), (96.0,)),
    anchor_aspect_ratios=(0.5, 1.0, 2.0),
    proposals_per_level=200,
    proposals=100,
    proposal_nms_iou=0.7,
    roi_levels=3,
    feature_channels=32,
    roi_canonical_px=32.0,
    roi_canonical_level=3,
    score_threshold=0.2,
    nms_iou=0.4,
    max_regions=50,
)


@dataclass(frozen=True)
class ExportedDetector:
    settings: DetectorSettings
    reference: FasterRCNN
    """torchvision's module in float32, with the very weights of the exported graphs."""
    network_a: bytes
    network_b: bytes


def draw_discs(
    rng: np.random.Generator, *, height: int, width: int, discs: int, zoom: float = 1.0
) -> tuple[UInt8, Float32]:
    """An image uint8 [height, width, 3] of dark ellipses on a light ground, and their boxes float32 [discs, 4]."""
    image = rng.normal(SETTINGS.mean_rgb, 4, (height, width, 3))
    rows, columns = np.mgrid[:height, :width] + 0.5
    boxes = []
    for _ in range(discs):
        rx, ry = zoom * rng.uniform(6, 13, 2)
        x, y = rng.uniform(rx, width - rx), rng.uniform(ry, height - ry)
        inside = ((columns - x) / rx) ** 2 + ((rows - y) / ry) ** 2 < 1
        image[inside] = rng.normal((150, 70, 80), 10)
        boxes.append((x - rx, y - ry, x + rx, y + ry))
    return image.clip(0, 255).round().astype(np.uint8), np.array(boxes, np.float32)


@contextmanager
def margins_as_the_engine_has(
    model: FasterRCNN, image: UInt8, *, background_level: float | None = None
) -> Iterator[None]:
    """torchvision pads a batch with the mean colour; here with the image's background, exposed as the engine does."""
    mean, std = (
        torch.tensor(values) for values in (model.transform.image_mean, model.transform.image_std)
    )
    exposed = background(image) * exposure_gain(image, background_level)
    colour = np.floor(np.minimum(exposed, 254.75) + 0.5) / 255
    margin = ((torch.from_numpy(colour).float() - mean) / std)[:, None, None]
    original = model.transform.batch_images

    def batch_images(images: list[torch.Tensor], size_divisible: int) -> torch.Tensor:
        batch = original(images, size_divisible)
        for canvas, seen in zip(batch, images, strict=True):
            canvas[:, seen.shape[1] :] = margin
            canvas[:, :, seen.shape[2] :] = margin
        return batch

    with patch.object(model.transform, "batch_images", batch_images):
        yield


def with_float16_weights(module: nn.Module) -> nn.Module:
    """BatchNorm folded and weights rounded as in an export, but computing in float32."""
    return fold_batchnorm(module).half().float()


@pytest.fixture(scope="module", autouse=True)
def same_threads_afterwards() -> Iterator[None]:
    """A command of training sets how many threads torch uses in this process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven rendered slides with their truth; whoever changes it changes a copy."""
    folder = tmp_path_factory.mktemp("synthetic")
    write_synthetic(folder, slides=7)
    return folder


@pytest.fixture(scope="module")
def device() -> Iterator[HostDevice]:
    with HostDevice(precision="fp32", lanes=1, threads=1) as device:
        yield device


@pytest.fixture(scope="session")
def detector() -> ExportedDetector:
    model = _train()
    reference = with_float16_weights(model)
    network_a, network_b = export_detector(model)
    return ExportedDetector(SETTINGS, reference, network_a, network_b)


def _train() -> FasterRCNN:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = build_detector(settings=SETTINGS, representation=64).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.3  # the running statistics have few steps to settle
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for _ in range(30):
        images, targets = [], []
        for _ in range(2):
            image, boxes = draw_discs(rng, height=96, width=96, discs=5)
            images.append(torch.from_numpy(image).permute(2, 0, 1) / 255)
            labels = torch.ones(len(boxes), dtype=torch.long)
            targets.append({"boxes": torch.from_numpy(boxes), "labels": labels})
        loss = sum(model(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()
