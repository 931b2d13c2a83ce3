"""List, show and verify model packs: `rbc-engine packs`."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(help="List, show and verify model packs.", no_args_is_help=True)

PackArgument = Annotated[str, typer.Argument(help="Name of a shipped pack, or a pack's folder.")]


@app.command("list")
def list_packs() -> None:
    """List the packs that come with the program."""
    from rbc_engine.packs.pack import Pack, shipped_packs

    for name, folder in shipped_packs().items():
        manifest = Pack.open(folder).manifest
        print(f"{name} {manifest.version}: {len(manifest.types)} types. {manifest.description}")


@app.command(short_help="Show what a pack detects, and its accuracy.")
def show(pack: PackArgument = "chula12") -> None:
    """Show what a pack detects, what it was trained on, and its measured accuracy."""
    from rbc_engine.packs.pack import Pack, find_pack
    from rbc_engine.stats.not_told import not_told

    opened = Pack.open(find_pack(pack))
    manifest = opened.manifest
    print(f"{manifest.name} {manifest.version} ({manifest.licence})")
    print(manifest.description)
    print(f"folder: {opened.folder}")
    print(f"sha256: {opened.sha256}")
    print("types:")
    for name, threshold in zip(manifest.types, manifest.classifier.thresholds, strict=True):
        kind = "abnormal" if name in manifest.abnormal else "normal"
        print(f"  {name}: {kind}, threshold {threshold:g}")
    print(f"not among its types: {', '.join(not_told(manifest.types))}")
    for title, values in (("training", manifest.training), ("accuracy", manifest.accuracy)):
        print(f"{title}:")
        for key, value in values.items():
            print(f"  {key}: {value}")
    if opened.calibration is not None:
        print("precisions:")
        for name, verdict in sorted(opened.calibration.verdicts.items()):
            said = "accepted" if verdict.accepted else f"refused: {'; '.join(verdict.reasons)}"
            print(
                f"  {name}: {said} ({verdict.fields} fields of {verdict.smear_groups} smear groups)"
            )
    print("files:")
    for name, record in sorted(manifest.files.items()):
        print(f"  {name}: {record.bytes} bytes, sha256 {record.sha256}")


@app.command(short_help="Check a pack's hashes and golden answers.")
def verify(pack: PackArgument = "chula12") -> None:
    """Check every hash, run the pack's golden inputs on the CPU in fp32 and compare the results."""
    from rbc_engine.engine import Engine
    from rbc_engine.errors import PackError
    from rbc_engine.packs.golden import compare, read_golden

    with Engine.open(pack, device="cpu", precision="fp32") as engine:
        cases = read_golden(engine.pack.read("golden.npz"))
        for index, case in enumerate(cases):
            differences = compare(case.expected, engine.analyze(case.frame).regions)
            if differences:
                raise PackError(
                    f"{engine.pack.folder}: golden input {index} gives another result here: "
                    f"{'; '.join(differences)}; reinstall this version of the program, or the pack"
                )
    print(
        f"{engine.pack.name} {engine.pack.manifest.version}: whole, and {len(cases)} golden inputs "
        "agree"
    )
