"""A run from Python: what `rbc-engine run` does, as a function. Results go to the folder named, which must be empty."""

import sys
from pathlib import Path

from rbc_engine import run_folder

SAMPLES = Path(__file__).parents[1] / "samples"

done = run_folder(SAMPLES, sys.argv[1], on_progress=lambda now: print(now.done, "of", now.fields))
for slide in done.slides:
    print(f"{slide.slide}: {slide.abnormal} of {slide.regions} regions abnormal")
