"""The averaged weights of a training against the sum that defines them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from rbc_engine.training.fit.steps.loop import averaged


@pytest.mark.parametrize("ema_decay", [0.0, 0.5, 0.998])
def test_the_average_forgets_what_it_began_with(ema_decay: float):
    model = nn.Linear(1, 1, bias=False)
    average = averaged(model, ema_decay=ema_decay)
    values = np.random.default_rng(0).normal(size=40)
    expected = 0.0
    for number, value in enumerate(values):
        model.weight.data.fill_(value)
        average.update_parameters(model)
        decay = 0.0 if number == 0 else min(ema_decay, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * value
    got = average.module.weight.item()
    assert got == pytest.approx(expected, abs=1e-6)
    if ema_decay == 0:
        assert got == pytest.approx(values[-1])


def test_the_average_of_a_constant_is_the_constant():
    model = nn.Linear(1, 1, bias=False)
    average = averaged(model, ema_decay=0.998)
    for value in (100.0, *[2.0] * 60):
        with torch.no_grad():
            model.weight.fill_(value)
        average.update_parameters(model)
    # A plain average of decay 0.998 would still hold 0.998^60 = 89 % of the first value.
    assert abs(average.module.weight.item() - 2.0) < 1e-3
