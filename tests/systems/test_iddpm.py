"""Improved DDPM: its bound term by term as the paper's code has it, its learned variance, its losses and its walks."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffux import (
    Prediction,
    as_denoiser,
    objectives,
    processes,
    schedules,
    systems,
    times,
)
from diffux.noise_level import NoiseLevel
from diffux.parameterizations import epsilon
from diffux.processes import Gaussian
from tests.oracles import GaussianData, Levels

pytestmark = pytest.mark.usefixtures("quick")

TINY = {"steps": 40, "channels": 8, "multipliers": (1,), "blocks": 1, "attention": (), "heads": 1, "dropout": 0.0}


# --- the bound, as openai/improved-diffusion's gaussian_diffusion.py computes it ------------------------------------------


def published(betas, x0, xt, eps, o, index):
    """(KL or decoder's term in bits a dimension) of rows (B, D) at code indices (B,), by the code's formulas in float64."""
    abar = np.cumprod(1 - betas)
    before = np.append(1.0, abar[:-1])
    variance = betas * (1 - before) / (1 - abar)
    clipped = np.log(np.append(variance[1], variance[1:]))
    at = lambda table: table[index][:, None]  # noqa: E731
    one, two = betas * np.sqrt(before) / (1 - abar), (1 - before) * np.sqrt(1 - betas) / (1 - abar)
    fraction = (o + 1) / 2
    log_variance = fraction * at(np.log(betas)) + (1 - fraction) * at(clipped)
    guess = at(np.sqrt(1 / abar)) * xt - at(np.sqrt(1 / abar - 1)) * eps
    true, mean = (at(one) * x + at(two) * xt for x in (x0, guess))
    kl = 0.5 * (-1 + log_variance - at(clipped) + np.exp(at(clipped) - log_variance) + (true - mean) ** 2 * np.exp(-log_variance))
    cdf = lambda z: 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))  # noqa: E731
    above, below = (cdf(np.exp(-0.5 * log_variance) * (x0 - mean + side / 255)) for side in (1, -1))
    inside = np.log(np.maximum(above - below, 1e-12))
    edges = np.where(x0 > 0.999, np.log(np.maximum(1 - below, 1e-12)), inside)
    nll = -np.where(x0 < -0.999, np.log(np.maximum(above, 1e-12)), edges)
    return np.where(index == 0, nll.mean(1), kl.mean(1)) / np.log(2)


@pytest.mark.parametrize("table", [schedules.cosine_betas(4000), schedules.linear_betas(100)], ids=["cosine", "linear"])
def test_every_term_of_the_bound_is_the_codes(x64, table):
    """At the first step, the second, the last and between, for a wrong estimate and a variance outside its bounds."""
    T = len(table)
    index = np.repeat([0, 1, 2, T // 2, T - 2, T - 1], 4)
    rng = np.random.default_rng(0)
    x0 = np.round(rng.uniform(-1.2, 1.2, (len(index), 5)).clip(-1, 1) * 127.5 + 127.5) / 127.5 - 1
    abar = np.cumprod(1 - table)[index][:, None]
    noise, eps, o = (rng.standard_normal(x0.shape) for _ in range(3))
    xt, guess = np.sqrt(abar) * x0 + np.sqrt(1 - abar) * noise, noise + 0.3 * eps
    chain = schedules.from_betas(table)
    process = Gaussian(chain, processes.interpolated(chain, T))
    bound = objectives.elbo(process, T, objectives.discretized(tanh=True))

    @jax.jit
    def terms(x0, xt, guess, o, t):
        level = chain(t)
        prediction = as_denoiser(lambda x, noise, cond: (guess, o), epsilon)(xt, level, {})
        return (bound.at(prediction, x0, xt, level) - bound._prior(x0)) / T

    found = terms(x0, xt, guess, o, (index + 1) / T)
    np.testing.assert_allclose(found, published(table, x0, xt, guess, o, index), rtol=1e-5, atol=1e-12)


def test_the_prior_is_the_codes(x64):
    """KL(q(x_T | x_0) || N(0, I)): 2.9113e-05 bits a dimension for x_0^2 = 1 and the linear schedule."""
    chain = schedules.from_betas(schedules.linear_betas())
    bound = objectives.elbo(Gaussian(chain, processes.interpolated(chain, 1000)), 1000)
    np.testing.assert_allclose(bound._prior(jnp.ones((1, 3))), 2.9113e-05, rtol=1e-4)


@pytest.mark.full(but=("bfloat16",))
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_no_variance_makes_the_bound_nan(dtype):
    """Log variances from -40 to 40, with gradients, at the first step and at others."""
    T = 50
    chain = schedules.from_betas(schedules.cosine_betas(T))
    process = Gaussian(chain, processes.interpolated(chain, T))
    bound = objectives.elbo(process, T)
    low, high = np.log(0.5 * float(process.variance.floor)), np.log(schedules.cosine_betas(T)[0])
    o = 2 * (np.linspace(-40, 40, 81) - low) / (high - low) - 1  # of the first step
    x0 = jnp.asarray(np.linspace(-1, 1, 81)[:, None], dtype)

    @jax.jit
    @jax.value_and_grad
    def total(o, t):
        level = chain(jnp.full(81, t))
        return bound.at(Prediction(0.9 * x0, o[:, None].astype(dtype)), x0, 0.99 * x0, level).sum()

    for t in (1 / T, 2 / T, 0.5, 1.0):
        value, slope = total(jnp.asarray(o, jnp.float32), t)
        assert np.isfinite(value) and np.isfinite(slope).all(), t


# --- the learned variance ---------------------------------------------------------------------------------------------


def descended(loss, T, steps=600):
    """One o a step (T,) that minimises loss(key, o), by gradient descent from zero."""
    optimizer = optax.adam(optax.cosine_decay_schedule(0.1, steps))

    def step(carry, key):
        o, state = carry
        change, state = optimizer.update(jax.grad(loss, argnums=1)(key, o), state)
        return (optax.apply_updates(o, change), state), None

    carry = jnp.zeros(T), optimizer.init(jnp.zeros(T))
    return jax.jit(lambda: jax.lax.scan(step, carry, jax.random.split(jax.random.key(0), steps))[0][0])()


@pytest.mark.full
@pytest.mark.parametrize("variance", [0.05, 0.5, 1.5])
def test_the_variance_that_the_bound_wants_is_that_of_the_reverse(x64, variance):
    """Var(x_s | x_t) of Gaussian data, the posterior's and what the uncertainty of x_0 adds; the mean is exact. Every KL is
    quadratic in x_0 and the noise, so that two nodes of each give its expectation."""
    T = 20
    table = schedules.cosine_betas(T)
    chain = schedules.from_betas(table)
    process, index = Gaussian(chain, processes.interpolated(chain, T)), np.repeat(np.arange(2, T + 1), 4)
    bound, data = objectives.elbo(process, T), GaussianData(np.zeros(1), variance * np.eye(1))
    level = chain(jnp.asarray(index / T))
    signs = np.tile([[1, 1], [1, -1], [-1, 1], [-1, -1]], (T - 1, 1))
    x0 = np.sqrt(variance) * signs[:, :1]
    xt = level.like(x0).alpha * x0 + level.like(x0).sigma * signs[:, 1:]
    exact = Prediction(data(xt, level).x0)
    o = descended(lambda key, o: bound.at(exact._replace(variance=o[index - 1][:, None]), x0, xt, level).mean(), T)[1:]
    beta, abar = table[1:], np.cumprod(1 - table)
    before, abar = abar[:-1], abar[1:]
    lower, upper, of_x0 = beta * (1 - before) / (1 - abar), beta, beta * np.sqrt(before) / (1 - abar)
    want = lower + of_x0**2 * variance * (1 - abar) / (abar * variance + 1 - abar)
    np.testing.assert_allclose((o + 1) / 2 * np.log(upper) + (1 - o) / 2 * np.log(lower), np.log(want), atol=1e-3)


@pytest.mark.full
def test_a_learned_variance_has_a_lower_bound_than_either_fixed_one(x64):
    """Of eight levels with the exact estimate, in 25 steps: one number a step, learned on draws that the bounds do not see."""
    T, values, p = 25, np.linspace(-1, 1, 8), np.asarray([0.05, 0.1, 0.3, 0.05, 0.15, 0.2, 0.05, 0.1])
    chain, data = schedules.from_betas(schedules.cosine_betas(T)), Levels(values, p)
    learned, index = processes.interpolated(chain, T), np.repeat(np.arange(1, T + 1), 400)
    decoder, level = objectives.discretized(levels=8), chain(jnp.asarray(index / T))
    process = Gaussian(chain, learned)
    bound, x0 = objectives.elbo(process, T, decoder), data.sample(np.random.default_rng(0), (len(index), 1))

    def loss(key, o):
        xt = process.marginal(x0, level).sample(key)
        return bound.at(Prediction(data(xt, level).x0, o[index - 1][:, None]), x0, xt, level).mean()

    o, shown = descended(loss, T, 300), data.sample(np.random.default_rng(1), (4000, 1))

    def told(x, level, cond):
        at = jnp.round(level.like(x).t * T).astype(int) - 1
        return data(x, level)._replace(variance=o[at] + 0 * x)

    def of(variance):
        found = objectives.elbo(Gaussian(chain, variance), T, decoder)
        return np.asarray(jax.jit(lambda: found.bound(jax.random.key(1), told, shown).total)())

    bits = {name: of(variance) for name, variance in
            {"learned": learned, "posterior": processes.posterior(), "upper": processes.upper()}.items()}  # fmt: skip
    for name in ("posterior", "upper"):  # the same draws of data and noise, so that the difference has little of theirs
        less = bits[name] - bits["learned"]
        assert less.mean() > 4 * less.std() / np.sqrt(len(less)), (name, less.mean())
    assert bits["learned"].mean() > data.entropy


# --- losses, walks, and the system --------------------------------------------------------------------------------------


@pytest.mark.full
def test_times_by_their_loss_make_the_bound_quiet():
    """An untrained network, whose first step costs most: the mean stays, and a batch's deviation is a tenth and less."""
    T, x = 20, jnp.asarray(np.random.default_rng(0).integers(0, 256, (16, 64)) / 127.5 - 1, jnp.float32)
    chain = schedules.from_betas(schedules.cosine_betas(T))
    process, drawn = Gaussian(chain, processes.interpolated(chain, T)), times.by_loss(T)
    zero = as_denoiser(lambda x, noise, cond: (0 * x, 0 * x), epsilon)
    uniform, weighed = objectives.elbo(process, T), objectives.elbo(process, T, times=drawn)

    @jax.jit
    def history(key):
        return jax.lax.scan(lambda state, key: (weighed.apply(key, zero, x, {}, state)[2], None), drawn.init(),
                            jax.random.split(key, 60))[0]  # fmt: skip

    @jax.jit
    def batches(key, state):
        every = jax.random.split(key, 400)
        mean = lambda bound, state: jax.lax.map(lambda key: bound.apply(key, zero, x, {}, state)[0].mean(), every)  # noqa: E731
        return mean(weighed, state), mean(uniform, ())

    state = history(jax.random.key(0))
    assert (state[1] >= 10).all()  # every step has been seen often enough
    quiet, loud = batches(jax.random.key(1), state)
    np.testing.assert_allclose(quiet.mean(), loud.mean(), atol=4 * loud.std() / 20)
    assert quiet.std() < 0.1 * loud.std()


@pytest.mark.parametrize(("told", "want"), [("scaled", [0, 333.25, 666.5, 999.75]), ("index", [0, 1333, 2666, 3999])])
def test_a_shorter_walk_is_on_the_same_chain(x64, told, want):
    """The steps k (T - 1) / (S - 1), rounded, with their own numbers for the network, and the alphas of the whole chain."""
    system = systems.build("iddpm", told=told, **TINY | {"steps": 4000})
    for steps, at in ((4, np.asarray([0, 1333, 2666, 3999])), (25, np.round(np.arange(25) * 3999 / 24))):
        levels = system.grid(system.process.schedule, steps)
        abar = np.cumprod(1 - schedules.cosine_betas(4000))[at.astype(int)]
        np.testing.assert_allclose(levels.alpha[:-1][::-1] ** 2, abar, rtol=1e-12)
    levels = system.grid(system.process.schedule, 4)
    told = [float(system.parameterization(NoiseLevel(*(field[i] for field in levels))).noise) for i in range(4)]
    np.testing.assert_allclose(told[::-1], want, rtol=1e-12)


@pytest.mark.full
@pytest.mark.parametrize("loss", ["hybrid", "bound"])
def test_what_each_loss_trains(loss):
    """The hybrid loss begins at 1 + 0.001 L_vlb; in it the mean learns from L_simple alone, and in the bound from the bound."""
    system = systems.build("iddpm", loss=loss, **TINY)
    batch = {"image": np.random.default_rng(0).integers(0, 256, (64, 4, 4, 1)).astype(np.uint8)}
    variables = systems.init(jax.random.key(0), system, batch)
    state, key = system.objective.init(), jax.random.key(1)

    def value(params, system):
        return systems.loss(key, system, systems.Variables(params), batch, state)[0]

    found, slope = jax.jit(jax.value_and_grad(value))(variables.params, system)
    out = slope["network"]["conv_out"]["kernel"]
    assert np.isfinite(found) and np.abs(out[..., :1]).max() > 0 and np.abs(out[..., 1:]).max() > 0
    if loss == "hybrid":
        alone = system.replace(objective=system.objective.replace(weights=(1.0, 0.0)))
        simple = jax.jit(jax.grad(value))(variables.params, alone)["network"]["conv_out"]["kernel"]
        np.testing.assert_allclose(out[..., :1], simple[..., :1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("options", "said"), [
    ({"loss": "simple"}, "unknown loss 'simple'"), ({"told": "t"}, "unknown number to tell 't'"),
    ({"share": -0.1}, "at least 0, got -0.1"), ({"levels": 1}, "at least 2 levels"),
])  # fmt: skip
def test_what_cannot_be_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        systems.build("iddpm", **TINY, **options)
