"""Calibrate a pack for int8 and fp8 and test which precisions keep its accuracy: `rbc-engine
calibrate`.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rbc_engine.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbc_engine.packs.pack import Pack
    from rbc_engine.stats.drift import Drift
    from rbc_engine.training.datasets.base import Dataset, LabelledField

__all__ = ["calibrate"]

_NEEDED = ("torch", "torchvision", "sklearn", "scipy", "tomli_w")


def calibrate(
    pack: Annotated[str, typer.Argument(help="Name of a shipped pack, or a pack's folder.")],
    data: Annotated[Path, typer.Option(help="Folder of the images.")],
    data_format: Annotated[
        str,
        typer.Option(
            "--format",
            help="What --data holds: chula12, masks, voc, coco, boxes or synthetic, whose labels "
            "are used for the test; or images, which give ranges only.",
        ),
    ] = "chula12",
    fields: Annotated[int, typer.Option(min=1, help="Number of fields that give the ranges.")] = 48,
    groups: Annotated[
        str | None,
        typer.Option(
            help="Smear groups for the test, separated by commas; the others give ranges."
        ),
    ] = None,
    held_out: Annotated[
        bool,
        typer.Option("--held-out", help="Test on the smears held out of the pack's training."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for a calibrated copy of the pack; by default the pack itself."),
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="Version of the calibrated pack; unchanged by default.")
    ] = None,
    device: Annotated[str, typer.Option(help="Also test this device: cuda or cuda:N.")] = "cpu",
    sensitivity: Annotated[
        bool,
        typer.Option(
            "--sensitivity",
            help="Only print the error that each layer adds; needs a calibrated pack.",
        ),
    ] = False,
    curve: Annotated[
        bool,
        typer.Option("--curve", help="Only print the error of ranges from more and more fields."),
    ] = False,
    drift: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="DEVICE:PRECISION DEVICE:PRECISION",
            help="Only print what differs between two ways of computing, e.g. cpu:fp32 cpu:int8. "
            "A third part names the decoder: cpu:fp32:dali.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Prepare a pack for int8 and fp8, and test which precisions keep its accuracy."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"calibrate needs {', '.join(missing)}, which is not installed; pip install "
            "'rbc-engine[train]'"
        )
    from rbc_engine.packs.pack import Pack, find_pack

    started = time.perf_counter()
    opened = Pack.open(find_pack(pack))
    if drift is not None:
        _print_drift(opened, data, drift, limit=fields, as_json=as_json)
        return
    if curve:
        _print_curve(
            opened, _paths(data, fields, dataset=_load(data, data_format)), as_json=as_json
        )
        return
    if sensitivity:
        _print_sensitivity(
            opened, _paths(data, fields, dataset=_load(data, data_format)), as_json=as_json
        )
        return
    from rbc_engine.calibration.calibrate import calibrate as make
    from rbc_engine.calibration.into_pack import write_calibration
    from rbc_engine.devices.choose import precisions_of
    from rbc_engine.training.evaluation.precisions import FieldEvaluation

    if out is not None and out.exists():
        raise UsageError(f"--out {out} exists; remove it, or name another folder")
    ways = [(name, p) for name in dict.fromkeys(("cpu", device)) for p in precisions_of(name)]
    dataset, evaluate, test_groups = _load(data, data_format), None, ""
    if dataset is not None:
        chosen = _test_fields(opened, dataset, groups, held_out)
        evaluate = FieldEvaluation(chosen)
        test_groups = ", ".join(sorted({field.group for field in chosen}))
    if version is not None:
        opened = _versioned(opened, version)
    calibration = make(
        opened,
        _paths(data, fields, dataset=dataset, without=test_groups.split(", ")),
        evaluate=evaluate,
        precisions=[way for way in ways if way != ("cpu", "fp32")],
        notes={
            "dataset": data_format if dataset is None else dataset.name,
            "evaluation_smear_groups": test_groups,
        },
        log=_log,
    )
    written = write_calibration(opened, calibration, out=out)
    _log(f"calibrated in {time.perf_counter() - started:.0f} s: {written.folder}")
    if as_json:
        print(calibration.model_dump_json(by_alias=True, indent=2))


def _versioned(pack: Pack, version: str) -> Pack:
    from dataclasses import replace

    from pydantic import ValidationError

    from rbc_engine.packs.manifest import Manifest

    values = pack.manifest.model_dump(by_alias=True) | {"version": version}
    try:
        return replace(pack, manifest=Manifest.model_validate(values))
    except ValidationError as error:
        raise UsageError(f"--version must read like 0.3.0 (got {version!r})") from error


def _load(data: Path, data_format: str) -> Dataset | None:
    """Load the labelled data; None for images without labels."""
    if data_format == "images":
        return None
    from rbc_engine.training.datasets.formats.table import load_dataset

    _log(f"reading {data}")
    return load_dataset(data, data_format=data_format, threads=None)


def _test_fields(
    pack: Pack, dataset: Dataset, groups: str | None, held_out: bool
) -> Sequence[LabelledField]:
    from rbc_engine.training.datasets.evaluation_fields import (
        choose_fields,
        in_pack_order,
        warn_of_training,
    )

    named = None if groups is None else [name.strip() for name in groups.split(",")]
    chosen = choose_fields(pack, dataset, groups=named, held_out=held_out)
    fields, untyped = in_pack_order(pack, dataset, chosen)
    if untyped is not None:
        raise UsageError(f"{untyped}: no labels to test a precision with; use --format images")
    for warning in warn_of_training(pack, dataset, fields):
        _log(f"note: {warning}")
    return fields


def _paths(
    data: Path, count: int, *, dataset: Dataset | None, without: Sequence[str] = ()
) -> list[Path]:
    """Return images to take ranges from, of other smears than the test's if there are others."""
    from rbc_engine.calibration.smears import choose_fields
    from rbc_engine.sources.find import find_fields
    from rbc_engine.types.frames import FieldRef

    by_smear: dict[str, list[Path]] = {}
    if dataset is None:
        for entry in find_fields([data]).entries:
            if isinstance(entry, FieldRef):
                by_smear.setdefault(entry.slide, []).append(entry.path)
    else:
        others = [field for field in dataset.fields if field.group not in without]
        for field in others or dataset.fields:
            by_smear.setdefault(field.group, []).append(field.path)
    return choose_fields(by_smear, count=count)


