"""GLIDE's networks: their sizes, how the text is joined to attention, and what stands where a text has ended."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import networks
from diffux.networks.attention import Attention
from diffux.networks.glide import GLIDE
from diffux.networks.initialize import initialize
from diffux.networks.text_transformer import TextTransformer
from tests.networks.test_unet import perturbed

pytestmark = pytest.mark.usefixtures("quick")

RNG = np.random.default_rng(0)
SMALL = {"channels": 8, "multipliers": (1, 1), "blocks": 1, "attention": (2,), "head_channels": 4, "text_width": 6}
PUBLISHED = {
    "glide_64": (385_030_726, {}),
    "glide_up_256": (398_361_286, {"low": (64, 3)}),
    "glide_64_inpainting": (385_037_638, {"source": (64, 3), "kept": (64, 1)}),
    "glide_up_256_inpainting": (398_368_198, {"source": (256, 3), "kept": (256, 1), "low": (64, 3)}),
}


def size(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", ["glide_64", *(pytest.param(name, marks=pytest.mark.full) for name in list(PUBLISHED)[1:])])
def test_the_released_models_have_so_many_parameters(name):
    """Those of the U-Net and of the text transformer together, as in the released files."""
    count, pictures = PUBLISHED[name]
    like = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)  # noqa: E731
    side = 256 if "up" in name else 64
    cond = {"text": like(1, 128, 512)} | {key: like(1, s, s, channels) for key, (s, channels) in pictures.items()}
    network = networks.named(name)()
    params = jax.eval_shape(lambda *args: network.init(jax.random.key(0), *args)["params"], like(1, side, side, 3), like(1), cond)
    tokens = jax.ShapeDtypeStruct((1, 128), jnp.int32)
    text = jax.eval_shape(lambda tokens: TextTransformer().init(jax.random.key(0), tokens)["params"], tokens)
    assert size(params) + size(text) == count


@pytest.fixture(scope="module")
def joined():
    """(a joined attention with weights of no special kind, x, its normalised positions, its weights)."""
    module, x = Attention(2, joined=True), RNG.normal(size=(2, 3, 2, 8)).astype(np.float32)
    params = perturbed(initialize(jax.random.key(0), module, x, np.zeros((2, 5, 4), np.float32)))
    flat = x.reshape(2, 6, 2, 4)  # two groups of four channels
    mean, std = (getattr(flat, name)((1, 3), keepdims=True) for name in ("mean", "std"))
    positions = (((flat - mean) / np.sqrt(std**2 + 1e-6)).reshape(2, 6, 8)) * params["norm"]["scale"] + params["norm"]["bias"]
    return module, x, positions, params


def test_a_text_that_no_query_looks_at_changes_nothing(joined):
    """With logits of -1e4 for all of the text, the block is plain self-attention."""
    module, x, positions, params = joined
    query = positions @ params["query"]["kernel"] + params["query"]["bias"]
    away = -1e5 * jnp.linalg.pinv(query[0].reshape(6, 2, 4).transpose(1, 0, 2)) @ jnp.ones((6, 1))  # (heads, 4, 1)
    silent = params | {"context_key": {"kernel": jnp.zeros((4, 8)), "bias": away.reshape(8)}}
    own = {name: leaf for name, leaf in params.items() if not name.startswith("context")}
    logits = jnp.einsum("tnh,nh->tn", query[0].reshape(6, 2, 4), away.reshape(2, 4)) / 2
    plain = Attention(2).apply({"params": own}, x[:1])
    found = module.apply({"params": silent}, x[:1], RNG.normal(size=(1, 5, 4)).astype(np.float32))
    assert logits.max() < -1e3
    np.testing.assert_allclose(found, plain, atol=1e-5)


def test_a_text_of_the_positions_themselves_is_attention_over_twice_the_keys(joined):
    """Keys that all stand there twice: the weights are halved and added again."""
    module, x, positions, params = joined
    twice = params | {f"context_{name}": params[name] for name in ("key", "value")}
    own = {name: leaf for name, leaf in params.items() if not name.startswith("context")}
    found = module.apply({"params": twice}, x, positions)
    np.testing.assert_allclose(found, Attention(2).apply({"params": own}, x), atol=1e-5)


def test_the_text_stands_before_x_in_the_softmax(joined):
    """The sum written out, with a mask of the text alone."""
    module, x, positions, params = joined
    text, mask = RNG.normal(size=(2, 5, 4)).astype(np.float32), np.asarray([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0]], bool)
    dense = lambda name, h: (h @ params[name]["kernel"] + params[name]["bias"]).reshape(2, -1, 2, 4)  # noqa: E731
    keys, values = (np.concatenate([dense(f"context_{name}", text), dense(name, positions)], 1) for name in ("key", "value"))
    logits = np.einsum("bthc,bshc->bhts", dense("query", positions), keys) / 2
    logits = np.where(np.concatenate([mask, np.ones((2, 6), bool)], 1)[:, None, None], logits, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    seen = np.einsum("bhts,bshc->bthc", weights / weights.sum(-1, keepdims=True), values).reshape(2, 6, 8)
    want = x + (seen @ params["out"]["kernel"] + params["out"]["bias"]).reshape(x.shape)
    np.testing.assert_allclose(module.apply({"params": params}, x, text, mask), want, atol=1e-5)


@pytest.fixture(scope="module")
def transformer():
    module, tokens = TextTransformer(8, 1, 2, vocabulary=10, length=4), jnp.asarray([[3, 5, 0, 0], [3, 5, 7, 7]])
    params = perturbed(initialize(jax.random.key(0), module, tokens))
    return module, tokens, params, jax.jit(lambda params, tokens: module.apply({"params": params}, tokens))


def test_where_a_text_has_ended_there_is_a_vector_of_the_position(transformer):
    _, tokens, params, apply = transformer
    found = apply(params, tokens)
    row = params | {"token": params["token"].at[0].add(9.0)}  # of the padding's own word: never looked at
    np.testing.assert_array_equal(apply(row, tokens), found)
    third = apply(params | {"padding": params["padding"].at[3, 0].add(1.0)}, tokens)
    assert (abs(third[0] - found[0]).max(-1) > 1e-3).all()  # nothing is masked: all positions look there
    np.testing.assert_array_equal(third[1], found[1])
    last = apply(params, tokens.at[1, 3].set(8))  # a word is seen by those before it as well
    assert (abs(last[1] - found[1]).max(-1) > 1e-5).all()


@pytest.mark.full
def test_the_last_position_stands_for_the_whole():
    """With attention to x alone, what a text changes goes by its last position."""
    network, x, noise = GLIDE(**SMALL | {"attention": ()}), np.ones((2, 4, 4, 3), np.float32), np.ones(2, np.float32)
    text = RNG.normal(size=(2, 5, 6)).astype(np.float32)
    apply = jax.jit(lambda params, text: network.apply({"params": params}, x, noise, {"text": text}))
    params = perturbed(initialize(jax.random.key(0), network, x, noise, {"text": text}))
    # the middle looks at all positions: let it look at none of the text's
    params["middle_attention"]["context_value"] = jax.tree.map(jnp.zeros_like, params["middle_attention"]["context_value"])
    params["middle_attention"]["context_key"] = jax.tree.map(jnp.zeros_like, params["middle_attention"]["context_key"])
    found = apply(params, text)
    np.testing.assert_array_equal(apply(params, np.concatenate([9 + text[:, :4], text[:, 4:]], 1)), found)
    assert abs(apply(params, np.concatenate([text[:, :4], 1 + text[:, 4:]], 1)) - found).max() > 1e-3


def test_another_text_is_refused():
    network, x, noise = GLIDE(**SMALL), np.ones((2, 4, 4, 3), np.float32), np.ones(2, np.float32)
    for cond in ({}, {"text": np.ones((2, 5, 7), np.float32)}):
        with pytest.raises(ValueError, match=r'cond\["text"\] is \(2, L, 6\), got'):
            jax.eval_shape(lambda cond=cond: network.init(jax.random.key(0), x, noise, cond))
    with pytest.raises(ValueError, match=r"reads tokens \(B, 4\), got the shape \(1, 5\)"):
        jax.eval_shape(lambda: TextTransformer(8, 1, 2, 10, 4).init(jax.random.key(0), jnp.ones((1, 5), int)))
