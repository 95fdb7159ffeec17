"""Guidance against diffusers' guiders, on the same two estimates; each combines what the network predicts, which is x0 here."""

import sys

import jax.numpy as jnp
import numpy as np
import pytest

from diffux import Prediction, chain, guidance, schedules
from diffux.guidance._perturbed import _kernel

torch = pytest.importorskip("torch")
guiders = pytest.importorskip("diffusers.guiders")
pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("x64")]

BUILT = {
    "AdaptiveProjectedGuidance", "AutoGuidance", "ClassifierFreeGuidance", "PerturbedAttentionGuidance", "SmoothedEnergyGuidance",
}
NOT_BUILT = {
    "AdaptiveProjectedMixGuidance": "two published ones, one after the other, by step: between(...) of each says the same",
    "ClassifierFreeZeroStarGuidance": "a projection of the null and no estimate at the first steps, published for one video model",
    "FrequencyDecoupledGuidance": "a scale for each band of a Laplacian pyramid",
    "LTX2Guidance": "of one model",
    "MagnitudeAwareGuidance": "a scale that grows with the step, a schedule of numbers",
    "SkipLayerGuidance": "leaves out blocks of transformers, which no network here has",
    "TangentialClassifierFreeGuidance": "a singular value decomposition of the batch's two estimates",
}
RNG = np.random.default_rng(0)
CONDITIONAL, NULL = RNG.normal(size=(2, 3, 4, 4, 2))