def _print_sensitivity(pack: Pack, paths: Sequence[Path], *, as_json: bool) -> None:
    from rbc_engine.calibration.calibrate import rank_layers
    from rbc_engine.calibration.collect import observe_fields
    from rbc_engine.calibration.ranges import NetworkProbe
    from rbc_engine.packs.calibration import NETWORKS

    if pack.calibration is None:
        raise UsageError(
            f"--sensitivity: pack {pack.name} is not calibrated yet; calibrate it first"
        )
    observed, _ = observe_fields(pack, paths, log=_log)
    probes = {name: NetworkProbe(name, pack.read(name), observed.inputs(name)) for name in NETWORKS}
    ranked = rank_layers(probes, {name: pack.calibration.networks[name] for name in NETWORKS})
    if as_json:
        print(json.dumps([{"network": n, "layer": k, "error": e} for n, k, e in ranked], indent=2))
        return
    for network, layer, error in ranked:
        print(f"{error:8.3%}  {network:16} {layer}")


def _print_curve(pack: Pack, paths: Sequence[Path], *, as_json: bool) -> None:
    from rbc_engine.calibration.curve import field_curve

    rows = field_curve(pack, paths, log=_log)
    if as_json:
        print(json.dumps([{"fields": count, **errors} for count, errors in rows], indent=2))
        return
    for count, errors in rows:
        shown = "  ".join(f"{name} {error:.2%}" for name, error in errors.items())
        print(f"{count:4} fields: {shown}")


def _print_drift(
    pack: Pack, data: Path, ways: tuple[str, str], *, limit: int, as_json: bool
) -> None:
    from rbc_engine.calibration.certificate import certify

    drift: Drift = certify(pack, data, ways, limit=limit, log=_log)
    if as_json:
        print(json.dumps({"from": ways[0], "to": ways[1], **drift.record()}, indent=2))
        return
    print(f"{ways[0]} to {ways[1]}: {drift.line()}")
    print(f"largest difference of a probability: {drift.largest_p:.4f}")
    for name, count in drift.by_type.most_common():
        if count:
            print(f"  {name}: {count} labels")


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
