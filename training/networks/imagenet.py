"""ImageNet weights for a trunk, where this machine can fetch them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights

from rbc_engine.errors import UsageError
from rbc_engine.training.networks.efficientnet_lite import LITE_LEVELS, LITE_TRUNKS, fetch_lite

__all__ = ["TrunkWeights", "fetch_imagenet", "load_trunk"]

Log = Callable[[str], None]
TrunkWeights = Literal["auto", "imagenet", "scratch"]

# What torchvision's weights expect: levels 0..1, less the mean, over the standard deviation.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_LITE_MEAN, _LITE_STD = ((value / 255,) * 3 for value in LITE_LEVELS)
# First convolution, the norm behind it, and what its weights expect.
_STEMS = (
    ("conv1", "bn1", _MEAN, _STD),
    ("net._conv_stem", "net._bn0", _LITE_MEAN, _LITE_STD),
)


def fetch_imagenet(trunk: str, *, wanted: TrunkWeights, log: Log) -> dict[str, Tensor] | None:
    """The weights of a torchvision ResNet, from its cache or the network; None to begin from scratch.

    Those of an EfficientNet-Lite come from an installed package, see fetch_lite.

    wanted: 'imagenet' must have them, 'auto' goes without where they cannot be had, 'scratch' does not look.
    log: told which it is, and why.

    Raises UsageError for 'imagenet' if they cannot be had.
    """
    if wanted == "scratch":
        log(f"{trunk} begins with random weights")
        return None
    if trunk in LITE_TRUNKS:
        return fetch_lite(trunk, insist=wanted == "imagenet", log=log)
    weights = get_model_weights(trunk).IMAGENET1K_V1
    try:
        state: dict[str, Tensor] = dict(weights.get_state_dict(progress=False, check_hash=True))
    except (URLError, OSError, RuntimeError) as error:
        if wanted == "imagenet":
            raise UsageError(
                f"the ImageNet weights of {trunk} cannot be had from {weights.url} ({error}); connect to the "
                f"network, or give --trunk-weights scratch"
            ) from error
        log(f"{trunk} begins with random weights: {weights.url} cannot be reached ({error})")
        return None
    log(f"{trunk} begins with ImageNet weights, {weights.url}")
    return state


def load_trunk(
    body: nn.Module,
    state: Mapping[str, Tensor],
    *,
    mean_rgb: Sequence[float],
    std_rgb: Sequence[float],
) -> None:
    """Puts ImageNet weights into the layers that `body` has, made for inputs that are normalised in another way.

    mean_rgb, std_rgb: grey levels, what the inputs of `body` are normalised by. An input x stands for the level
        x * std + mean; the first convolution and the mean that its norm subtracts take that up. This is exact but
        where the convolution's padding is seen.
    """
    conv, norm, means, stds = next(stem for stem in _STEMS if f"{stem[0]}.weight" in state)
    weight = state[f"{conv}.weight"]
    ratio = torch.tensor([std / 255 / s for std, s in zip(std_rgb, stds, strict=True)])
    shift = torch.tensor(
        [(mean / 255 - m) / s for mean, m, s in zip(mean_rgb, means, stds, strict=True)]
    )
    adapted = dict(state)
    adapted[f"{conv}.weight"] = weight * ratio[None, :, None, None]
    adapted[f"{norm}.running_mean"] = state[f"{norm}.running_mean"] - torch.einsum(
        "oihw,i->o", weight, shift
    )
    own = body.state_dict()
    body.load_state_dict({name: adapted[name] for name in own if name in adapted}, strict=False)
    # num_batches_tracked is absent from older files; every weight must be there.
    if missing := [name for name in own if name not in adapted and "num_batches" not in name]:
        raise ValueError(f"the ImageNet weights lack {', '.join(missing[:5])}")
