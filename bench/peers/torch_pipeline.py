"""Run the paper's pipeline in PyTorch, around networks that may be compiled or not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageOps
from sklearn.ensemble import GradientBoostingClassifier
from torch import Tensor
from torchvision.models.detection import FasterRCNN

from rbc_engine.bench.peers.as_regions import regions_of
from rbc_engine.lanes.canvas import at_border, canvas_scale
from rbc_engine.lanes.stages.crop import crop_windows
from rbc_engine.lanes.stages.field_prior import FieldPrior, informative_regions
from rbc_engine.packs.pack import Pack
from rbc_engine.types.arrays import Float32
from rbc_engine.types.frames import FieldRef
from rbc_engine.types.regions import Regions

__all__ = ["TorchPipeline"]


class TorchPipeline:
    """Run detection and classification around given networks.

    detector: torchvision's. classify: patches [R, 3, P, P], normalised, to logits [R, T].
    caller: scikit-learn's. device: of the networks.
    """

    def __init__(
        self,
        pack: Pack,
        *,
        detector: FasterRCNN,
        classify: Callable[[Tensor], Tensor],
        caller: GradientBoostingClassifier,
        device: str = "cpu",
    ) -> None:
        self._manifest = pack.manifest
        self._detector = detector
        self._classify = classify
        self._caller = caller
        self._device = device
        settings = pack.manifest.classifier
        self._field_prior = FieldPrior.of(settings)
        self._mean = torch.tensor(settings.mean_rgb).view(1, 3, 1, 1)
        self._std = torch.tensor(settings.std_rgb).view(1, 3, 1, 1)

    @torch.inference_mode()
    def analyze(self, ref: FieldRef) -> Regions:
        with Image.open(ref.path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).to(self._device) / 255
        found = self._detector([self._exposed(pixels)])[0]
        boxes: Float32 = found["boxes"].float().cpu().numpy()
        scores: Float32 = found["scores"].float().cpu().numpy()
        if not len(boxes):
            empty = np.zeros((0, len(self._manifest.types)), np.float32)
            return regions_of(boxes, scores, empty, np.zeros(0, np.float32), self._manifest)
        patches = (self._cut(image, boxes) - self._mean) / self._std
        logits = self._classify(patches.to(self._device))
        probabilities: Float32 = logits.float().sigmoid().cpu().numpy()
        if self._field_prior is not None:
            frame_hw = (image.height, image.width)
            border = at_border(boxes, frame_hw=frame_hw, scale=self._scale(image))
            informative = informative_regions(scores, border)
            probabilities = self._field_prior(probabilities, informative, [len(boxes)])
        abnormal_p = self._caller.predict_proba(probabilities)[:, 1].astype(np.float32)
        return regions_of(boxes, scores, probabilities, abnormal_p, self._manifest)

    def _exposed(self, pixels: Tensor) -> Tensor:
        """Return the pixels as float32 [3, H, W], 0..1, with the background that the pack's
        detector expects, as in resize_letterbox.
        """
        level = self._manifest.detector.background_level
        if level is None:
            return pixels
        background = pixels[:, ::16, ::16].flatten(1).quantile(0.9, dim=1).mean()
        gain = (level / 255 / background.clamp(min=1 / 255)).clamp(0.5, 3.0)
        return (pixels * gain).clamp(max=1.0)

    def _scale(self, image: Image.Image) -> float:
        frame_hw = (image.height, image.width)
        return canvas_scale(frame_hw, pixel_um=None, settings=self._manifest.detector)

    def _cut(self, image: Image.Image, boxes: Float32) -> Tensor:
        """Crop with PIL: float32 [R, 3, P, P], grey levels. Pixels outside the image have the mean
        colour.
        """
        settings = self._manifest.classifier
        windows = crop_windows(boxes, canvas_scale=self._scale(image), settings=settings)
        size = (image.width, image.height)
        outside = max(0.0, -windows.min(), *(windows[:, 2:] - np.array(size)).max(axis=0))
        border = int(outside) + 1
        grey = tuple(round(level) for level in settings.mean_rgb)
        padded = ImageOps.expand(image, border, fill=grey)
        side = settings.patch_px
        patches = np.stack(
            [
                np.asarray(
                    padded.resize(
                        (side, side),
                        Image.Resampling.BILINEAR,
                        box=tuple((window + border).tolist()),
                    )
                )
                for window in windows
            ]
        )
        return torch.from_numpy(patches).permute(0, 3, 1, 2).float()
