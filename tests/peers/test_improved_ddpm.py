"""Improved DDPM against its authors' code: the bound, the learned variance, strided walks and times by their loss.

The code is no package: it is compared where the environment variable DIFFUX_IMPROVED_DIFFUSION names a checkout of
openai/improved-diffusion. tests/systems/test_iddpm.py has its formulas, written independently, without one.
"""

import importlib
import os
import sys
from types import ModuleType, SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import as_denoiser, grids, objectives, processes, schedules, times
from diffux.parameterizations import epsilon
from diffux.processes import Gaussian

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("x64", "quick")]


@pytest.fixture
def authors(monkeypatch):
    if "DIFFUX_IMPROVED_DIFFUSION" not in os.environ:
        pytest.skip("DIFFUX_IMPROVED_DIFFUSION names no checkout")
    monkeypatch.syspath_prepend(os.environ["DIFFUX_IMPROVED_DIFFUSION"])
    for name in ("mpi4py", "mpi4py.MPI", "blobfile"):  # of their training alone
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(np, "int", int, raising=False)  # which numpy no longer has
    names = ("gaussian_diffusion", "resample", "respace")
    return SimpleNamespace(**{name: importlib.import_module(f"improved_diffusion.{name}") for name in names})


def chain_of(authors, betas):
    theirs = authors.gaussian_diffusion
    learned, loss = theirs.ModelVarType.LEARNED_RANGE, theirs.LossType.RESCALED_KL
    return theirs.GaussianDiffusion(
        betas=betas, model_mean_type=theirs.ModelMeanType.EPSILON, model_var_type=learned, loss_type=loss)  # fmt: skip


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_the_betas_are_theirs(authors, name):
    for T in (100, 1000, 4000):
        want = authors.gaussian_diffusion.get_named_beta_schedule(name, T)
        np.testing.assert_allclose(schedules.BETAS[name](T), want, rtol=1e-12)


@pytest.mark.parametrize("name, T", [("cosine", 4000), ("linear", 100)])
def test_every_term_of_the_bound_is_theirs(authors, name, T):
    """Step by step and the prior, in bits a dimension, of a wrong estimate with a variance outside of its bounds as well."""
    betas = authors.gaussian_diffusion.get_named_beta_schedule(name, T)
    diffusion, chain = chain_of(authors, betas), schedules.from_betas(betas)
    index, rng = np.repeat([0, 1, 2, T // 2, T - 2, T - 1], 4), np.random.default_rng(0)
    x0 = np.round(rng.uniform(-1.2, 1.2, (len(index), 3, 2, 2)).clip(-1, 1) * 127.5 + 127.5) / 127.5 - 1
    noise, wrong, o = (rng.standard_normal(x0.shape) for _ in range(3))
    guess = noise + 0.3 * wrong
    t = torch.tensor(index)
    xt = diffusion.q_sample(torch.tensor(x0), t, torch.tensor(noise)).numpy()
    network = lambda x, told: torch.tensor(np.concatenate([guess, o], 1))  # noqa: E731
    want = diffusion._vb_terms_bpd(network, torch.tensor(x0), torch.tensor(xt), t, clip_denoised=False)["output"].numpy()
    process = Gaussian(chain, processes.interpolated(chain, T))
    bound = objectives.elbo(process, T, objectives.discretized(tanh=True))

    @jax.jit
    def terms(x0, xt, guess, o, t):
        level = chain(t)
        return bound.at(as_denoiser(lambda x, noise, cond: (guess, o), epsilon)(xt, level, {}), x0, xt, level), bound._prior(x0)

    total, prior = terms(x0, xt, guess, o, (index + 1) / T)
    np.testing.assert_allclose((total - prior) / T, want, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(prior, diffusion._prior_bpd(torch.tensor(x0)).numpy(), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("steps", [25, 100, 400, 4000])
def test_strided_walks_visit_the_same_steps(authors, steps):
    T = 4000
    theirs = sorted(authors.respace.space_timesteps(T, str(steps)), reverse=True)
    chain = schedules.from_betas(schedules.cosine_betas(T))
    got = np.round(np.asarray(grids.discrete(T)(chain, steps).t[:-1]) * T) - 1
    np.testing.assert_array_equal(got, theirs)


def test_times_are_drawn_with_the_same_probabilities(authors):
    T, rng = 12, np.random.default_rng(0)
    resampler = authors.resample.LossSecondMomentResampler(chain_of(authors, schedules.cosine_betas(T)))
    ours = times.by_loss(T)
    state = ours.init()
    for _ in range(20):
        index, losses = rng.permutation(T), rng.gamma(0.5, size=T)
        resampler.update_with_all_losses(index, losses)
        state = ours.learned(state, jnp.asarray((index + 1) / T), jnp.asarray(losses))
        theirs = resampler.weights()
        np.testing.assert_allclose(ours.probabilities(state), theirs / theirs.sum(), rtol=1e-12)
