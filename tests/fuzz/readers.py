"""The readers of files from outside, each with files of the project's own making to damage."""

from __future__ import annotations

import hashlib
import io
import json
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
import treelite
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from rbc_engine.errors import RbcError
from rbc_engine.packs.calibration import NETWORKS, parse_calibration
from rbc_engine.packs.golden import ExpectedRegions, GoldenCase, encode_golden, read_golden
from rbc_engine.packs.graphs.onnx_file import read_graph
from rbc_engine.packs.graphs.onnx_shapes import follow_shapes
from rbc_engine.packs.pack import Pack, find_pack
from rbc_engine.packs.trees import check_trees
from rbc_engine.runs.finished.finished_run import FinishedRun
from rbc_engine.sinks.journal.run_journal import RUN_JOURNAL, RunJournal
from rbc_engine.sinks.journal.stored_result import pack_result
from rbc_engine.sinks.out_folder import claim
from rbc_engine.sinks.output import RunOutput
from rbc_engine.sinks.run_json import RunRecord
from rbc_engine.sources.images.decode import decode_image
from rbc_engine.sources.slides.base import Box
from rbc_engine.sources.slides.open import is_whole_slide, open_slide
from rbc_engine.types.regions import Regions
from rbc_engine.types.results import FieldResult

from .mutations import mutant

__all__ = ["READERS", "Reader"]


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Describe a reader.

    seeds: made in a folder. read: takes bytes and that folder; returns if they were accepted, and
    raises one of `refusals` if not. text: whether its files are text.
    """

    seeds: Callable[[Path], Sequence[bytes]]
    read: Callable[[bytes, Path], object]
    refusals: tuple[type[Exception], ...] = (RbcError,)
    text: bool = False

    def mutants(self, folder: Path, seed: int) -> Callable[[int], bytes]:
        seeds = self.seeds(folder)

        def make(number: int) -> bytes:
            rng = random.Random(f"{seed} {number}")
            return mutant(rng.choice(seeds), rng, text=self.text)

        return make


def _pixels(height: int = 48, width: int = 64) -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(60, 230, (6, 8, 3), np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def _images(folder: Path) -> list[bytes]:
    colour = Image.fromarray(_pixels())
    options: list[tuple[str, Image.Image, dict[str, object]]] = [
        ("JPEG", colour, {}),
        ("JPEG", colour, {"progressive": True}),
        ("JPEG", colour.convert("CMYK"), {}),
        ("JPEG", colour.convert("L"), {"restart_marker_blocks": 2}),
        ("PNG", colour, {}),
        ("PNG", colour.quantize(17), {}),
        ("PNG", Image.fromarray((_pixels()[..., 0].astype(np.uint16) + 1) * 256), {}),
        ("BMP", colour, {}),
        ("BMP", colour.quantize(200), {}),
        ("WEBP", colour, {}),
        ("WEBP", colour, {"lossless": True}),
        ("TIFF", colour, {"compression": "tiff_lzw"}),
        ("TIFF", colour, {"compression": "tiff_adobe_deflate"}),
        ("TIFF", colour.convert("CMYK"), {"compression": "packbits"}),
        ("TIFF", colour.quantize(17), {}),
    ]
    found = []
    for kind, image, more in options:
        file = io.BytesIO()
        image.save(file, kind, **more)
        found.append(file.getvalue())
    return found


def _slides(folder: Path) -> list[bytes]:
    found = []
    pixels = _pixels(160, 224)
    for more in (
        {"tile": (64, 64), "compression": "deflate"},
        {"tile": (64, 64), "compression": "jpeg"},
        {"rowsperstrip": 16},
        {"tile": (64, 64), "compression": "lzw", "planarconfig": "separate"},
    ):
        file = io.BytesIO()
        with tifffile.TiffWriter(file, ome=len(found) % 2 == 0) as writer:
            data = np.moveaxis(pixels, 2, 0) if "planarconfig" in more else pixels
            writer.write(data, photometric="rgb", subifds=1, **more)
            small = data[:, ::2, ::2] if "planarconfig" in more else data[::2, ::2]
            writer.write(small, photometric="rgb", subfiletype=1, **more)
        found.append(file.getvalue())
    return found


def _read_slide(data: bytes, folder: Path) -> None:
    path = folder / "slide.tif"
    path.write_bytes(data)
    is_whole_slide(path)
    slide = open_slide(path, name="slide.tif")
    try:
        for index, level in enumerate(slide.levels):
            slide.read(index, Box(0, 0, min(level.width, 256), min(level.height, 256)))
    finally:
        slide.close()


def _pack() -> Pack:
    return Pack.open(find_pack("chula12"))


def _read_manifest(data: bytes, folder: Path) -> None:
    (folder / "pack.toml").write_bytes(data)
    try:
        Pack.open(folder)
    except RbcError as error:
        assert str(error).isprintable()
        if "is missing" not in str(error):  # of the networks, which are not there
            raise


def _calibration(folder: Path) -> list[bytes]:
    return [_pack().read("calibration.json")]


def _read_calibration(data: bytes, folder: Path) -> None:
    document = json.loads(_pack_calibration)
    parse_calibration(
        data, sha256={name: document["networks"][name]["sha256"] for name in NETWORKS}
    )


_pack_calibration = (find_pack("chula12") / "calibration.json").read_bytes()


def _golden(folder: Path) -> list[bytes]:
    expected = ExpectedRegions(
        boxes=np.array([[1, 2, 30, 40]], np.float32),
        scores=np.array([0.5], np.float32),
        probabilities=np.full((1, 3), 0.5, np.float32),
        abnormal_p=np.array([0.5], np.float32),
    )
    return [encode_golden([GoldenCase(frame=_pixels(), expected=expected)] * 2)]


def _trees(folder: Path) -> list[bytes]:
    return [(find_pack("chula12") / "caller.treelite").read_bytes()]


def _read_trees(data: bytes, folder: Path) -> None:
    check_trees(data, features=12)
    model = treelite.Model.deserialize_bytes(data)
    treelite.gtil.predict(model, np.full((3, 12), 0.5, np.float32), nthread=1)


def _onnx(folder: Path) -> list[bytes]:
    weights = numpy_helper.from_array(np.ones((8, 3, 3, 3), np.float16), "w")
    two = numpy_helper.from_array(np.array([2], np.int64), "two")
    scale = numpy_helper.from_array(np.array([2, 2], np.int64), "scale")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Shape", ["c"], ["s"], start=2),
        helper.make_node("Mul", ["s", "scale"], ["t"]),
        helper.make_node("Shape", ["c"], ["u"], end=2),
        helper.make_node("Concat", ["u", "t"], ["v"], axis=0),
        helper.make_node("Resize", ["c", "", "", "v"], ["d"], mode="nearest"),
        helper.make_node("ReduceMean", ["d", "two"], ["y"], keepdims=1),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["n", 3, 32, 48])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, None)],
        [weights, two, scale],
    )
    return [
        helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10
        ).SerializeToString()
    ]


def _result() -> FieldResult:
    rng = np.random.default_rng(0)
    corners = rng.random((5, 2)) * 400
    p = rng.random((5, 12), np.float32)
    regions = Regions.by_area(
        boxes=np.concatenate([corners, corners + 40], axis=1).astype(np.float32),
        scores=rng.random(5, np.float32),
        probabilities=p,
        has=p >= 0.5,
        abnormal_p=p[:, 0].copy(),
        abnormal=p[:, 0] >= 0.5,
        flags=np.zeros(5, np.uint8),
    )
    return FieldResult(
        slide="s", field="a.jpg", path="/in/a.jpg", width=640, height=480, regions=regions
    )


def _record(folder: Path) -> list[bytes]:
    return [json.dumps(pack_result(_result())[0]).encode()]


def _read_journal(data: bytes, folder: Path) -> None:
    """The header of a record with a right checksum, behind a good head."""

    def framed(body: bytes) -> bytes:
        return struct.pack("<4sII", b"RBCJ", len(body), zlib.crc32(body)) + body

    head = json.dumps({"schema": 2, "run": {}}).encode()
    (folder / RUN_JOURNAL).write_bytes(
        framed(struct.pack("<I", len(head)) + head)
        + framed(struct.pack("<I", len(data)) + data + b"".join(pack_result(_result())[1]))
    )
    journal = RunJournal.reopen(claim(folder, "resume"), types=12, check=lambda head: None)
    try:
        for key in journal.stored:
            journal.read(key)
        if not journal.stored:
            raise RbcError("the record was cut off")
    finally:
        journal.remove()


def _run_folder(folder: Path, name: str) -> list[bytes]:
    out = folder / "run"
    if not out.exists():
        pack, result = _pack(), _result()
        counts = {"fields": 1, "failed": 0, "regions": 5}
        counts["abnormal"] = int(result.regions.abnormal.sum()) if result.regions else 0
        with RunOutput(claim(out), pack) as output:
            output.write(result)
            output.finish(RunRecord.of(pack, counts=counts))
    return [(out / name).read_bytes()]


def _read_run_json(data: bytes, folder: Path) -> None:
    out = folder / "run"
    (out / "run.json").write_bytes(data)
    with FinishedRun(out) as run:
        list(run.results())
        run.run.text()


def _read_table(name: str) -> Callable[[bytes, Path], None]:
    def read(data: bytes, folder: Path) -> None:
        out = folder / "run"
        document = json.loads((out / "run.json").read_bytes())
        (out / name).write_bytes(data)
        document["files"][name] = hashlib.sha256(data).hexdigest()
        (out / "run.json").write_text(json.dumps(document))
        with FinishedRun(out) as run:
            list(run.results())

    return read


READERS: dict[str, Reader] = {
    "images": Reader(seeds=_images, read=lambda data, _: decode_image(data, name="a")),
    "slides": Reader(seeds=_slides, read=_read_slide),
    "pack.toml": Reader(
        seeds=lambda _: [(find_pack("chula12") / "pack.toml").read_bytes()],
        read=_read_manifest,
        text=True,
    ),
    "calibration": Reader(seeds=_calibration, read=_read_calibration, text=True),
    "golden": Reader(seeds=_golden, read=lambda data, _: read_golden(data)),
    "trees": Reader(seeds=_trees, read=_read_trees),
    "onnx": Reader(
        seeds=_onnx,
        read=lambda data, _: follow_shapes(read_graph(data), {"x": (1, 3, 32, 48)}),
        refusals=(ValueError,),
    ),
    "journal": Reader(seeds=_record, read=_read_journal, text=True),
    "run.json": Reader(
        seeds=lambda folder: _run_folder(folder, "run.json"), read=_read_run_json, text=True
    ),
    "fields.csv": Reader(
        seeds=lambda folder: _run_folder(folder, "fields.csv"),
        read=_read_table("fields.csv"),
        text=True,
    ),
    "regions.parquet": Reader(
        seeds=lambda folder: _run_folder(folder, "regions.parquet"),
        read=_read_table("regions.parquet"),
    ),
}
