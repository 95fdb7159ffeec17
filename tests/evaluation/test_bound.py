"""The bound of a chain, of data whose entropy is known, and what is printed and left of it."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffux.systems.ddpm
from diffux import Gaussian, cli, codecs, data, grids, objectives, parameterizations, schedules, solvers, systems, training
from diffux.config.plan import plan
from diffux.errors import EvaluationError
from diffux.evaluation import bound
from diffux.fields.image import Image
from diffux.guidance import static_threshold
from diffux.parameterizations import conditioned, direct, integer
from diffux.runs.run import Run
from diffux.systems.system import System
from diffux.systems.trainable import Variables
from tests.oracles import Levels
from tests.small import SMALL, Tiny

pytestmark = pytest.mark.usefixtures("quick")

T, GREYS, SHARES = 100, np.asarray([0, 85, 170, 255]), np.asarray([0.4, 0.3, 0.2, 0.1])
CHAIN = schedules.from_betas(schedules.cosine_betas(T))
IMAGES = np.random.default_rng(0).choice(GREYS, (400, 4, 4, 1), p=SHARES).astype(np.uint8)


class Exact(nn.Module):
    """E[x_0 | x_t] of independent pixels of four greys, or a share of it."""

    share: float = 1.0

    @nn.compact
    def __call__(self, x, noise, cond=None, train=False):
        self.param("unused", nn.initializers.zeros, (1,))
        return self.share * Levels(GREYS / 127.5 - 1, SHARES)(x, CHAIN((noise + 1) / T)).x0


def run(**changes) -> Run:
    process = Gaussian(CHAIN)
    parts = {
        "network": Exact(), "process": process, "parameterization": conditioned(direct, integer(T)),
        "objective": objectives.elbo(process, T), "solver": solvers.ancestral(process), "grid": grids.discrete(T), "steps": T,
        "guidance": (static_threshold(),),
    } | changes  # fmt: skip
    small = {"name": "ddpm", "channels": 8, "multipliers": (1,), "attention": ()}
    source = data.of_arrays({"image": IMAGES}, fields={"image": Image((4, 4, 1), levels=4)}, name="greys")
    made = plan({"system": small, "data": {"batch_size": 4}}, source=(source, source))
    made = dataclasses.replace(made, system=System(**parts))
    return Run(made, made.system, Variables({"network": {"unused": jnp.zeros(1)}}), made.data.fields(), 7)


@pytest.fixture(scope="module")
def measured():
    reports = []
    return bound.held_out(run(), n=100, batch=64, draws=2, progress=lambda *one: reports.append(one)), reports


def test_the_bound_of_the_exact_estimate_is_just_above_the_entropy(measured):
    """Of the images that are measured, whose share of each grey is known; the posterior's variance costs some per cent."""
    found, reports = measured
    assert reports == [("bound", done, 4) for done in (1, 2, 3, 4)]
    shown = IMAGES[np.random.default_rng(0).permutation(400)[:100]]
    entropy = -np.log2(SHARES)[np.searchsorted(GREYS, shown)].mean()
    assert entropy < found["model"]["bits"] < 1.15 * entropy
    assert (found["data"], found["chain"], found["examples"], found["conditional"]) == ("4 levels", T, 100, False)
    np.testing.assert_allclose(sum(found["terms"].values()), found["model"]["bits"], rtol=1e-6)
    assert len(found["steps"]) == T and found["steps"][0] == 0 and min(found["steps"][1:]) > 0
    np.testing.assert_allclose(sum(found["steps"]), found["terms"]["kl"], rtol=1e-5)
    last = CHAIN(1.0)
    x0 = shown / 127.5 - 1
    prior = 0.5 * (float(last.alpha) ** 2 * x0**2 + float(last.sigma) ** 2 - 1 - 2 * np.log(float(last.sigma))).mean() / np.log(2)
    np.testing.assert_allclose(found["terms"]["prior"], prior, atol=1e-6)
    assert bound.table(found).row_count == 1 and "chain of 100 steps" in bound.caption(found)
    json.dumps(found)


@pytest.mark.full
def test_a_worse_estimate_has_a_higher_bound(measured):
    worse = bound.held_out(run(network=Exact(0.95)), n=100, batch=64)
    assert worse["model"]["bits"] > measured[0]["model"]["bits"] + 0.05


@pytest.mark.full
def test_guidance_is_part_of_the_model():
    """Clipping is: an estimate that is far outside of the data's range costs less with it."""
    clipped, free = (bound.held_out(run(network=Exact(1.5), guidance=guidance), n=20)["model"]["bits"]
                     for guidance in ((static_threshold(),), ()))  # fmt: skip
    assert clipped < free - 0.05


def test_data_of_another_kind_have_the_objectives_own_bound():
    """Bits, which no level is made of: -log2 p of a network that knows nothing is a bit a dimension and more."""
    options = {"name": "diffusion2015", "data": "bits", "kind": "binomial", "network": "mlp", "codec": "bits", "steps": 5}
    made = plan({"system": {**options, "widths": (4,), "readout": "shared"}, "data": {"name": "heartbeats"}})
    variables = systems.init(jax.random.key(0), made.system, {"bits": np.zeros((1, 20), np.uint8)})
    found = bound.held_out(Run(made, made.system, variables, made.data.fields(), 3), n=64)
    assert found["data"] == "as the objective has them" and found["chain"] == 5
    assert 0.9 < found["model"]["bits"] < 2 and len(found["steps"]) == 5


def test_what_has_no_chain_is_refused():
    process = Gaussian(schedules.linear())
    simple = objectives.denoising(process, lambda level: level.snr, lambda key, n: jnp.full(n, 0.5))
    for changes, words in (
        ({"parameterization": parameterizations.epsilon, "objective": simple}, "of a chain of steps, and ddpm has none"),
        ({"objective": simple, "codec": codecs.standardized()}, "needs a law of the first step"),
    ):
        with pytest.raises(EvaluationError, match=words):
            bound.held_out(run(process=process, **changes), n=2)
    classifier = dataclasses.replace(run(), system=systems.build("noisy_classifier", depth=10, width=1))
    with pytest.raises(EvaluationError, match="a NoisyClassifier is no model of data"):
        bound.held_out(classifier, n=2)


@pytest.mark.full
def test_the_command_prints_and_writes(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(diffux.systems.ddpm, "UNet", Tiny)
    training.train(SMALL, tmp_path / "run")
    assert cli.main(["evaluate", "--workdir", str(tmp_path / "run"), "--likelihood", "--bound", "--n", "4"]) == 0
    said = capsys.readouterr().out
    assert "decoder" in said and "bound.json" in said and (tmp_path / "run" / "bound.png").stat().st_size > 1000
    assert json.loads((tmp_path / "run" / "bound.json").read_text())["chain"] == 100
    assert cli.main(["evaluate", "--workdir", str(tmp_path / "run"), "--likelihood", "--bound", "--trace", "exact"]) == 2
    assert "--trace is of the flow's density, and --bound is of the chain's steps" in capsys.readouterr().err
