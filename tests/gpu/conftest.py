"""The machine that tests of this folder run on: the GPU (`pytest -m gpu`), or the emulator in its
place.
"""

from pathlib import Path

import pytest

from rbc_engine import _kernels

from .machines import Emulator, Gpu


@pytest.fixture(
    scope="session",
    params=[
        pytest.param("gpu", marks=pytest.mark.gpu),
        pytest.param("gpu-graph", marks=pytest.mark.gpu),
        pytest.param("emulator", marks=pytest.mark.slow),
    ],
)
def machine(
    request: pytest.FixtureRequest, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Gpu | Emulator:
    if request.param == "emulator":
        return Emulator(repository, tmp_path_factory.mktemp("emulated"))
    if not _kernels.has_cuda:
        pytest.skip("CUDA kernels are not compiled in: install with nvcc 12.8 or later on PATH")
    try:
        return Gpu(recorded=request.param == "gpu-graph")
    except Exception as error:  # whatever is missing: cuda.core, a driver, a GPU
        pytest.skip(f"no GPU: {error}")
