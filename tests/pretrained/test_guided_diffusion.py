"""ADM's and improved DDPM's files without torch: there and back, and published networks told by their shapes.

tests/peers/test_adm_networks.py has the comparison with the authors' code.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import networks
from diffux.config import parts
from diffux.networks.adm import ADM, ADMClassifier
from diffux.pretrained import _table, guided_diffusion
from diffux.pretrained._stored import Stored
from diffux.types import Net
from tests.pretrained.test_stored import net

pytestmark = pytest.mark.usefixtures("quick")

COMMON = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (4,), "head_channels": 4}
NETWORKS = {
    "adm": ADM(**COMMON, classes=3, variance=True),
    "by heads": ADM(**COMMON | {"heads": 2, "head_channels": None}),
    "iddpm": ADM(**COMMON, resample_blocks=False, adaptive=False),
    "classifier": ADMClassifier(**COMMON, classes=5),
}


class Held:
    """Tensors, or their shapes alone, as a file has them."""

    def __init__(self, tensors):
        self.get = tensors.__getitem__
        self.shape = lambda name: tuple(tensors[name].shape)

    @classmethod
    def stored(cls, tensors):
        return Stored(pathlib.Path("model.pt"), dict.fromkeys(tensors, cls(tensors)))


@pytest.mark.full(but=("adm",))
@pytest.mark.parametrize("name", NETWORKS)
def test_there_and_back(name, monkeypatch):
    """Scale and shift are one tensor there, and so are query, key and value; the null label, which they have not, is zero."""
    network, x = NETWORKS[name], jnp.ones((1, 8, 8, 3))
    part = net(network, x, jnp.ones(1), {"label": jnp.zeros(1, jnp.int32)})
    tensors = dict(guided_diffusion.written(part))
    monkeypatch.setattr(guided_diffusion._stored, "stored", lambda path: Held.stored(tensors))
    found, report = guided_diffusion.read(pathlib.Path("model.pt"), network, 8)
    assert sorted(tensors) == list(report.loaded) and not report.ignored
    if name == "adm":
        label = part.weights["condition"]["label"]
        assert tensors["label_emb.weight"].shape == (3, 32) and tensors["input_blocks.1.0.emb_layers.1.weight"].shape == (16, 32)
        np.testing.assert_array_equal(found.weights["condition"]["label"], np.concatenate([label[:3], np.zeros((1, 32))]))
        part.weights["condition"]["label"] = found.weights["condition"]["label"]
    jax.tree.map(np.testing.assert_array_equal, found.weights, part.weights)
    assert tensors["middle_block.1.qkv.weight"].shape == (48, 16)


def described(name):
    """{their name: zeros without memory} of a published network."""
    network = networks.named(name)()
    wanted = guided_diffusion.shapes(network, guided_diffusion.PUBLISHED[name])
    table, count = guided_diffusion.table(network), guided_diffusion.counted(network, wanted)
    named = ((*_table.theirs(table, path, count), like) for path, like in _table.flat(wanted).items())
    return {theirs: np.broadcast_to(np.float32(0), leaf.whole(like.shape)) for theirs, leaf, like in named}


@pytest.mark.slow
def test_published_networks_are_told_apart_by_their_shapes():
    """No two have the same, so that a file is of one."""
    files = {name: described(name) for name in guided_diffusion.PUBLISHED}
    shapes = {name: tuple(sorted((theirs, like.shape) for theirs, like in file.items())) for name, file in files.items()}
    assert len(set(shapes.values())) == len(shapes)


@pytest.mark.full
def test_a_file_is_the_network_of_its_shapes():
    file = Held.stored(described("adm_classifier_64"))
    assert guided_diffusion._fits("adm_classifier_64", file) and not guided_diffusion._fits("iddpm_32", file)


RUNS = {
    "adm_64": {"name": "adm", "network": "adm_64", "betas": "cosine", "steps": 1000, "classes": 1000},
    "adm_u_256": {"name": "adm", "network": "adm_u_256", "betas": "linear", "steps": 1000, "classes": 1000, "enlarges": 4},
    "adm_classifier_64": {"name": "noisy_classifier", "network": "adm_classifier_64", "schedule": "cosine", "steps": 1000,
                          "classes": 1000},
    "iddpm_32": {"name": "iddpm", "network": "iddpm_32", "betas": "cosine", "steps": 4000, "classes": None},
}  # fmt: skip


@pytest.mark.full
@pytest.mark.parametrize("name", RUNS)
def test_a_published_file_is_a_whole_model(name, monkeypatch):
    """Of the authors' chain for its side; its weights here are zeros that take no room."""
    file, module = Held.stored(described(name)), networks.named(name)()
    monkeypatch.setattr(guided_diffusion._stored, "stored", lambda path: file)
    monkeypatch.setattr(guided_diffusion, "named", lambda path: name)
    monkeypatch.setattr(guided_diffusion, "read", lambda path, network, side: (Net(network, {}), None))
    found = guided_diffusion.described(pathlib.Path("model.pt"))
    assert found.config["system"] == RUNS[name]
    assert found.fields["image"].shape == (guided_diffusion.PUBLISHED[name],) * 2 + (3,)
    assert ("label" in found.fields) == (module.classes is not None)
    system = parts.system(found.config["system"])  # it can be built
    assert getattr(system, "classes", 1000) == 1000
