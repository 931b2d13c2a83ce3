"""What cameras hand over, against slow, obvious conversions."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from rbc_engine.errors import ImageError, UsageError
from rbc_engine.session.demosaic import BAYER_PATTERNS, demosaic
from rbc_engine.session.pixels import BufferPool, PixelFormat, as_array, check_raw, to_rgb
from rbc_engine.types.frames import HOST, Frame, Place

RNG = np.random.default_rng(0)


def convert(array, **options):
    pixels = PixelFormat(**options)
    check_raw(array, pixels)
    return to_rgb(array, pixels)


def slow_demosaic(mosaic, pattern):
    height, width = mosaic.shape

    def mirror(index, size):
        return -index if index < 0 else 2 * (size - 1) - index if index >= size else index

    def colour(y, x):
        return pattern[2 * (y % 2) + x % 2]

    rgb = np.zeros((height, width, 3), np.uint8)
    for y in range(height):
        for x in range(width):
            for channel, name in enumerate("rgb"):
                if colour(y, x) == name:
                    rgb[y, x, channel] = mosaic[y, x]
                    continue
                near = [
                    (y + dy, x + dx)
                    for dy in (-1, 0, 1)
                    for dx in (-1, 0, 1)
                    if (dy or dx) and colour(y + dy, x + dx) == name
                ]
                # Of eight neighbours, those beside and above count where there are any.
                straight = [(r, c) for r, c in near if r == y or c == x]
                taken = straight or near
                total = sum(int(mosaic[mirror(r, height), mirror(c, width)]) for r, c in taken)
                rgb[y, x, channel] = (total + len(taken) // 2) // len(taken)
    return rgb


@pytest.mark.parametrize("pattern", BAYER_PATTERNS)
def test_bayer_against_a_slow_loop(pattern):
    mosaic = RNG.integers(0, 256, (34, 38), np.uint8)
    np.testing.assert_array_equal(demosaic(mosaic, pattern), slow_demosaic(mosaic, pattern))


@pytest.mark.parametrize("pattern", BAYER_PATTERNS)
def test_bayer_gives_back_a_flat_colour(pattern):
    colours = {"r": 200, "g": 90, "b": 10}
    tile = np.array([colours[name] for name in pattern], np.uint8).reshape(2, 2)
    rgb = convert(np.tile(tile, (20, 20)), layout=f"bayer_{pattern}")
    assert (rgb == [200, 90, 10]).all()


@pytest.mark.parametrize("bits", range(8, 17))
def test_bits_are_scaled_by_their_full_range(bits):
    most = 2**bits - 1
    values = np.linspace(0, most, 40 * 40).astype(np.uint16).reshape(40, 40)
    got = convert(values, bits=bits)[..., 0]
    exact = values.astype(np.float64) * 255 / most
    assert np.abs(got - exact).max() <= 0.5
    assert (got.min(), got.max()) == (0, 255)


def test_a_value_of_more_bits_than_stated_is_refused():
    with pytest.raises(ImageError, match=r"4096, which needs 13 bits.*bits is 12"):
        convert(np.full((40, 40), 4096, np.uint16), bits=12)


def test_layouts():
    rgba = RNG.integers(0, 256, (40, 80, 4), np.uint8)
    np.testing.assert_array_equal(convert(rgba, layout="rgba"), rgba[..., :3])
    np.testing.assert_array_equal(convert(rgba, layout="bgra"), rgba[..., [2, 1, 0]])
    np.testing.assert_array_equal(convert(rgba[..., :3], layout="bgr"), rgba[..., [2, 1, 0]])
    np.testing.assert_array_equal(convert(rgba[..., 0]), np.repeat(rgba[..., :1], 3, axis=2))
    np.testing.assert_array_equal(convert(rgba[..., :1]), np.repeat(rgba[..., :1], 3, axis=2))
    sixteen = rgba[..., :3].astype(np.uint16) * 257
    np.testing.assert_array_equal(convert(sixteen, bits=16), rgba[..., :3])
    for result in (convert(rgba, layout="bgra"), convert(rgba[::-1, ::2, :3])):
        assert result.flags.c_contiguous


def test_contiguous_rgb_is_not_copied():
    rgb = RNG.integers(0, 256, (40, 50, 3), np.uint8)
    assert np.shares_memory(convert(rgb), rgb)


@pytest.mark.parametrize(
    ("shape", "options", "says"),
    [
        ((40, 50, 4), {}, r"state PixelFormat\(layout"),
        ((40, 50, 3), {"layout": "mono"}, r"mono must be \[H, W\] .got \[40, 50, 3\]"),
        ((40, 50), {"layout": "rgba"}, r"\[H, W, 4\]"),
        ((41, 50), {"layout": "bayer_rggb"}, "even sides .got 50x41"),
        ((31, 50), {}, "32..8192 px .got 50x31"),
    ],
)
def test_shapes_that_do_not_fit(shape, options, says):
    with pytest.raises(ImageError, match=says):
        convert(np.zeros(shape, np.uint8), **options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"layout": "yuv"}, "yuv"),
        ({"bits": 7}, "7"),
        ({"bits": "12"}, "bits must be a whole number in 8..16, such as bits=12 .got '12'"),
        ({"bits": 12.5}, "whole number"),
        ({"bits": True}, "whole number"),
    ],
)
def test_wrong_formats(options, says):
    with pytest.raises(UsageError, match=says):
        PixelFormat(**options)


def test_dlpack_of_the_host_is_read_without_a_copy():
    torch = pytest.importorskip("torch")
    tensor = torch.randint(0, 256, (40, 50, 3), dtype=torch.uint8)
    array = as_array(tensor)
    assert array.ctypes.data == tensor.data_ptr()
    np.testing.assert_array_equal(convert(array), tensor.numpy())


def test_dlpack_that_cannot_be_read_says_why():
    class OnGpu:
        def __dlpack__(self, **_):
            raise AssertionError("not to be exported")

        def __dlpack_device__(self):
            return 2, 1

    class Broken(OnGpu):
        def __dlpack__(self, **_):
            raise BufferError("read-only")

        def __dlpack_device__(self):
            return 1, 0

    with pytest.raises(ImageError, match=r"cuda:1.*copy in host memory"):
        as_array(OnGpu())
    with pytest.raises(ImageError, match="read-only"):
        as_array(Broken())


class Cupy:
    """As CuPy's arrays describe themselves; the memory is the host's."""

    def __init__(self, pixels, number=1):
        self.pixels, self.number = pixels, number
        self.__cuda_array_interface__ = pixels.__array_interface__

    def __dlpack__(self, **options):
        return self.pixels.__dlpack__(**options)

    def __dlpack_device__(self):
        return 2, self.number


def test_a_frame_on_the_engines_gpu_is_read_in_place():
    pixels = np.arange(40 * 50 * 3, dtype=np.uint8).reshape(40, 50, 3)
    frame = as_array(Cupy(pixels), places=[Place("cuda", 0), Place("cuda", 1)])
    check_raw(frame, PixelFormat())
    assert (frame.shape, frame.dtype, frame.place) == ((40, 50, 3), np.uint8, Place("cuda", 1))
    assert Frame(pixels=frame).place == Place("cuda", 1)
    assert frame.__dlpack_device__() == (2, 1)
    with pytest.raises(ImageError, match=r"cuda:1.*copy in host memory"):
        as_array(Cupy(pixels), places=[HOST, Place("cuda", 0)])
    with pytest.raises(ImageError, match="layout mono"):
        check_raw(frame, PixelFormat(layout="mono"))


def test_a_frame_on_a_gpu_is_copied_for_those_who_keep_it(monkeypatch):
    """Through the driver's own calls, whose device memory is the host's here."""
    driver = pytest.importorskip("cuda.bindings.driver")
    pixels = np.arange(40 * 50 * 3, dtype=np.uint8).reshape(40, 50, 3)
    asked = []

    def synchronize():
        asked.append("synchronize")
        return (0,)

    def copy(to, address, size):
        asked.append("copy")
        ctypes.memmove(to, address, size)
        return (0,)

    monkeypatch.setattr(driver, "cuCtxSynchronize", synchronize)
    monkeypatch.setattr(driver, "cuMemcpyDtoH", copy)
    frame = Frame(pixels=as_array(Cupy(pixels), places=[Place("cuda", 1)])).on_host()
    np.testing.assert_array_equal(frame.pixels, pixels)
    assert frame.pixels.ctypes.data != pixels.ctypes.data
    assert asked == ["synchronize", "copy"], "what the GPU was asked for comes first"
    monkeypatch.setattr(driver, "cuMemcpyDtoH", lambda *_: (700,))
    with pytest.raises(ImageError, match=r"cuda:1 is lost \(700\)"):
        Frame(pixels=as_array(Cupy(pixels), places=[Place("cuda", 1)])).on_host()


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((40, 50, 3), np.uint16),
        np.zeros((40, 50), np.uint8),
        np.zeros((40, 50, 4), np.uint8),
        np.zeros((40, 100, 3), np.uint8)[:, ::2],
    ],
)
def test_a_frame_on_a_gpu_that_needs_a_copy_is_refused(pixels):
    with pytest.raises(ImageError, match=r"must be uint8 \[H, W, 3\] RGB and C-contiguous"):
        as_array(Cupy(pixels), places=[Place("cuda", 1)])


def test_a_frame_on_a_gpu_that_does_not_describe_itself_is_refused():
    frame = Cupy(np.zeros((40, 50, 3), np.uint8))
    del frame.__cuda_array_interface__
    with pytest.raises(ImageError, match="__cuda_array_interface__"):
        as_array(frame, places=[Place("cuda", 1)])


def test_pool_keeps_a_few_of_the_newest_size():
    pool = BufferPool(2)
    small, large = np.zeros((40, 40), np.uint8), np.ones((50, 50), np.uint8)
    buffers = [pool.copy(small) for _ in range(3)]
    for buffer in buffers:
        pool.give_back(buffer)
    again = pool.copy(small)
    assert any(again is buffer for buffer in buffers)
    first = pool.copy(large[::-1])
    np.testing.assert_array_equal(first, large)
    pool.give_back(first)
    assert pool.copy(large) is first
    assert pool.copy(large.astype(np.uint16)) is not first
