"""Write a sink of your own: a file that no format makes, along with the tables of a run.

    python examples/own_sink.py RESULTS

RESULTS then also holds look_first.txt: the fields with the most abnormal regions, for whoever sits
at the microscope. A sink gets every result of the run in order, those kept by --resume too. Its
file appears together with the others, or not at all.
"""

import sys
from pathlib import Path

from rbc_engine import FieldResult, Pack, run_folder
from rbc_engine.sinks.files.atomic import AtomicFile

SAMPLES = Path(__file__).parents[1] / "samples"


class LookFirst:
    """Write the file; see rbc_engine.sinks.base.Sink for what each method must do."""

    needs_frames = False  # True: results carry their pixels, result.frame.pixels

    def __init__(self, folder: Path, pack: Pack) -> None:
        self._file = AtomicFile(folder / "look_first.txt")
        self._fields: list[tuple[int, str]] = []
        self._written = False

    def write(self, result: FieldResult) -> None:
        if result.regions is not None:  # else it failed
            self._fields.append((int(result.regions.abnormal.sum()), result.field))

    def complete(self) -> None:
        if not self._written:
            for abnormal, field in sorted(self._fields, key=lambda row: -row[0]):
                self._file.write(f"{abnormal} abnormal: {field}\n".encode())
            self._written = True
        self._file.complete()

    def finish(self) -> None:
        self.complete()
        self._file.finish()

    def discard(self) -> None:
        self._file.discard()


if __name__ == "__main__":
    summary = run_folder(SAMPLES, sys.argv[1], formats=["only"], sinks=[LookFirst])
    print((summary.out / "look_first.txt").read_text(), end="")
