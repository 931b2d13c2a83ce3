"""The check of an export by another compiler, with PyTorch itself in the compiler's place."""

from __future__ import annotations

import pytest
import torch

from rbc_engine.devices.cuda.driver import DriverReport, ask_driver
from rbc_engine.errors import RbcError, UsageError
from rbc_engine.packs.pack import Pack
from rbc_engine.training.networks import export_check
from rbc_engine.training.networks.export_check import check_export


@pytest.fixture(autouse=True)
def _few_patches(monkeypatch) -> None:
    monkeypatch.setattr(export_check, "_PATCHES", 4)


def test_the_same_module_agrees_but_for_its_precision(pack: Pack) -> None:
    def compile_module(module, example):
        assert example.dtype == torch.float16
        module.float()
        return lambda patches: module(patches.float())

    assert check_export(pack, "torch-tensorrt", compile_module=compile_module, device="cpu") < 0.02


def test_a_compiler_that_is_wrong_is_noticed(pack: Pack) -> None:
    def compile_module(module, example):
        module.float()
        return lambda patches: (None, -module(patches.float())[1])

    with pytest.raises(RbcError, match=r"differ by up to [0-9.]+ from PyTorch's"):
        check_export(pack, "torch-tensorrt", compile_module=compile_module, device="cpu")


def test_what_is_missing_is_said(pack: Pack, monkeypatch) -> None:
    with pytest.raises(UsageError, match=r"--check must be one of torch-tensorrt \(got 'x'\)"):
        check_export(pack, "x")
    if ask_driver().problem is not None:
        with pytest.raises(UsageError, match=r"needs a GPU: .*driver"):
            check_export(pack, "torch-tensorrt")
    monkeypatch.setattr(export_check, "ask_driver", lambda: DriverReport(cuda=(13, 0)))
    monkeypatch.setattr(export_check, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"not installed; pip install 'torch-tensorrt"):
        check_export(pack, "torch-tensorrt")