def denoise(x, level, cond):
    null = cond.get("null", jnp.zeros(len(x), bool))[:, None, None, None]
    mine, none = (jnp.concatenate([jnp.asarray(part)] * (len(x) // 3)) for part in (CONDITIONAL, NULL))
    return Prediction(jnp.where(null, none, mine))


def ours(*transforms, cond={}):  # noqa: B006 - never mutated
    return np.asarray(chain(denoise, *transforms)(jnp.zeros((3, 4, 4, 2)), schedules.linear()(0.4), cond).x0)


def theirs(guider, *more, steps=1, **options):
    """The last of `steps` answers of a guider, the first of which is of the second step: some do nothing at the very first."""
    made = getattr(guiders, guider)(**options)
    if options.get("adaptive_projected_guidance_momentum"):
        made.momentum_buffer = sys.modules[type(made).__module__].MomentumBuffer(made.adaptive_projected_guidance_momentum)
    for step in range(1, 1 + steps):
        made.set_state(step=step, num_inference_steps=10, timestep=torch.tensor(10 - step))
        pred = made.forward(*(torch.tensor(part) for part in (CONDITIONAL, NULL, *more))).pred
    return pred.numpy()


def test_every_guider_is_built_or_said_not_to_be():
    found = {name for name in dir(guiders) if name.endswith("Guidance")} - {"BaseGuidance"}
    assert found == BUILT | set(NOT_BUILT)


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_classifier_free(scale):
    """`use_original_formulation` begins at the conditional estimate, with w = s - 1."""
    got = ours(guidance.classifier_free(scale))
    np.testing.assert_allclose(got, theirs("ClassifierFreeGuidance", guidance_scale=scale), rtol=1e-10)
    paper = theirs("ClassifierFreeGuidance", guidance_scale=scale - 1, use_original_formulation=True)
    np.testing.assert_allclose(got, paper, rtol=1e-10)


def test_rescaled():
    want = theirs("ClassifierFreeGuidance", guidance_scale=3.0, guidance_rescale=0.7)
    np.testing.assert_allclose(ours(guidance.rescaled(guidance.classifier_free(3.0), 0.7, of="x_start")), want, rtol=1e-12)


def test_autoguidance():
    worse = lambda x, level, cond: Prediction(jnp.asarray(NULL))  # noqa: E731
    want = theirs("AutoGuidance", auto_guidance_layers=["mid_block"], dropout=0.1, guidance_scale=2.5)
    np.testing.assert_allclose(ours(guidance.autoguidance(worse, 2.5)), want, rtol=1e-12)


@pytest.mark.parametrize(("parallel", "most"), [(0.0, 2.0), (0.4, 100.0), (1.0, 1.0)])
def test_adaptive_projected(parallel, most):
    """With the original formulation, w = s - 1, it is algorithm 1; without, it adds s times the update to the null estimate, so
    that scale 1 is not the conditional model where anything is projected away or clipped."""
    options = {"eta": parallel, "adaptive_projected_guidance_rescale": most}
    got = ours(guidance.adaptive_projected(4.0, parallel, most))
    paper = theirs("AdaptiveProjectedGuidance", guidance_scale=3.0, use_original_formulation=True, **options)
    np.testing.assert_allclose(got, paper, rtol=1e-10)
    update = (got - CONDITIONAL) / 3
    deviates = theirs("AdaptiveProjectedGuidance", guidance_scale=4.0, **options)
    np.testing.assert_allclose(deviates, NULL + 4 * update, rtol=1e-9)


def test_momentum():
    """After three steps of the same estimates the difference is 1 + m + m^2 times the first."""
    want = theirs("AdaptiveProjectedGuidance", steps=3, guidance_scale=3.0, use_original_formulation=True, eta=0.3,
                  adaptive_projected_guidance_rescale=0.0, adaptive_projected_guidance_momentum=-0.5)  # fmt: skip
    difference = CONDITIONAL - NULL
    moving = guidance.adaptive_projected(4.0, 0.3, momentum=-0.5)
    got = ours(moving, cond={"memory": {"momentum": jnp.asarray((1 - 0.5) * difference)}})
    np.testing.assert_allclose(got, want, rtol=1e-10)


@pytest.mark.parametrize(("guider", "scale", "layers"), [
    ("PerturbedAttentionGuidance", "perturbed_guidance_scale", "perturbed_guidance_layers"),
    ("SmoothedEnergyGuidance", "seg_guidance_scale", "seg_guidance_layers"),
])  # fmt: skip
def test_attentions_made_worse(guider, scale, layers):
    """x0 + s (x0 - x0'), the papers' form, is their original formulation; their default begins at x0', so that its neutral scale
    is 1."""
    worse = RNG.normal(size=CONDITIONAL.shape)
    options = {"guidance_scale": 1.0, layers: [0], layers.replace("layers", "start"): 0.0, layers.replace("layers", "stop"): 1.0}
    alone = theirs(guider, worse, **options | {scale: 2.0, "guidance_scale": 0.0, "use_original_formulation": True})
    np.testing.assert_allclose(alone, CONDITIONAL + 2 * (CONDITIONAL - worse), rtol=1e-12)
    deviates = theirs(guider, worse, **options | {scale: 2.0})
    np.testing.assert_allclose(deviates, worse + 2 * (CONDITIONAL - worse), rtol=1e-12)
    both = theirs(guider, worse, **options | {scale: 2.0, "guidance_scale": 2.0, "use_original_formulation": True})
    np.testing.assert_allclose(both, CONDITIONAL + 2 * (CONDITIONAL - NULL) + 2 * (CONDITIONAL - worse), rtol=1e-12)


def test_the_blur_of_smoothed_queries():
    """Inside the map the peer's blur is ours; it is cut off at three deviations, and mirrored at the edges where ours takes the
    positions that there are. The peer blurs where the deviation is said to be infinite and takes the mean where it is not, the
    other way round than in its source."""
    from diffusers.hooks.smoothed_energy_guidance_utils import _gaussian_blur_2d

    side, std = 16, 1.0
    query = RNG.normal(size=(1, side * side, 1))
    blurred = lambda infinite: _gaussian_blur_2d(torch.tensor(query), 7, std, infinite).numpy().reshape(side, side)  # noqa: E731
    rows = np.asarray(_kernel(side, std))
    got, want = rows @ query.reshape(side, side) @ rows.T, blurred(0.5)
    np.testing.assert_allclose(got[5:-5, 5:-5], want[5:-5, 5:-5], atol=5e-3)
    assert np.abs(got - want)[0].max() > 0.05
    rows = np.asarray(_kernel(side, np.inf))
    np.testing.assert_allclose(rows @ query.reshape(side, side) @ rows.T, blurred(9999.0), atol=1e-12)
