"""Scan until the share of abnormal cells is known precisely enough: results drive the stage.

The DemoCamera sees no cells, so this program shows the engine a rendered smear, at the position of
the demo stage. With a real camera, leave out everything about SMEAR and give your configuration to
open_core.
"""

import numpy as np
import useq

from rbc_engine import Engine, SlideMonitor, StageMap
from rbc_engine.sources.camera import feed_mda, open_core, positions_until
from rbc_engine.sources.synthetic.field import render_field

WIDTH, HEIGHT, PIXEL_UM = 320, 240, 0.25
SMEAR = render_field(seed=1, width=2000, height=1500, cells=600, cell_px=30).pixels
# Neighbouring fields overlap by a fifth; the cells that both show count once.
GRID = useq.GridRowsColumns(
    rows=6, columns=6, overlap=20, fov_width=WIDTH * PIXEL_UM, fov_height=HEIGHT * PIXEL_UM
)
POSITIONS = [(point.x, point.y) for point in GRID]

core = open_core(width=WIDTH, height=HEIGHT)


def see(*_: object, **__: object) -> np.ndarray:
    """Return what a camera would see at the stage's position: uint8 [HEIGHT, WIDTH, 3]."""
    x, y = (round(um / PIXEL_UM) for um in core.getXYPosition())
    left, top = SMEAR.shape[1] // 2 + x - WIDTH // 2, SMEAR.shape[0] // 2 + y - HEIGHT // 2
    return SMEAR[top : top + HEIGHT, left : left + WIDTH]


core.getImage = see

with Engine.open("chula12") as engine:
    monitor = SlideMonitor(engine.pack.types, stage=StageMap.of_pixel(PIXEL_UM))

    def enough() -> bool:
        """Stop after a few fields here; for a real slide, width=0.02 and min_cells=1000."""
        return monitor.enough(width=0.25, min_cells=50)

    with engine.session(on_ended=monitor.add) as session, feed_mda(core, session):
        core.run_mda(positions_until(enough, POSITIONS, session=session), block=True)

share = monitor.share()
print(
    f"{monitor.fields} of {len(POSITIONS)} fields, {share.regions} cells, {monitor.repeated} seen "
    "twice"
)
print(f"abnormal: {share.fraction:.1%}, 95 % interval {share.low:.1%} to {share.high:.1%}")
assert monitor.fields < len(POSITIONS)
