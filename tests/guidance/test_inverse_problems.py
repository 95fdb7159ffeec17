"""Every method for inverse problems with every kind of measurement: samples are finite, whatever is measured and however well."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from diffux import Gaussian, Prediction, grids, guidance, operators, schedules, solvers
from diffux.keys import noise, sample_keys
from tests.oracles import GaussianData

pytestmark = pytest.mark.usefixtures("quick")

SCHEDULE = schedules.linear()
PROCESS = Gaussian(SCHEDULE)
ONE = np.eye(4, dtype=np.float32)
ROWS = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
# all of one shape, so that a method is compiled once
MATRICES = {
    "some known": np.diag([1.0, 0.0, 1.0, 0.0]),
    "all known": ONE,
    "nothing": 0 * ONE,
    "one entry four times": ONE[[1, 1, 1, 1]],
    "dependent rows": np.stack([ROWS[0], ROWS[1], ROWS[0] + ROWS[1], 0 * ROWS[0]]),
    "means of pairs": np.stack([ONE[0] + ONE[1], ONE[2] + ONE[3], 0 * ONE[0], 0 * ONE[0]]) / 2,
    "a blur that loses a frequency": (ONE + np.roll(ONE, 1, 0)) / 2,
    "nearly singular": np.diag([1.0, 1e-3, 1e-5, 0.0]),
    "large": 1e3 * ROWS,
}
MATRICES = {name: np.asarray(matrix, np.float32) for name, matrix in MATRICES.items()}
STDS = (0.0, 1e-4, 0.3)
Y = np.asarray([0.5, 0.7, -2.0, 0.3], np.float32)  # which no x has where a row is repeated
KEYS, LEVELS = sample_keys(0, 0, 4), grids.log_snr(end=1e-4)(SCHEDULE, 6)
START = noise(sample_keys(1, 0, 4), (4, 4))
AXES = np.linalg.qr(ROWS)[0]
FLAT = GaussianData(jnp.zeros(4), AXES @ np.diag(np.float32([3.0, 1.0, 1e-3, 1e-6])) @ AXES.T)


def plane(x, level, cond=None):
    """Data that are nearly a plane."""
    return FLAT(x, level)


def crooked(x, level, cond=None):
    """A network whose Jacobian is neither symmetric nor positive, and at high noise none of a density."""
    return Prediction(jnp.tanh(3 * x @ jnp.asarray(ROWS)) - 0.5 * x)


@struct.dataclass
class Guided:
    """A denoiser whose transform is an argument of the program."""

    transform: object
    denoise: object = struct.field(pytree_node=False)

    def __call__(self, x, level, cond):
        return self.transform(self.denoise)(x, level, cond)


def posterior(rule):
    return lambda operator, std: guidance.posterior_sampling(operator, Y, std, rule)


RULES = {
    "dps": posterior(guidance.dps()),
    "dps(3)": posterior(guidance.dps(3.0)),
    "isotropic": posterior(guidance.isotropic()),
    "isotropic, gradients": posterior(guidance.isotropic(iterations=4)),
    "tweedie": posterior(guidance.tweedie()),
    "tweedie, gradients": posterior(guidance.tweedie(iterations=4)),
    "proximal": lambda operator, std: guidance.proximal(operator, Y, std),
    "proximal, gradients": lambda operator, std: guidance.proximal(operator, Y, std, 4.0, iterations=4),
}


@pytest.mark.full(but=("plane-isotropic", "crooked-tweedie", "plane-proximal", "crooked-proximal, gradients"))
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("denoise", [plane, crooked], ids=lambda denoise: denoise.__name__)
def test_rules_are_finite_for_whatever_is_measured(denoise, rule):
    """In single precision. Without noise dps() is refused, as it divides by it; the proximal step comes as near to y as can be."""
    for name, matrix in MATRICES.items():
        for std in STDS:
            if rule == "dps" and std == 0:
                with pytest.raises(ValueError, match="divides by std"):
                    RULES[rule](operators.matrix(matrix), std)
                continue
            guided = Guided(RULES[rule](operators.matrix(matrix), std), denoise)
            x = np.asarray(solvers.sample(KEYS, guided, solvers.ddim(zeta=0.3), LEVELS, START).x)
            assert np.isfinite(x).all(), (name, std)
            if rule.startswith("proximal") and std == 0 and name not in ("nearly singular", "large"):
                fit = matrix @ np.linalg.lstsq(matrix, Y, rcond=1e-6)[0]
                np.testing.assert_allclose(x @ matrix.T, np.broadcast_to(fit, x.shape), atol=1e-4)


MASKS = {"some": [True, False, True, False], "all": [True] * 4, "nothing": [False] * 4}
AROUND = {
    "replacement": lambda *known: solvers.replace(solvers.ddim(), PROCESS, *known),
    "replacement, correctors": lambda *known: solvers.inpaint(solvers.ddim(), PROCESS, *known, 2),
    "RePaint": lambda *known: solvers.repaint(solvers.ddim(1.0), PROCESS, *known),
    "in a basis": lambda *known: solvers.repaint(solvers.ddim(1.0), PROCESS, *known, operators.grey_basis(4)),
}


@pytest.mark.full(but=("plane-RePaint", "plane-in a basis"))
@pytest.mark.parametrize("name", AROUND)
@pytest.mark.parametrize("denoise", [plane, crooked], ids=lambda denoise: denoise.__name__)
def test_walks_that_set_what_is_known_are_finite_for_every_mask(denoise, name):
    """And end with it."""
    levels = grids.resampled(grids.log_snr(end=1e-4), 2, 2)(SCHEDULE, 6) if name in ("RePaint", "in a basis") else LEVELS
    basis = operators.grey_basis(4) if name == "in a basis" else lambda x: x
    denoise = jax.tree_util.Partial(denoise)
    for mask in map(np.asarray, MASKS.values()):
        x = solvers.sample(KEYS, denoise, AROUND[name](jnp.asarray(Y), mask), levels, START).x
        assert np.isfinite(x).all(), mask
        np.testing.assert_allclose(np.asarray(basis(x))[:, mask], np.broadcast_to(Y, (4, 4))[:, mask], atol=1e-5)


def test_a_mask_operator_of_nothing_is_refused():
    with pytest.raises(ValueError, match="got bool with 0"):
        operators.mask(np.zeros(4, bool))
