"""The prior of unCLIP against diffusers', whose published model is Karlo's: its numbers, and its answers for the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux.networks.prior import Prior, prior_karlo

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from flax import traverse_util  # noqa: E402

from diffux.pretrained._table import DENSE, NORM, Leaf, flat, theirs  # noqa: E402

pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("quick")]

PROJECTIONS = (("query", "to_q", DENSE), ("key", "to_k", DENSE), ("value", "to_v", DENSE), ("out", "to_out.0", DENSE))
BLOCK = (("norm_0", "norm1", NORM), ("attention", "attn1", PROJECTIONS), ("norm_1", "norm3", NORM),
         ("dense_0", "ff.net.0.proj", DENSE), ("dense_1", "ff.net.2", DENSE))  # fmt: skip
ROWS = (
    ("noise_0", "time_embedding.linear_1", DENSE), ("noise_1", "time_embedding.linear_2", DENSE), ("x", "proj_in", DENSE),
    ("text_embedding", "embedding_proj", DENSE), ("text", "encoder_hidden_states_proj", DENSE), ("norm_out", "norm_out", NORM),
    ("query", "prd_embedding", Leaf("", (0,))), ("position", "positional_embedding", Leaf("", (0, 1))),
    ("block_{i}", "transformer_blocks.{i}", BLOCK), ("out", "proj_to_clip_embeddings", DENSE),
)  # fmt: skip
"""Our names and theirs."""


def shapes(network, tokens, features):
    like = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)  # noqa: E731
    cond = {"text": like(1, tokens, network.text_width), "text_embedding": like(1, features)}
    return jax.eval_shape(lambda *args: network.init(jax.random.key(0), *args)["params"], like(1, features), like(1), cond)


def test_karlos_has_so_many_parameters():
    """All of the published ones but the mean and the deviation of embeddings, which a normaliser has here."""
    count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes(prior_karlo(), 77, 768)))
    assert count + 2 * 768 == 1_022_030_080


def test_the_answers_are_diffusers():
    torch.manual_seed(0)
    peer = diffusers.PriorTransformer(num_attention_heads=2, attention_head_dim=8, num_layers=2, embedding_dim=6, num_embeddings=5)
    for parameter in peer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    state = {name: value.detach().numpy() for name, value in peer.state_dict().items()}
    network = Prior(width=16, layers=2, heads=2, text_width=6)
    params = {}
    for path, like in flat(shapes(network, 5, 6)).items():
        name, leaf = theirs(ROWS, path)
        params[path] = leaf.taken(state.pop(name), like)
    assert set(state) == {"clip_mean", "clip_std"}
    rng = np.random.default_rng(0)
    x, whole, text = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 6), (3, 6), (3, 5, 6)))
    noise, mask = np.asarray([0.0, 17.0, 900.0], np.float32), np.asarray([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]], bool)
    for told in (None, mask):
        want = peer(torch.tensor(x), torch.tensor(noise), torch.tensor(whole), torch.tensor(text),
                    None if told is None else torch.tensor(told)).predicted_image_embedding.detach().numpy()  # fmt: skip
        cond = {"text": text, "text_embedding": whole} | ({} if told is None else {"text_mask": told})
        found = network.apply({"params": traverse_util.unflatten_dict(params)}, x, noise, cond)
        if told is None:  # theirs sees all positions then, and ours those before alone, as the paper's
            assert abs(found - want).max() > 1e-3
        else:
            np.testing.assert_allclose(found, want, atol=2e-4)
