"""Every op lets other Python threads run meanwhile: a lane's kernels must not hold up decoding."""

import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
import pytest

from rbc_engine.devices.anchors import base_anchors
from rbc_engine.devices.cpu import ops
from rbc_engine.lanes.measure import measure_field

Call = Callable[[], object]


def resize_letterbox() -> Call:
    frames = [np.zeros((1000, 1000, 3), np.uint8)] * 8
    sizes = np.full((8, 2), 1500, np.int32)
    return partial(ops.resize_letterbox, frames, sizes, canvas_hw=(1500, 1500))


def crop_resize() -> Call:
    windows = np.tile(np.array([0, 0, 150, 150], np.float32), (600, 1))
    frames = [np.zeros((200, 200, 3), np.uint8)]
    grey = (1.0, 1.0, 1.0)
    return partial(
        ops.crop_resize, frames, windows, np.zeros(600, np.int32), size_px=96, mean=grey, std=grey
    )


def generate_proposals() -> Call:
    rng = np.random.default_rng(0)
    objectness = rng.standard_normal((8, 3, 200, 200)).astype(np.float32)
    return partial(
        ops.generate_proposals,
        [objectness],
        [np.zeros((8, 12, 200, 200), np.float32)],
        base_anchors=[base_anchors((32,), (0.5, 1, 2))],
        strides_px=(4,),
        image_hw=np.full((8, 2), 800, np.int32),
        per_level=3000,
        keep=3000,
        nms_iou=0.9,
    )


def roi_align() -> Call:
    boxes = np.tile(np.array([10, 10, 60, 60], np.float32), (1, 400, 1))
    return partial(
        ops.roi_align,
        [np.zeros((1, 256, 40, 40), np.float32)],
        boxes,
        np.array([400], np.int32),
        strides_px=(4,),
        output_size=7,
        sampling_ratio=4,
        canonical_px=224.0,
        canonical_level=4,
    )


def postprocess_detections() -> Call:
    rng = np.random.default_rng(0)
    images, slots = 6, 8000
    corners = rng.uniform(0, 700, (images, slots, 2)).astype(np.float32)
    sizes = np.full((images, 2), 800, np.int32)
    return partial(
        ops.postprocess_detections,
        rng.standard_normal((images * slots, 2)).astype(np.float32),
        np.zeros((images * slots, 8), np.float32),
        np.concatenate([corners, corners + np.float32(90)], axis=2),
        np.full(images, slots, np.int32),
        image_hw=sizes,
        frame_hw=sizes,
        score_threshold=0.0,
        nms_iou=0.99,
        max_regions=slots,
    )


def measure() -> Call:
    noise = np.random.default_rng(0).integers(0, 256, (1600, 2400, 3), dtype=np.uint8)
    return partial(measure_field, noise)


def longest_silence(call: Call) -> float:
    """The longest time for which no other thread could run, as a share of the call."""
    ticks: list[float] = []
    done = threading.Event()

    def tick() -> None:
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.0005)

    ticker = threading.Thread(target=tick)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(
        100
    )  # nobody is made to give the GIL up: only who releases it lets others run
    try:
        ticker.start()
        time.sleep(0.01)
        begin = time.perf_counter()
        call()
        end = time.perf_counter()
    finally:
        done.set()
        sys.setswitchinterval(interval)
        ticker.join()
    during = [begin, *(at for at in ticks if begin < at < end), end]
    return max(after - before for before, after in pairwise(during)) / (end - begin)


@pytest.mark.parametrize(
    "op",
    [resize_letterbox, crop_resize, generate_proposals, roi_align, postprocess_detections, measure],
    ids=lambda op: op.__name__,
)
def test_other_threads_run_meanwhile(op: Callable[[], Call]) -> None:
    call = op()
    # A busy machine may keep the other thread waiting now and then; a kernel that holds the GIL
    # always does.
    assert any(longest_silence(call) < 0.5 for _ in range(20))
