"""One name, one thing: modules called alike do alike; only devices/ knows a device by its name."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator

from .house import REPOSITORY, modules

CONVENTIONS = {"__init__", "base", "table", "open"}
"""Modules that rooms have by convention: face, protocol, table, how to open one."""

MIRRORED = {
    "rbc_engine.devices.cpu": "a device",
    "rbc_engine.devices.cuda": "a device",
    "rbc_engine.training.fit.cells": "a training",
    "rbc_engine.training.fit.cell_types": "a training",
}
"""Rooms whose modules mirror each other by name, and what each room is one of."""

COMMANDS = {"rbc_engine.cli", "rbc_engine.cli.models"}
"""One file a command, each called as the module that does its work."""

NVIDIA = "rbc_engine.devices.cuda"

KNOW_NVIDIA = {
    "bench/peers/torch_tensorrt.py": "torch's device",
    "training/networks/export_check.py": "torch's device",
    "training/fit/steps/devices.py": "torch's device",
    "bench/instruments/counters.py": "NVIDIA's counters",
    "bench/instruments/machine.py": "the GPUs of the machine, used or not",
}
"""What may name CUDA outside devices/, and why."""


def test_modules_that_are_called_alike_do_alike() -> None:
    called: dict[str, set[str]] = defaultdict(set)
    for module, path in modules().items():
        room = module.rpartition(".")[0]
        if path.stem in CONVENTIONS or room in COMMANDS:
            continue
        called[path.stem].add(MIRRORED.get(room, module))
    twice = {name: sorted(found) for name, found in called.items() if len(found) > 1}
    assert not twice, f"rename all but one of each: {twice}"


def test_only_devices_know_a_device_by_its_name() -> None:
    """Others ask its DeviceKind, or for a Place. Help texts and docstrings may name it."""
    wrong = []
    for path in modules().values():
        name = path.relative_to(REPOSITORY).as_posix()
        if name.startswith("engine/devices/") or name in KNOW_NVIDIA:
            continue
        wrong += [
            f"{name}:{line}: {what}" for line, what in _named_devices(path.read_text("utf-8"))
        ]
    assert not wrong, "\n".join(wrong)


def _named_devices(source: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            # Prose goes on after the name.
            if node.value.partition(":")[0] == "cuda" and " " not in node.value:
                yield node.lineno, repr(node.value)
        elif isinstance(node, ast.Attribute) and node.attr == "device_id":
            yield node.lineno, ".device_id"
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith(NVIDIA):
            yield node.lineno, f"import of {node.module}"


def test_a_device_that_is_named_is_found() -> None:
    source = '''
"""cuda"""
from rbc_engine.devices.cuda.driver import ask_driver
if kind == "cuda" or name.startswith("cuda:") or choice.device_id is None:
    help("cuda or cuda:N")
'''
    assert sorted({line for line, _ in _named_devices(source)}) == [2, 3, 4]
