"""The DALI source, with the pipeline's decoder on the CPU: the same graph but for one word."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rbc_engine.sources.images import dali
from rbc_engine.sources.images.dali import DaliImage, DaliSource, build_pipeline
from rbc_engine.sources.images.files import FileSource
from rbc_engine.sources.synthetic.field import render_field
from rbc_engine.types.frames import HOST, Decoded, FieldRef, Frame, Place

pytest.importorskip("nvidia.dali", reason="pip install 'rbc-engine[gpu-check]'")


def write(folder: Path, count: int) -> list[FieldRef]:
    refs = []
    for index in range(count):
        field = render_field(seed=index, width=96 + 16 * (index % 3), height=80, cells=3)
        path = folder / f"{index:02}.jpg"
        Image.fromarray(field.pixels).save(path, quality=90)
        refs.append(FieldRef(slide="s", field=path.name, path=path))
    return refs


def both(
    refs: Sequence[FieldRef | Decoded], *, batch: int = 4, pipelines: int = 1
) -> tuple[list[Decoded], list[Decoded], int]:
    """Return what DALI's source and the CPU's make of the same files, and DALI's lost batches."""
    with FileSource(refs, workers=2, ahead=4) as folder:
        expected = list(folder)
    source = DaliSource(
        refs, places=[HOST] * pipelines, batch_size=batch, workers=2, ahead=8, pixel_um=0.1
    )
    with source:
        got = list(source)
    return got, expected, source.given_up


def check(got: list[Decoded], expected: list[Decoded]) -> None:
    assert [decoded.ref for decoded in got] == [decoded.ref for decoded in expected]
    for mine, theirs in zip(got, expected, strict=True):
        assert mine.error == theirs.error
        if theirs.frame is not None:
            assert mine.frame is not None
            assert mine.frame.pixel_um == 0.1
            assert mine.frame.pixels.shape == theirs.frame.pixels.shape
            difference = np.abs(mine.frame.pixels.astype(int) - theirs.frame.pixels)
            # Decoders round their colour conversion differently.
            assert difference.max() <= 3


@pytest.mark.parametrize("count", [0, 1, 4, 5, 13])
@pytest.mark.parametrize("pipelines", [1, 2, 3])
def test_frames_come_in_order_and_as_the_cpu_decodes_them(
    tmp_path: Path, count: int, pipelines: int
) -> None:
    got, expected, given_up = both(write(tmp_path, count), pipelines=pipelines)
    check(got, expected)
    assert given_up == 0
    assert all(decoded.seconds > 0 for decoded in got)


@pytest.mark.parametrize("pipelines", [1, 2])
@pytest.mark.parametrize("bad", [[0], [5], [6, 7], [3, 4], [12], range(13)])
def test_a_broken_file_harms_only_itself(tmp_path: Path, bad, pipelines: int) -> None:
    refs = write(tmp_path, 13)
    for index in bad:
        data = refs[index].path.read_bytes()
        refs[index].path.write_bytes(data[: len(data) // 2])
    got, expected, given_up = both(refs, pipelines=pipelines)
    check(got, expected)
    assert [index for index, decoded in enumerate(got) if decoded.error] == list(bad)
    assert given_up == len({index // 4 for index in bad})


def test_what_is_no_plain_jpeg_does_not_go_to_dali(tmp_path: Path) -> None:
    refs = write(tmp_path, 9)
    picture = Image.open(refs[1].path)
    picture.save(refs[1].path, format="PNG")
    picture.convert("CMYK").save(refs[2].path)
    picture.convert("L").save(refs[3].path)
    refs[4].path.write_bytes(b"")
    refs[5].path.write_text("no image")
    refs[6].path.unlink()
    Image.new("RGB", (9000, 40)).save(refs[7].path)
    turned = Image.Exif()
    turned[0x0112] = 6
    picture.save(refs[8].path, exif=turned)
    found = Decoded(ref=FieldRef(slide="s", field="d", path=tmp_path), error="cannot be listed")
    got, expected, given_up = both([*refs, found])
    check(got, expected)
    assert given_up == 0
    assert [index for index, decoded in enumerate(got) if decoded.error] == [4, 5, 6, 7, 9]
    assert got[8].frame is not None
    assert (got[8].frame.width, got[8].frame.height) == (80, 112)


def test_leaving_early_leaves_nothing_behind(tmp_path: Path, monkeypatch) -> None:
    pipelines: list[weakref.ref[object]] = []

    def build(*arguments: object, **options: object) -> object:
        pipeline = build_pipeline(*arguments, **options)
        pipelines.append(weakref.ref(pipeline))
        return pipeline

    monkeypatch.setattr(dali, "build_pipeline", build)
    before = set(threading.enumerate())
    refs = write(tmp_path, 12)
    with DaliSource(refs, places=[HOST], batch_size=2, workers=2, ahead=4) as source:
        next(iter(source))
        assert len(pipelines) == 1
        assert set(threading.enumerate()) > before
    gc.collect()
    assert pipelines[0]() is None
    assert set(threading.enumerate()) == before
    source.close()


def test_images_outlive_the_pipeline(tmp_path: Path) -> None:
    files = [ref.path.read_bytes() for ref in write(tmp_path, 6)]
    batches = iter([[np.frombuffer(data, np.uint8)] for data in files])
    pipeline = build_pipeline(batches, batch_size=1, threads=2, place=HOST)
    images = [DaliImage(pipeline.run()[0][0], HOST) for _ in files]
    with pytest.raises(StopIteration):
        pipeline.run()
    del pipeline
    for index, image in enumerate(images):
        field = render_field(seed=index, width=96 + 16 * (index % 3), height=80, cells=3)
        assert image.shape == field.pixels.shape
        assert np.abs(image.to_host().astype(int) - field.pixels).mean() < 5


def test_frames_on_a_gpu_say_so_and_can_be_fetched() -> None:
    class Tensor:
        def shape(self) -> list[int]:
            return [40, 50, 3]

        def as_cpu(self) -> np.ndarray:
            return np.full((40, 50, 3), 9, np.uint8)

        def __dlpack__(self, *, stream: int) -> str:
            return f"capsule for stream {stream}"

    frame = Frame(pixels=DaliImage(Tensor(), Place("cuda", 1)), field="f", pixel_um=0.2)
    assert (frame.place, frame.height, frame.width) == (Place("cuda", 1), 40, 50)
    assert frame.pixels.__dlpack__(stream=7) == "capsule for stream 7"
    host = frame.on_host()
    assert host.place == HOST
    assert (host.field, host.pixel_um) == ("f", 0.2)
    assert (host.pixels == 9).all()
    assert host.on_host() is host
