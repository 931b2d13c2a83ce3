"""README's commands and examples in an environment that holds what README's install brings."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def base_distributions(repository: Path) -> set[str]:
    """What `pip install .` brings: the dependencies, and theirs, without any extra."""
    project = tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))["project"]
    found, waiting = {"rbc-engine", "pip", "setuptools"}, list(project["dependencies"])
    while waiting:
        said, _, marker = waiting.pop().partition(";")
        matched = NAMED.match(said)
        assert matched
        name = plain(matched[0])
        if name in found or "extra" in marker:
            continue
        found.add(name)
        try:
            waiting += requires(name) or []
        except PackageNotFoundError:
            found.discard(name)  # for another system or version of Python
    return found


@pytest.fixture
def only_base(repository: Path, tmp_path: Path) -> dict[str, str]:
    """An environment whose Python finds no module of an extra."""
    base = base_distributions(repository)
    hidden = sorted(
        module
        for module, owners in packages_distributions().items()
        if not {plain(owner) for owner in owners} & base
    )
    assert {"torch", "openslide", "h5py"} <= set(hidden)
    folder = tmp_path / "only_base"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        f"HIDDEN = frozenset({hidden!r})\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in HIDDEN:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
    )
    binaries = Path(sys.executable).parent
    return {"PYTHONPATH": str(folder), "PATH": f"{binaries}:/usr/bin:/bin", "HOME": str(tmp_path)}


def readme_blocks(repository: Path) -> list[str]:
    blocks = runpy.run_path(str(repository / ".ci" / "newcomer"))["blocks"]
    found: list[str] = blocks((repository / "README.md").read_text("utf-8"))
    return found


def test_readme_s_python_runs_after_its_own_install(
    repository: Path, only_base: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "samples").symlink_to(repository / "samples")
    codes = [code for code in readme_blocks(repository) if "import " in code]
    assert len(codes) == 2
    for code in codes:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            cwd=tmp_path, env=only_base, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "results-again" / "report.html").exists()


def test_readme_s_commands_are_those_of_the_program(repository: Path) -> None:
    [install] = [code for code in readme_blocks(repository) if code.startswith("pip install . ")]
    assert install == "pip install . && rbc-engine run samples --out results"


@pytest.mark.slow
def test_readme_s_example_runs_after_its_own_install(
    repository: Path, only_base: dict[str, str], tmp_path: Path
) -> None:
    text = (repository / "README.md").read_text("utf-8")
    examples = set(re.findall(r"\((examples/\w+\.py)\)", text))
    assert examples
    for example in examples:
        done = subprocess.run(
            [sys.executable, "-W", "error", str(repository / example), str(tmp_path / "out")],
            env=only_base, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr
