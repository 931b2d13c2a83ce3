"""A device that computes nothing and does as scripted: wait, fail, exhaust memory, be lost.

Each frame carries a number, the value of its pixels. The one region found in it lies at that
number, and its first probability is that number too, so that a result that got another frame's
shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from rbc_engine.closing import Closing
from rbc_engine.devices.base import DeviceChoice, DeviceKind
from rbc_engine.packs.pack import Pack, find_pack
from rbc_engine.types.frames import HOST, Place

Script = Callable[["ScriptedDevice", str], None]


def _open(number, *, lanes, notes, **_: Any) -> DeviceChoice:
    """One that nobody scripts, and that has no pack."""
    return ScriptedDevice(None, lambda device, step: None, number=number).choice(lanes, notes=notes)


SCRIPTED = DeviceKind(
    name="scripted",
    numbered=True,
    keeps_networks=True,
    decodes=False,
    found=lambda: (0,),
    problems=lambda number: (),
    precisions=lambda number: ("fp16",),
    needs=lambda: (),
    open=_open,
)


def scripted_pack() -> Pack:
    """Return the shipped pack without a scale and a field prior.

    Scripted patches show nothing that could be in focus, and scripted probabilities come out as
    they are.
    """
    pack = Pack.open(find_pack("chula12"))
    detector = pack.manifest.detector.model_copy(update={"um_per_canvas_px": None})
    classifier = pack.manifest.classifier.model_copy(update={"field_prior": None})
    changed = {"detector": detector, "classifier": classifier}
    return replace(pack, manifest=pack.manifest.model_copy(update=changed))


class ScriptedDevice(Closing):
    """Open it. script: called before each step of a lane, with the device and the step's name."""

    backend = "nothing"
    precision = "fp16"

    def __init__(self, pack: Pack | None, script: Script, *, number: int = 0, root=None) -> None:
        self.pack, self.script, self.number = pack, script, number
        self.place = Place(SCRIPTED.name, number)
        self.name = str(self.place)
        self.root = root or self
        self.lane_number = 0
        self.closed = False
        if root is None:
            self.opened: list[ScriptedDevice] = []
        self.ops = SimpleNamespace(
            resize_letterbox=self._resize_letterbox,
            generate_proposals=self._generate_proposals,
            roi_align=self._roi_align,
            postprocess_detections=self._postprocess_detections,
            crop_resize=self._crop_resize,
        )

    def choice(self, lanes: int, **more: Any) -> DeviceChoice:
        values = {
            "kind": SCRIPTED,
            "place": self.place,
            "threads": 1,
            "lane_frames": 2,
            "batch_frames": 2,
            "batch_patches": (2, 4),
            "notes": (),
        } | more
        return DeviceChoice(device=self, lanes=lanes, **values)

    def step(self, name: str) -> None:
        assert not self.closed, f"{name} on a lane that was closed"
        self.script(self, name)

    def enter(self) -> None:
        pass

    def lane(self) -> ScriptedDevice:
        lane = ScriptedDevice(self.pack, self.script, number=self.number, root=self)
        lane.lane_number = len(self.opened)
        self.opened.append(lane)
        return lane

    def free_bytes(self) -> int:
        return 1 << 40

    def upload(self, array):
        self.step("upload")
        if getattr(array, "place", HOST) not in (HOST, self.place):
            raise ValueError(f"array lies in the memory of {array.place}, not of {self.place}")
        return array

    def empty(self, shape, dtype):
        return np.zeros(shape, dtype)

    def download(self, *arrays):
        self.step("download")
        return tuple(np.array(array) for array in arrays)

    def load(self, onnx, *, outputs, shapes, meter=None):
        self.step("load")

        def network(inputs: Mapping[str, Any]) -> dict[str, Any]:
            (name,) = shapes
            self.step(name)
            (numbers,) = inputs.values()
            return dict.fromkeys(outputs, numbers)

        return network

    def load_classifier(self, onnx, *, heads, shape, meter=None):
        self.step("load")

        def network(inputs: Mapping[str, Any]) -> dict[str, Any]:
            self.step("patches")
            assert len(inputs["patches"]) == shape[0]
            probabilities = np.zeros((shape[0], len(self.pack.types)), np.float32)
            probabilities[:, 0] = inputs["patches"][:, 0] / 255
            return {"probabilities": probabilities}

        return network

    def close(self) -> None:
        assert not self.closed or self.root is self, "a lane closed twice"
        self.closed = True

    def _resize_letterbox(self, frames, resized_hw, **_):
        self.step("resize_letterbox")
        return np.array([frame[0, 0, 0] for frame in frames], np.float32)

    def _generate_proposals(self, objectness, deltas, **_):
        self.step("generate_proposals")
        return objectness[0], np.ones(len(objectness[0]), np.int32)

    def _roi_align(self, features, boxes, counts, **_):
        self.step("roi_align")
        return features[0]

    def _postprocess_detections(self, class_logits, box_deltas, proposals, counts, **_):
        self.step("postprocess_detections")
        images = len(proposals)
        boxes = np.zeros((images, 3, 4), np.float32)
        boxes[:, 0, :2] = proposals[:, None]
        boxes[:, 0, 2:] = proposals[:, None] + 20
        scores = np.full((images, 3), 0.9, np.float32)
        classes = np.ones((images, 3), np.uint8)
        return boxes, scores, classes, np.ones(images, np.int32), np.zeros(images, np.bool_)

    def _crop_resize(self, frames, windows, frame_index, **_):
        self.step("crop_resize")
        return np.array([[frames[index][0, 0, 0]] for index in frame_index], np.float32)
