"""The public names: the face of the package gives each from the module that defines it, and no module lends another's."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import rbc_engine

from .house import FACE, modules


def face() -> ast.Module:
    return ast.parse(modules()[FACE].read_text("utf-8"))


def test_the_face_lists_its_names_in_order() -> None:
    assert list(rbc_engine.__all__) == sorted(set(rbc_engine.__all__))
    assert set(rbc_engine.__all__) <= set(dir(rbc_engine))
    assert "_HOME" in rbc_engine.__dict__, "the names that are imported at their first use"


@pytest.mark.parametrize("name", rbc_engine.__all__)
def test_each_name_comes_from_where_it_is_defined(name: str) -> None:
    value = getattr(rbc_engine, name)
    assert value.__name__ == name
    assert value.__module__ == rbc_engine._HOME.get(name, "rbc_engine.errors")
    assert name in importlib.import_module(value.__module__).__all__


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="'rbc_engine' has no attribute 'Nothing'"):
        _ = rbc_engine.Nothing


def test_type_checkers_see_the_same_names() -> None:
    """Those under TYPE_CHECKING are the lazy ones, from the same modules."""
    (typed,) = (node for node in face().body if isinstance(node, ast.If))
    homes = {
        alias.name: node.module
        for node in typed.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert homes == rbc_engine._HOME


@pytest.mark.parametrize("module", [name for name in modules() if name != FACE])
def test_a_module_exports_what_it_defines(module: str) -> None:
    path: Path = modules()[module]
    tree = ast.parse(path.read_text("utf-8"))
    defined: set[str] = set()
    exported: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {part.id for target in targets for part in ast.walk(target)
                     if isinstance(part, ast.Name)}  # fmt: skip
            defined |= names
            if "__all__" in names:
                exported = ast.literal_eval(node.value)
    assert exported == sorted(exported, key=_order), f"{path}: sort __all__"
    lent = set(exported) - defined
    assert not lent, (
        f"{path} exports {sorted(lent)} of another module: import them from where they are defined"
    )


def _order(name: str) -> tuple[int, str]:
    """CONSTANTS, then Classes, then functions, as ruff sorts __all__."""
    if name.isupper():
        return 0, name
    return (1 if name[:1].isupper() else 2), name
