"""Compare the engine's decoding with the libraries' own, for each kind of file."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from rbc_engine.sources.images.decode import decode_image
from rbc_engine.types.arrays import UInt8

_KINDS = ("jpeg", "png", "tiff", "bmp", "webp")


@pytest.fixture(scope="module")
def files(frame: UInt8) -> dict[str, bytes]:
    encoded = {}
    for kind in _KINDS:
        file = io.BytesIO()
        Image.fromarray(frame).save(file, kind, **({"quality": 92} if kind == "jpeg" else {}))
        encoded[kind] = file.getvalue()
    return encoded


@pytest.fixture(params=_KINDS)
def kind(request: pytest.FixtureRequest, benchmark: BenchmarkFixture) -> str:
    name: str = request.param
    benchmark.group = f"decode {name}"
    return name


def test_engine(benchmark: BenchmarkFixture, files: dict[str, bytes], kind: str) -> None:
    benchmark(decode_image, files[kind], name=kind)


def test_pil(benchmark: BenchmarkFixture, files: dict[str, bytes], kind: str) -> None:
    benchmark(lambda: np.asarray(Image.open(io.BytesIO(files[kind])).convert("RGB")))


def test_opencv(benchmark: BenchmarkFixture, files: dict[str, bytes], kind: str) -> None:
    data = np.frombuffer(files[kind], np.uint8)

    def run() -> UInt8:
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert pixels is not None
        return np.ascontiguousarray(pixels[..., ::-1])

    benchmark(run)


@pytest.mark.benchmark(group="decode tiff")
def test_tifffile(benchmark: BenchmarkFixture, files: dict[str, bytes]) -> None:
    benchmark(lambda: tifffile.imread(io.BytesIO(files["tiff"])))
