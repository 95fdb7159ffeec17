"""Held-out bits a dimension of a run: known answers through a system whose density is known, the script, and refusals."""

import dataclasses
import json
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

import diffux.systems.ddpm
from diffux import (
    Gaussian,
    cli,
    codecs,
    data,
    grids,
    objectives,
    parameterizations,
    processes,
    schedules,
    solvers,
    systems,
    training,
)
from diffux.conditions import given
from diffux.config.plan import plan
from diffux.errors import EvaluationError
from diffux.evaluation import likelihood
from diffux.parameterizations import conditioned, integer
from diffux.runs.run import Run
from diffux.systems.system import System
from diffux.systems.trainable import Variables
from tests.small import SMALL, Tiny

pytestmark = pytest.mark.usefixtures("quick")

STD = 0.6


class White(nn.Module):
    """x0_hat of independent pixels N(0, STD^2), as an estimate of epsilon at alpha and sigma of the linear schedule."""

    classes: int | None = None

    @property
    def reads(self):
        return {} if self.classes is None else {"label": self.classes}

    @nn.compact
    def __call__(self, x, noise, cond=None, train=False):
        self.param("unused", nn.initializers.zeros, (1,))
        assert self.classes is None or cond["label"].shape == x.shape[:1]
        level = schedules.linear(0.1, 30.0)(noise / 999).like(x)
        return level.sigma * x / (level.alpha**2 * STD**2 + level.sigma**2)


def run(dataset="digits", **changes) -> Run:
    """A run of the data set, with a system of these parts in the place of the one that it would have."""
    process = Gaussian(schedules.linear(0.1, 30.0))
    parts: dict[str, Any] = {
        "network": White(), "process": process, "parameterization": parameterizations.epsilon,
        "objective": objectives.elbo(process, 2), "solver": solvers.ddim(), "grid": grids.uniform(), "steps": 10,
    } | changes  # fmt: skip
    small = {"name": "ddpm", "channels": 8, "multipliers": (1,), "attention": ()}
    made = plan({"system": small, "data": {"name": dataset, "dequantize": dataset == "digits"}})
    made = dataclasses.replace(made, system=System(**parts))
    return Run(made, made.system, Variables({"network": {"unused": jnp.zeros(1)}}), made.data.fields(), 7)


@pytest.mark.full
def test_the_figures_of_a_known_density():
    """Independent N(0, STD^2) pixels in [-1, 1]: the mean over draws of the closed form at t = start, by integrating over u."""
    reports = []
    report = lambda *numbers: reports.append(numbers)  # noqa: E731
    found = likelihood.held_out(run(network=White(10), given=given("label")), n=6, draws=2, batch=4, start=1e-3, progress=report)
    assert reports == [("likelihood", done, 4) for done in (1, 2, 3, 4)]
    test = data.load("digits", split="test")
    images = test.take(np.random.default_rng(0).permutation(len(test))[:6])["image"]
    k = np.round(images * (16 / 255)).reshape(-1, 64)
    level = schedules.linear(0.1, 30.0)(1e-3)
    variance = float(level.alpha) ** 2 * STD**2 + float(level.sigma) ** 2
    u = (np.arange(200) + 0.5)[:, None, None] / 200
    z = -1 + 2 * (k + u) / 17
    each = -0.5 * z**2 / variance - 0.5 * np.log(2 * np.pi * variance) + np.log(2 / 17)
    want = -each.mean() / np.log(2)
    row = found["rows"]["model"]
    # u's own noise: of 768 pixels' log-densities
    np.testing.assert_allclose(row["bits"], want, atol=4 * each.std(0).mean() / np.log(2) / np.sqrt(768) + 1e-3)
    assert row["standard_error"] > 0 and row["evaluations"] > 20
    assert found["rows"]["uniform"]["bits"] == np.log2(17)
    assert (found["levels"], found["examples"], found["start"], found["conditional"]) == (17, 6, 1e-3, True)
    assert "Upper bounds" in likelihood.caption(found) and likelihood.table(found).row_count == 3
    assert likelihood.table(found).title.endswith(f", {found['weights']}, step {found['checkpoint']}")
    json.dumps(found)


@pytest.mark.full
def test_a_learned_dequantizer_is_trained_first():
    """Two steps leave it near uniform noise: the same figure to a few hundredths, and the steps are reported before."""
    reports = []
    options = {"n": 4, "batch": 4, "start": 1e-3, "rtol": 1e-3, "atol": 1e-3}
    model = run(network=White(10), given=given("label"))
    learned = likelihood.held_out(model, dequantizer_steps=2, progress=lambda *r: reports.append(r), **options)
    uniform = likelihood.held_out(model, **options)
    assert [what for what, *_ in reports] == ["dequantizer", "dequantizer", "likelihood"]
    assert "learned in 2 steps" in likelihood.caption(learned) and "uniform" in likelihood.caption(uniform)
    bits = [found["rows"]["model"]["bits"] for found in (learned, uniform)]
    assert bits[0] != bits[1] and abs(bits[0] - bits[1]) < 0.05


