"""Stable Diffusion's U-Net: what its attentions are called and look at, what does nothing, and requests that do not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import NoiseLevel, Prediction, networks
from diffux.guidance import attending, perturbed_attention
from diffux.networks.initialize import initialize
from diffux.networks.stable import Stable

pytestmark = pytest.mark.usefixtures("quick")

TINY = {"widths": (8, 16), "blocks": 1, "kinds": ("cross", "plain"), "heads": (2, 4), "depth": (1, 1), "text_width": 6, "groups": 4}
RNG = np.random.default_rng(0)
X, NOISE, TEXT = (jnp.asarray(RNG.normal(size=shape), jnp.float32) for shape in ((2, 4, 4, 3), (2,), (2, 5, 6)))
LEVEL = NoiseLevel(jnp.asarray(0.5), jnp.asarray(0.6), jnp.asarray(0.8))


def away_from_zero(params):
    """Weights that begin at zero would hide what does nothing."""
    return jax.tree.map(lambda x: x + 0.1 * jnp.asarray(RNG.normal(size=x.shape), x.dtype), params)


@pytest.fixture(scope="module")
def network():
    module = Stable(**TINY)
    params = away_from_zero(initialize(jax.random.key(0), module, X, NOISE, {"text": TEXT}))
    return jax.jit(lambda x, cond: module.apply({"params": params}, x, NOISE, cond))


@pytest.mark.full
def test_a_text_is_looked_at_where_its_mask_says(network):
    other, mask = TEXT.at[:, 3:].add(1.0), jnp.arange(5) < 3
    mask = jnp.broadcast_to(mask, (2, 5))
    plain, changed = (network(X, {"text": text}) for text in (TEXT, other))
    assert jnp.abs(plain - changed).max() > 1e-3
    masked = [network(X, {"text": text, "text_mask": mask}) for text in (TEXT, other)]
    np.testing.assert_array_equal(*masked)
    np.testing.assert_allclose(masked[0], network(X, {"text": TEXT[:, :3]}), atol=1e-5)


@pytest.mark.full
def test_another_text_stands_where_there_is_to_be_none(network):
    """By the flag of each sample, or where no text is given at all."""
    other, null = TEXT + 1, jnp.asarray([True, False])
    mixed = network(X, {"text": TEXT, "null_text": other, "null": null})
    np.testing.assert_array_equal(mixed[0], network(X, {"text": other})[0])
    np.testing.assert_array_equal(mixed[1], network(X, {"text": TEXT})[1])
    np.testing.assert_array_equal(network(X, {"null_text": other, "null": null}), network(X, {"text": other}))


@pytest.mark.full
def test_its_attentions_can_be_edited_and_those_to_the_text_are_told_apart():
    module, met = Stable(**TINY), {}
    params = away_from_zero(initialize(jax.random.key(0), module, X, NOISE, {"text": TEXT}))
    denoise = lambda x, level, cond: Prediction(module.apply({"params": params}, x, NOISE, cond))  # noqa: E731

    def edit(name, look, query, key, value, mask=None, bias=None):
        met[name] = key.shape[1]
        return look(query, key, value, mask, bias)

    attending(edit)(denoise)(X, LEVEL, {"text": TEXT})
    assert met["middle_transformer/block_0/attention"] == 4 and met["down_0_0_transformer/block_0/attention"] == 16
    assert {count for name, count in met.items() if name.endswith("_text")} == {5} and len(met) == 8
    own = denoise(X, LEVEL, {"text": TEXT}).x0
    guided = [perturbed_attention(scale)(denoise)(X, LEVEL, {"text": TEXT}).x0 for scale in (0.0, 3.0)]
    np.testing.assert_allclose(guided[0], own, atol=1e-6)
    assert jnp.abs(guided[1] - own).max() > 1e-4


def test_published_networks_have_names():
    assert {"stable", "stable_1", "stable_1_inpainting", "stable_2", "stable_x4"} <= set(networks.names())
    assert not {"imageencoder", "imagedecoder", "imagetower"} & set(networks.names())


WRONG = {
    "heads": ({"heads": (2,)}, "heads are one for each of the 2 levels of widths"),
    "kinds": ({"kinds": ("text", "plain")}, "what follows a block is plain, self or cross, got 'text'"),
    "a text for nothing": ({"kinds": ("self", "plain"), "middle": "self"}, "need its text_width, and no others have one; got 6"),
    "no width": ({"text_width": None}, "need its text_width"),
}


@pytest.mark.parametrize(("options", "said"), WRONG.values(), ids=WRONG)
def test_fields_that_do_not_fit_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        Stable(**TINY | options)


CONDITIONS = {
    "no text": ({}, {}, r'cond\["text"\] is \(2, L, 6\), got none'),
    "another width": ({}, {"text": jnp.ones((2, 5, 4))}, r"got \(2, 5, 4\)"),
    "no other text": ({}, {"text": TEXT, "null": jnp.ones(2, bool)}, r'of the shape of cond\["text"\], .* got none'),
    "no label": ({"classes": 3}, {"text": TEXT}, r'cond\["label"\] is \(2,\), one of 3 classes each, got none'),
    "no picture": ({"beside": ("mask",)}, {"text": TEXT}, "mask stands beside x"),
}


@pytest.mark.parametrize(("options", "cond", "said"), CONDITIONS.values(), ids=CONDITIONS)
def test_conditions_that_do_not_fit_are_refused(options, cond, said):
    module = Stable(**TINY | options)
    with pytest.raises(ValueError, match=said):
        jax.eval_shape(lambda: module.init(jax.random.key(0), X, NOISE, cond))


@pytest.mark.full
def test_a_label_out_of_range_gives_nan():
    module = Stable(**TINY | {"classes": 3})
    cond = {"text": TEXT, "label": jnp.asarray([2, 3])}
    params = initialize(jax.random.key(0), module, X, NOISE, cond)
    out = jax.jit(module.apply)({"params": params}, X, NOISE, cond)
    assert np.isfinite(out[0]).all() and np.isnan(out[1]).all()
