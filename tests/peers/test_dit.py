"""DiT of diffusers, at random and small: read, run, differentiated, and given back as it was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux.errors import UserError
from diffux.networks.dit import DiT
from diffux.pretrained import _table, diffusers_dit
from diffux.types import Net

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from tests.peers.test_pretrained import chw, hwc, made, same_files, wide  # noqa: E402 - needs both

pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("x64", "quick")]

SMALL = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "sample_size": 8, "num_embeds_ada_norm": 5}
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("out", [4, 8])
def test_dit(out, tmp_path):
    """The same output to what their sinusoid, float32, allows, the same gradients, and the same file back, which they load."""
    peer = made("DiTTransformer2DModel", **SMALL, out_channels=out)
    peer.save_pretrained(tmp_path)
    net, report = diffusers_dit.read(tmp_path)
    assert not report.ignored and len(report.loaded) == len(peer.state_dict())
    config, tensors = diffusers_dit.written(net, 4)
    back = dict(tensors)
    same_files(back, peer)
    again = diffusers.DiTTransformer2DModel.from_config(config | {"sample_size": 8})
    again.load_state_dict({key: torch.tensor(value) for key, value in back.items()})

    x, t, label = RNG.normal(size=(2, 8, 8, 4)), np.asarray([3.0, 20.0]), np.asarray([1, 5])  # the last is their null
    theirs = {"timestep": torch.tensor(t), "class_labels": torch.tensor(label)}
    want = peer.double()(chw(x), **theirs).sample
    with torch.no_grad():
        np.testing.assert_array_equal(again.double().eval()(chw(x), **theirs).sample, want)
    ours, cond = wide(net), {"label": jnp.asarray([1, 0]), "null": jnp.asarray([False, True])}

    def whole(weights):
        found = ours.module.apply({"params": weights}, x, t, cond)
        return jnp.concatenate(found, -1) if isinstance(found, tuple) else found

    assert (ours.module.variance, ours.module.classes) == (out == 8, 5)
    np.testing.assert_allclose(whole(ours.weights), hwc(want), atol=2e-6 * want.abs().max().item())
    gradients = jax.jit(jax.grad(lambda weights: jnp.sum(whole(weights) ** 2)))(ours.weights)
    gradients = dict(_table.given_back(diffusers_dit.ROWS, gradients))
    (want**2).sum().backward()
    sizes = {key: parameter.grad.abs().max().item() for key, parameter in peer.named_parameters()}
    for key, parameter in peer.named_parameters():
        np.testing.assert_allclose(gradients[key], parameter.grad.numpy(), atol=1e-5 * sizes[key] + 1e-12 * max(sizes.values()),
                                   err_msg=key)  # fmt: skip


def test_published_counts():
    """DiT-XL/2 with an embedding in each block, by shapes."""
    with torch.device("meta"):
        peer = diffusers.DiTTransformer2DModel(out_channels=8)
    shapes = diffusers_dit.shapes(diffusers_dit.built(dict(peer.config)), 4)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == sum(one.numel() for one in peer.parameters()) == 749_826_464


def test_one_embedding_is_written_for_every_block(tmp_path):
    module = DiT(width=16, layers=2, heads=2, classes=3, embedding="cos_first", epsilon=1e-5)
    rng = np.random.default_rng(1)
    weights = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), diffusers_dit.shapes(module, 4))
    config, tensors = diffusers_dit.written(Net(module, weights), 4)
    peer = diffusers.DiTTransformer2DModel.from_config(config | {"sample_size": 8})
    peer.load_state_dict({key: torch.tensor(value) for key, value in tensors})
    x, t, label = RNG.normal(size=(2, 8, 8, 4)), np.asarray([3.0, 20.0]), np.asarray([1, 2])
    with torch.no_grad():
        want = hwc(peer.double()(chw(x), timestep=torch.tensor(t), class_labels=torch.tensor(label)).sample)
    found = wide(Net(module, weights))(x, t, {"label": jnp.asarray(label)})
    np.testing.assert_allclose(found, want, atol=2e-6 * np.abs(want).max())


def test_what_is_not_built_is_named():
    for change, said in (({"norm_elementwise_affine": True}, "norm_elementwise_affine=True is not built here"),
                         ({"out_channels": 7}, "gives 7 channels of 4, and as many or twice as many are built here")):  # fmt: skip
        with pytest.raises(UserError, match=said):
            diffusers_dit.built({"_class_name": "DiTTransformer2DModel"} | change)
    with pytest.raises(UserError, match="this one is of no classes with openai"):
        diffusers_dit.written(Net(DiT(width=16, layers=1, heads=2), {}), 4)
    with pytest.raises(UserError, match="a DiT of diffusers is of squares, and this model is of 4x6"):
        diffusers_dit.size([4, 6])
