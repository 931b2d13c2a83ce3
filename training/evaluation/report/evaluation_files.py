"""Write the files of an evaluation: all of them appear together, evaluation.json last."""

from __future__ import annotations

from pathlib import Path

from rbc_engine.errors import OutputError
from rbc_engine.sinks.files.atomic import AtomicFile, explain_os_errors, remove_abandoned
from rbc_engine.training.evaluation.report.plots import draw_plots
from rbc_engine.training.evaluation.report.tables import PLOTS, to_markdown
from rbc_engine.training.evaluation.score import Scored

__all__ = ["EVALUATION_JSON", "prepare_folder", "write_evaluation"]

EVALUATION_JSON = "evaluation.json"
_EVALUATION_MD = "evaluation.md"
_FILES = (EVALUATION_JSON, _EVALUATION_MD, *PLOTS)


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


def write_evaluation(folder: Path, scored: Scored) -> None:
    """Write evaluation.json, evaluation.md and the plots; those of an earlier evaluation are
    removed.

    An evaluation.json in the folder means that the files next to it are complete and of the same
    evaluation.

    Raises OutputError if writing fails. Everything is on disk before the first file is moved.
    """
    plots = draw_plots(scored)
    evaluation = scored.evaluation
    contents = {
        **plots,
        _EVALUATION_MD: to_markdown(evaluation, plots=tuple(plots)).encode("utf-8"),
        EVALUATION_JSON: f"{evaluation.model_dump_json(indent=2, by_alias=True)}\n".encode(),
    }
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
