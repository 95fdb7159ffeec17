"""What a network is told of an image that was augmented: nothing is the same as zeros, and no null replaces it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux.networks import named
from diffux.networks.embeddings import ConditionEmbedding

pytestmark = pytest.mark.usefixtures("quick")

TINY = {"channels": 8, "multipliers": (1,), "blocks": 1, "attention": (), "classes": 3}
LABELS = jnp.asarray(np.random.default_rng(0).normal(size=(2, 9)), jnp.float32)


def test_augmentation_labels_are_added_to_the_embedding():
    module = ConditionEmbedding(5, classes=3, augment=9)
    cond = {"label": jnp.arange(2)}
    params = module.init(jax.random.key(0), cond, 2)["params"]
    of = lambda **more: np.asarray(module.apply({"params": params}, cond | more, 2).embedding)  # noqa: E731
    np.testing.assert_array_equal(of(), of(augment=jnp.zeros((2, 9))))
    kernel = np.asarray(params["augmentation"]["kernel"])
    assert set(params["augmentation"]) == {"kernel"} and np.abs(kernel).min() > 0
    np.testing.assert_allclose(of(augment=LABELS) - of(), LABELS @ kernel, atol=1e-6)
    null = {"null": jnp.ones(2, bool)}  # the label is dropped, and what was done to the image is not
    np.testing.assert_allclose(of(augment=LABELS, **null) - of(**null), LABELS @ kernel, atol=1e-6)
    assert np.abs(of(**null) - of()).max() > 1e-3
    alone = ConditionEmbedding(5, augment=9)
    found = alone.apply({"params": {"augmentation": params["augmentation"]}}, {"augment": LABELS}, 2).embedding
    np.testing.assert_allclose(found, LABELS @ kernel, atol=1e-6)
    with pytest.raises(ValueError, match=r'cond\["augment"\] has shape \(2, 8\), wanted \(2, 9\)'):
        of(augment=LABELS[:, 1:])


@pytest.mark.full
@pytest.mark.parametrize("name", ["unet", "ncsnpp", "adm"])
def test_networks_read_them_when_they_are_told_to(name):
    """One kernel more, and no parameter another; guidance has no null of them."""
    more = {"head_channels": 8} if name == "adm" else {}
    x = jnp.zeros((2, 4, 4, 1))

    def paths(network):
        shapes = jax.eval_shape(network.init, jax.random.key(0), x, jnp.zeros(2), {"label": jnp.arange(2)})["params"]
        leaves, _ = jax.tree_util.tree_flatten_with_path(shapes)
        return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves}

    plain, told = named(name)(**TINY, **more), named(name)(**TINY, **more, augment=9)
    assert paths(told) == paths(plain) | {"condition/augmentation/kernel": (9, 32)}
    assert (plain.reads, told.reads) == ({"label": 3}, {"label": 3, "augment": 9})
    assert plain.nulls == told.nulls == ("label",)
    cond = {"label": jnp.arange(2)}
    params = jax.tree.map(lambda leaf: leaf + 0.3, told.init(jax.random.key(0), x, jnp.zeros(2), cond)["params"])
    apply = jax.jit(lambda cond: told.apply({"params": params}, x + 1, jnp.ones(2), cond))
    assert np.abs(apply(cond | {"augment": LABELS}) - apply(cond | {"augment": 0 * LABELS})).max() > 1e-4
