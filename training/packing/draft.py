"""Hold a pack that is being made: export its networks, open the engine with it, and write it."""

from __future__ import annotations

import inspect
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torchvision.models.detection import FasterRCNN

from rbc_engine.engine import Engine
from rbc_engine.errors import RbcError
from rbc_engine.packs.golden import encode_golden
from rbc_engine.packs.manifest import SCHEMA, FamiliaritySettings, Manifest
from rbc_engine.packs.pack import Pack
from rbc_engine.training.datasets.base import Dataset
from rbc_engine.training.networks.export import export_classifier, export_detector
from rbc_engine.training.networks.models import Classifier
from rbc_engine.training.packing.release import file_records, make_golden, write_pack
from rbc_engine.training.recipes import PackRecipe
from rbc_engine.types.arrays import UInt8
from rbc_engine.types.regions import Regions

__all__ = ["Draft", "Notes", "checkout_commit", "export_networks"]

Notes = Mapping[str, str | int | float | bool]
Log = Callable[[str], None]


@dataclass(frozen=True, eq=False, kw_only=True)
class Draft:
    """Hold a pack without its score threshold, golden results and measured accuracy."""

    recipe: PackRecipe
    dataset: Dataset
    notes: Notes
    files: Mapping[str, bytes]
    scratch: Path
    familiarity: FamiliaritySettings | None = None

    @contextmanager
    def engine(self, score_threshold: float, *, estimate_scale: bool = False) -> Iterator[Engine]:
        """Open the engine with this draft, on the CPU in fp32."""
        files = {**self.files, "golden.npz": encode_golden([])}
        with tempfile.TemporaryDirectory(dir=self.scratch, prefix="draft-") as folder:
            pack = Path(folder) / "pack"
            write_pack(pack, manifest=self._manifest(score_threshold, {}, files), files=files)
            with Engine.open(
                pack, device="cpu", precision="fp32", estimate_scale=estimate_scale
            ) as engine:
                yield engine

    def write(self, out: Path, *, score_threshold: float, accuracy: Notes) -> Pack:
        """Compute the golden results, and write the pack."""
        with self.engine(score_threshold) as engine:
            golden = make_golden(lambda frame: _regions(engine, frame))
        files = {**self.files, "golden.npz": golden}
        return write_pack(
            out, manifest=self._manifest(score_threshold, accuracy, files), files=files
        )

    def _manifest(
        self, score_threshold: float, accuracy: Notes, files: Mapping[str, bytes]
    ) -> Manifest:
        recipe = self.recipe
        return Manifest.model_validate(
            {
                "schema": SCHEMA,
                "name": recipe.name,
                "version": recipe.version,
                "licence": recipe.licence,
                "description": recipe.description,
                "types": self.dataset.types,
                "abnormal": self.dataset.abnormal,
                "detector": recipe.detector.model_copy(update={"score_threshold": score_threshold}),
                "classifier": recipe.classifier,
                "caller": recipe.caller,
                "familiarity": self.familiarity,
                "training": self.notes,
                "accuracy": accuracy,
                "files": file_records(files),
            }
        )


def export_networks(
    recipe: PackRecipe, detector: FasterRCNN, classifier: Classifier, log: Log
) -> dict[str, bytes]:
    """Return the files of the networks."""
    log("exporting the networks")
    network_a, network_b = export_detector(detector)
    return {
        "detector.onnx": network_a,
        "box_head.onnx": network_b,
        "classifier.onnx": export_classifier(
            classifier,
            patch_px=recipe.classifier.patch_px,
            temperatures=recipe.classifier.temperatures,
        ),
    }


def checkout_commit() -> str | None:
    """Return the git commit of the checkout that this program runs from, with -dirty if it was
    changed; None outside one.
    """
    git = shutil.which("git")
    source = Path(inspect.getfile(Engine))
    if git is None:
        return None
    for arguments in (
        # An installed copy may lie inside a checkout of something else.
        ["ls-files", "--error-unmatch", source.name],
        ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
    ):
        answer = subprocess.run(
            [git, "-C", str(source.parent), *arguments], capture_output=True, text=True, check=False
        )
        if answer.returncode != 0:
            return None
    return answer.stdout.strip()


def _regions(engine: Engine, frame: UInt8) -> Regions:
    regions = engine.analyze(frame).regions
    if regions is None:
        raise RbcError("the engine gave no regions for a rendered frame; report this")
    return regions
