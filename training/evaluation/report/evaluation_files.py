"""Write the files of an evaluation: all of them appear together, evaluation.json last."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rbc_engine.errors import OutputError
from rbc_engine.sinks.files.atomic import AtomicFile, explain_os_errors, remove_abandoned
from rbc_engine.training.evaluation.laboratories.laboratory_table import LaboratoryTable
from rbc_engine.training.evaluation.report.laboratory_markdown import laboratories_markdown
from rbc_engine.training.evaluation.report.plots import draw_plots
from rbc_engine.training.evaluation.report.tables import PLOTS, to_markdown
from rbc_engine.training.evaluation.score import Scored

__all__ = ["EVALUATION_JSON", "prepare_folder", "write_evaluation", "write_laboratories"]

EVALUATION_JSON = "evaluation.json"
_EVALUATION_MD = "evaluation.md"
_LABORATORIES_JSON = "laboratories.json"
_LABORATORIES_MD = "laboratories.md"
_FILES = (_LABORATORIES_JSON, _LABORATORIES_MD, EVALUATION_JSON, _EVALUATION_MD, *PLOTS)


def prepare_folder(folder: Path, *, overwrite: bool) -> None:
    """Make the folder if it does not exist, before the work whose results go into it.

    overwrite: an earlier evaluation may be there. It remains until write_evaluation.

    Raises OutputError if the folder holds anything and overwrite is not set, or if it cannot be
    written.
    """
    with explain_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not overwrite and any(folder.iterdir()):
            raise OutputError(
                f"--out {folder} is not empty; pass --overwrite to replace the evaluation in it, "
                "or name another --out"
            )
        for name in _FILES:
            remove_abandoned(folder / name)


def write_laboratories(folder: Path, table: LaboratoryTable) -> None:
    """Write laboratories.json and laboratories.md; the files of an earlier evaluation are removed.

    Raises OutputError if writing fails.
    """
    _write(folder, _laboratories(table))


def write_evaluation(
    folder: Path, scored: Scored, laboratories: LaboratoryTable | None = None
) -> None:
    """Write evaluation.json, evaluation.md and the plots, and the files of write_laboratories;
    those of an earlier evaluation are removed.

    An evaluation.json in the folder means that the files next to it are complete and of the same
    evaluation.

    Raises OutputError if writing fails. Everything is on disk before the first file is moved.
    """
    plots = draw_plots(scored)
    evaluation = scored.evaluation
    contents = {
        **plots,
        **({} if laboratories is None else _laboratories(laboratories)),
        _EVALUATION_MD: to_markdown(evaluation, plots=tuple(plots)).encode("utf-8"),
        EVALUATION_JSON: f"{evaluation.model_dump_json(indent=2, by_alias=True)}\n".encode(),
    }
    _write(folder, contents)


def _laboratories(table: LaboratoryTable) -> dict[str, bytes]:
    return {
        _LABORATORIES_MD: laboratories_markdown(table).encode("utf-8"),
        _LABORATORIES_JSON: f"{table.model_dump_json(indent=2, by_alias=True)}\n".encode(),
    }


def _write(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files, the last one last, and remove those of an earlier evaluation."""
    files: list[AtomicFile] = []
    try:
        for name, content in contents.items():
            files.append(AtomicFile(folder / name))
            files[-1].write(content)
            files[-1].complete()
        with explain_os_errors(folder):
            for name in _FILES:
                (folder / name).unlink(missing_ok=True)
        for file in files:
            file.finish()
    finally:
        for file in files:
            file.discard()
