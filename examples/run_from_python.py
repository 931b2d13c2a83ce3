"""A run from Python: `rbc-engine run` as a function, of the samples into the folder named."""

import sys
from pathlib import Path

from rbc_engine import run_folder

SAMPLES = Path(__file__).parents[1] / "samples"

done = run_folder(SAMPLES, sys.argv[1], on_progress=lambda now: print(now.done, "of", now.fields))
for slide in done.slides:
    print(f"{slide.slide}: {slide.abnormal} of {slide.regions} regions abnormal")
