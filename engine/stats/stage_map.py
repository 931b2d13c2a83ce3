"""Map pixels of a camera to the stage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rbc_engine.errors import UsageError
from rbc_engine.types.arrays import Float32

__all__ = ["StageMap"]


@dataclass(frozen=True, kw_only=True)
class StageMap:
    """Map an offset of (dx, dy) px in the image to `matrix_um` @ (dx, dy) µm on the stage.

    matrix_um: two rows of two numbers. For a camera that is neither rotated nor mirrored: ((p, 0),
    (0, p)), p its µm per
        px; if the image shows larger stage coordinates to the left, the first is -p.
        Micro-Manager's getPixelSizeAffine is (a, b, c, d, e, f) with ((a, b), (d, e)).
    """

    matrix_um: tuple[tuple[float, float], tuple[float, float]]

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix_um, np.float64)
        good = matrix.shape == (2, 2) and np.isfinite(matrix).all()
        if not good or abs(np.linalg.det(matrix)) < 1e-9:
            raise UsageError(
                "matrix_um must be two rows of two numbers, µm per px, that can be inverted (got "
                f"{self.matrix_um})"
            )

    @classmethod
    def of_pixel(cls, pixel_um: float) -> StageMap:
        """Return the map of a camera that is neither rotated nor mirrored."""
        return cls(matrix_um=((pixel_um, 0.0), (0.0, pixel_um)))

    def boxes_um(
        self, boxes: Float32, *, frame_hw: tuple[int, int], position_um: tuple[float, float]
    ) -> npt.NDArray[np.float64]:
        """Return the smallest upright boxes on the stage around boxes of a frame.

        boxes: float32 [R, 4], x0 y0 x1 y1 px. position_um: of the frame's centre.

        Returns float64 [R, 4], x0 y0 x1 y1 in µm.
        """
        matrix = np.array(self.matrix_um, np.float64)
        corners = boxes[:, [[0, 1], [2, 1], [0, 3], [2, 3]]].astype(np.float64)  # [R, 4, 2]
        centre = np.array([frame_hw[1], frame_hw[0]]) / 2
        on_stage = (corners - centre) @ matrix.T + np.array(position_um)
        return np.concatenate([on_stage.min(axis=1), on_stage.max(axis=1)], axis=1)