def test_the_gaussian_control_is_the_one_of_a_known_covariance():
    """Of many rounded draws of a correlated Gaussian: the entropy of the Gaussian itself, wide as it is beside a bin."""
    rng = np.random.default_rng(0)
    covariance = np.asarray([[30.0, 12.0, 0.0], [12.0, 20.0, 3.0], [0.0, 3.0, 9.0]])
    train, test = (np.floor(rng.multivariate_normal([50, 60, 40], covariance, n)) for n in (20000, 5000))
    bits = likelihood.gaussian_bits(train, test, draws=2)
    assert bits.shape == (2, 5000)
    want = 0.5 * (np.log(2 * np.pi * np.e) + np.linalg.slogdet(covariance)[1] / 3) / np.log(2)
    np.testing.assert_allclose(bits.mean(), want, atol=0.02)
    # few images of many pixels: singular without the shrinkage, and finite with it
    few = rng.integers(0, 17, (5, 40)).astype(float)
    assert np.isfinite(likelihood.gaussian_bits(few, few)).all()


def test_bins_are_where_the_run_learned_its_values():
    """Dequantized, the levels 0 and 16 end at low and high; without it they are centred there."""
    assert likelihood.edges(-1.0, 1.0, 17, False) == (-1.0, 1.0)
    low, high = likelihood.edges(-1.0, 1.0, 17, True)
    width = (high - low) / 17
    np.testing.assert_allclose([low + width / 2, high - width / 2], [-1, 1])


@pytest.mark.full
def test_a_chains_index_is_continued_and_begins_at_its_first_step():
    label = likelihood._continued(conditioned(parameterizations.epsilon, integer(100))).label
    level = schedules.linear()(jnp.asarray([0.01, 0.255, 1.0]))
    np.testing.assert_allclose(label(level), [0.0, 24.5, 99.0], rtol=1e-5)
    made = dataclasses.replace(run(parameterization=conditioned(parameterizations.epsilon, integer(100))))
    made = dataclasses.replace(made, system=made.system.replace(network=Chain()))
    found = likelihood.held_out(made, n=2)
    assert found["start"] == 0.01 and found["told"] == "fractions between the trained steps"


class Chain(White):
    """The same, told an index 0 .. 99."""

    @nn.compact
    def __call__(self, x, noise, cond=None, train=False):
        self.param("unused", nn.initializers.zeros, (1,))
        level = schedules.linear(0.1, 30.0)((noise + 1) / 100).like(x)
        return level.sigma * x / (level.alpha**2 * STD**2 + level.sigma**2)


def test_what_has_no_bits_is_refused():
    classifier = systems.build("noisy_classifier", depth=10, width=1)
    for made, words in (
        (run(codec=codecs.standardized()), "this system's codec is Standardized"),
        (run(process=processes.Binomial(schedules.linear())), "got Binomial; what fits is the bound"),
        (run(parameterization=conditioned(parameterizations.score, parameterizations.descending(10))), "those of a list alone"),
        (run("swiss_roll", data="point"), "of a number of levels, and swiss_roll"),
        (dataclasses.replace(run(), system=classifier), "a NoisyClassifier is no model of data"),
    ):
        with pytest.raises(EvaluationError, match=words):
            likelihood.held_out(made, n=2)
    with pytest.raises(ValueError, match="unknown trace 'exakt'; did you mean 'exact'"):
        likelihood.held_out(run(), n=2, trace="exakt")


@pytest.mark.full
def test_the_script_prints_and_writes(monkeypatch, capsys, tmp_path):
    """A run of a few steps: the table with its controls, and likelihood.json."""
    monkeypatch.setattr(diffux.systems.ddpm, "UNet", Tiny)
    config = json.loads(json.dumps(SMALL))
    config["training"]["steps"] = 3
    training.train(config, tmp_path / "run")
    arguments = ["--workdir", str(tmp_path / "run"), "--likelihood", "--n", "4", "--start", "0.05"]
    assert cli.main(["evaluate", *arguments]) == 0
    out = capsys.readouterr().out
    for words in ("the model", "a Gaussian of the train split", "a uniform model", "bits/dim", "4.0875", "likelihood.json"):
        assert words in out
    found = json.loads((tmp_path / "run" / "likelihood.json").read_text())
    assert not found["conditional"] and found["examples"] == 4 and np.isfinite(found["rows"]["model"]["bits"])
    assert found["rows"]["gaussian"]["bits"] < np.log2(17)
    assert cli.main(["evaluate", *arguments, "--trace", "diagonal"]) == 2
    assert "unknown trace 'diagonal'" in capsys.readouterr().err
    assert cli.main(["evaluate", *arguments[:3], "--probes", "0"]) == 2
