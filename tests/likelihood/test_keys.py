"""What is drawn of one key is drawn of different keys: of draws that depend on each other no average is what it should be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import Gaussian, Prediction, keys, likelihood, schedules
from diffux.keys import sample_keys

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("quick")]

PROCESS, X = Gaussian(schedules.linear()), np.zeros((2, 3), int)


def guess(x, level, cond):
    return Prediction(jnp.zeros_like(x))


def bound(each):
    likelihood.bound(each, guess, PROCESS, X.astype(np.float32), start=1e-3, samples=3, reconstruct=True)


def bits(each):
    likelihood.bits_per_dim(each, guess, PROCESS, X, start=1e-3, dequantizer=likelihood.uniform(256), reconstruct=True)


@pytest.mark.parametrize("estimate", [bound, bits])
def test_every_draw_has_a_key_of_its_own(monkeypatch, estimate):
    seen, fold_in = [], keys.fold_in

    def folded(each, number):
        if not any(isinstance(value, jax.core.Tracer) for value in (each, number)):
            seen.append((np.asarray(jax.random.key_data(each)).tobytes(), int(number)))
        return fold_in(each, number)

    monkeypatch.setattr(keys, "fold_in", folded)
    with jax.disable_jit(estimate is bound):  # the bound's draws are made within its program
        estimate(sample_keys(0, 0, 2))
    assert len(seen) >= 3 and len({*seen}) == len(seen)
