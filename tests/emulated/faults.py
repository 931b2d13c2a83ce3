"""Faults to plant in a copy of the kernels: what the emulator has to find."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from .programs import REPOSITORY


@dataclass(frozen=True)
class Fault:
    name: str
    op: str
    flavour: str
    file: str
    right: str  # once in the file
    wrong: str
    shows_as: str  # in what the program prints

    def plant(self, folder: Path) -> Path:
        """A copy of kernels/ with the fault in it."""
        kernels = folder / "kernels"
        shutil.copytree(REPOSITORY / "kernels", kernels)
        source = (kernels / self.file).read_text()
        assert source.count(self.right) == 1, f"{self.name}: {self.file} has changed"
        (kernels / self.file).write_text(source.replace(self.right, self.wrong))
        return kernels


RACE = "ThreadSanitizer: data race"
OUTSIDE = "AddressSanitizer"
WRONG = "differs"

FAULTS = [
    # Barriers.
    Fault(
        "taps read before they are written",
        *("roi_align", "plain", "roi_align.cuh"),
        right="  __syncthreads();\n\n  const int64_t plane",
        wrong="\n  const int64_t plane",
        shows_as=WRONG,
    ),
    Fault(
        "no barrier between the steps of the sort",
        *("postprocess_detections", "threads", "candidates.cuh"),
        right="      __syncthreads();\n    }\n  }\n}",
        wrong="    }\n  }\n}",
        shows_as=RACE,
    ),
    Fault(
        "overlaps of a tile read before all are found",
        *("generate_proposals", "threads", "nms.cuh"),
        right="    __syncthreads();\n    if (warp == 0) {",
        wrong="    if (warp == 0) {",
        shows_as=RACE,
    ),
    Fault(
        "a stage fetched into while others multiply it",
        *("fused_heads", "threads", "fused_heads.cuh"),
        right="    fetch(step + kHeadStages - 1);",
        wrong="    fetch(step + kHeadStages);",
        shows_as=RACE,
    ),
    Fault(
        "a step multiplied before it has arrived",
        *("fused_heads", "plain", "fused_heads.cuh"),
        right="__pipeline_wait_prior(kHeadStages - 2)",
        wrong="__pipeline_wait_prior(kHeadStages - 1)",
        shows_as=WRONG,
    ),
    Fault(
        "a sample for the whole background",
        *("resize_letterbox", "plain", "resize_letterbox.cuh"),
        right="__syncthreads_count(mine < level + bit)",
        wrong="256 * (mine < level + bit)",
        shows_as=WRONG,
    ),
    Fault(
        "a barrier that some threads leave out",
        *("crop_resize", "plain", "crop_resize.cuh"),
        right="  if (threadIdx.y < 2) {\n",
        wrong="  if (blockIdx.x == 0 && threadIdx.x == 1) return;\n  if (threadIdx.y < 2) {\n",
        shows_as="wait at __syncthreads()",
    ),
    # Borders.
    Fault(
        "a pixel beyond the frame",
        *("crop_resize", "plain", "crop_resize.cuh"),
        right="high[sample] = past < frame_size ? past : frame_size;",
        wrong="high[sample] = past <= frame_size ? past : frame_size + 1;",
        shows_as=WRONG,
    ),
    Fault(
        "a pixel beyond the canvas",
        *("resize_letterbox", "fibers", "resize_letterbox.cuh"),
        right="if (x >= canvas_width ||",
        wrong="if (x > canvas_width ||",
        shows_as=OUTSIDE,
    ),
    Fault(
        "a workspace too small",
        *("postprocess_detections", "fibers", "postprocess_detections.cu"),
        right="slots * (sizeof(Box) + sizeof(uint32_t));",
        wrong="slots * sizeof(Box);",
        shows_as=OUTSIDE,
    ),
    Fault(
        "the deltas of another class",
        *("postprocess_detections", "plain", "postprocess_detections.cuh"),
        right="4 * (row * class_count + id % kMostClasses)",
        wrong="4 * (row * class_count + 1)",
        shows_as=WRONG,
    ),
    Fault(
        "a slot beyond the count",
        *("roi_align", "plain", "roi_align.cuh"),
        right="if (row % slots >= counts[n])",
        wrong="if (row % slots > counts[n])",
        shows_as=WRONG,
    ),
    # What is read or handed out unwritten.
    Fault(
        "no zeros behind the last proposal",
        *("generate_proposals", "plain", "generate_proposals.cuh"),
        right="out[i] = Box{};",
        wrong="continue;",
        shows_as=WRONG,
    ),
    Fault(
        "a counter in shared memory that starts as it is found",
        *("postprocess_detections", "plain", "candidates.cuh"),
        right="  if (threadIdx.x == 0) found = 0;\n",
        wrong="",
        shows_as=WRONG,
    ),
    Fault(
        "a counter in global memory that starts as it is found",
        *("fused_heads", "plain", "fused_heads.cuh"),
        right="scratch.arrived[i] = 0;",
        wrong="{}",
        shows_as=WRONG,
    ),
    # The order of equals.
    Fault(
        "ties by place in memory",
        *("generate_proposals", "plain", "generate_proposals.cuh"),
        right="visit(rank_key(logit[k], cell * anchors + a));",
        wrong="visit(rank_key(logit[k], a * cells + cell));",
        shows_as=WRONG,
    ),
]
