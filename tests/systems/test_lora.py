"""LoRA: the same by two factors as in one kernel, nothing at scale 0 or at first, only factors trained; files by any dialect."""

import dataclasses

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from diffux import cli, keys, pretrained, systems, training
from diffux.adapted import Adapted
from diffux.errors import UserError
from diffux.networks.initialize import initialize
from diffux.networks.low_rank import TARGETS, LowRank, kernels, merged
from diffux.networks.stable import Stable
from diffux.pretrained import peft
from diffux.runs import export
from diffux.systems.trainable import Variables
from diffux.types import Net

pytestmark = pytest.mark.usefixtures("quick")

NETWORK = Stable(widths=(8, 16), blocks=1, kinds=("cross", "plain"), heads=(1, 2), depth=(1, 1), text_width=8, groups=4)
RNG = np.random.default_rng(0)
X, TOLD = RNG.normal(size=(2, 4, 4, 3)).astype(np.float32), np.asarray([3.0, 7.0], np.float32)
COND = {"text": RNG.normal(size=(2, 5, 8)).astype(np.float32)}


def moved(params, seed=1, size=0.1):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: np.float32(leaf + size * rng.normal(size=leaf.shape)), params)


@pytest.fixture(scope="module")
def net():
    return Net(NETWORK, moved(initialize(jax.random.key(0), NETWORK, X, TOLD, COND)))


def updated(net, targets, rank=3, scale=0.7):
    low = LowRank(rank, targets)
    return Adapted(net, Net(low, moved(initialize(jax.random.key(1), low, net.weights), 2)), scale)


# the last has the layers that double and halve the sides, strided and padded
@pytest.mark.full
@pytest.mark.parametrize("targets", [TARGETS, "."])
def test_two_factors_are_one_kernel(targets, net):
    adapted = updated(net, targets)
    call = jax.jit(lambda net: net(X, TOLD, COND))
    found, plain = call(adapted), call(net)
    assert np.abs(found - plain).max() > 1e-2
    np.testing.assert_allclose(found, call(adapted.merged), atol=1e-5)
    np.testing.assert_array_equal(call(adapted.replace(scale=0.0)), plain)
    back = merged(adapted.merged.weights, adapted.low(net.weights), -0.7)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), back, net.weights)
    others = set(kernels(net.weights, ".")) - set(kernels(net.weights, targets))
    for path in others:
        part = path.split("/")
        a, b = adapted.merged.weights, net.weights
        for key in (*part, "kernel"):
            a, b = a[key], b[key]
        assert a is b


def test_the_product_in_numpy(net):
    """W + scale A B, of a dense layer by itself."""
    adapted = updated(net, r"block_0/attention/query$")
    ((path, pair),) = [(path, pair) for path, pair in adapted.low(net.weights).items() if path.startswith("down_0_0")]
    kernel = net.weights
    for key in (*path.split("/"), "kernel"):
        kernel = kernel[key]
    found = adapted.merged.weights
    for key in (*path.split("/"), "kernel"):
        found = found[key]
    np.testing.assert_allclose(found, kernel + 0.7 * np.asarray(pair.a) @ np.asarray(pair.b), atol=1e-6)
    assert np.linalg.matrix_rank(found - kernel, tol=1e-5) == 3


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A run on a network that does something, as a pipeline of others."""
    folder = tmp_path_factory.mktemp("base")
    network = {"widths": [8, 16], "blocks": 1, "kinds": ["self", "plain"], "middle": "self", "heads": [1, 2], "depth": [1, 1],
               "text_width": None, "groups": 4}  # fmt: skip
    config = {"system": {"name": "ldm", "network": "stable", "steps": 20, "draws": 4, "solver": "ddim"} | network,
              "data": {"name": "digits", "batch_size": 8},
              "training": {"steps": 1, "sample_every": 0, "checkpoint_every": 1}}  # fmt: skip
    training.train(config, folder / "run")
    run = training.load(folder / "run")
    variables = run.variables._replace(params={"network": moved(run.variables.params["network"])}, ema=None)
    return export.write_folder(dataclasses.replace(run, variables=variables), folder / "pipeline")


@pytest.fixture(scope="module")
def adapted(base):
    config = {"system": {"name": "lora", "rank": 2}, "nets": {"base": str(base)}, "data": {"name": "digits", "batch_size": 8},
              "optimizer": {"learning_rate": 0.02}, "ema": {"decay": 0.0},
              "training": {"steps": 3, "sample_every": 0, "checkpoint_every": 3}}  # fmt: skip
    training.train(config, base.parent / "lora")
    return base.parent / "lora"


def drawn(tmp_path, name, *words):
    out = tmp_path / f"{name}.npz"
    assert cli.main(["sample", *map(str, words), "--n", "2", "--steps", "3", "--out", str(out)]) == 0
    return np.load(out)["images"]


@pytest.mark.slow
def test_a_run_of_updates_is_its_base_with_their_file(base, adapted, tmp_path):
    """Drawn as a run, from the file that peft reads beside the base, and as a pipeline with the updates in its weights."""
    run = training.load(adapted)
    assert sorted(run.variables.params) == ["network"]
    assert {name.rsplit(".", 1)[1] for name in run.variables.params["network"]} == {"query", "key", "value", "out"}
    found, plain = drawn(tmp_path, "run", "--workdir", adapted), drawn(tmp_path, "base", "--pretrained", base)
    assert np.abs(found - plain).max() > 1e-3
    assert cli.main(["export", "--workdir", str(adapted), "--layout", "peft", "--out", str(tmp_path / "peft")]) == 0
    assert cli.main(["export", "--workdir", str(adapted), "--layout", "diffusers", "--out", str(tmp_path / "whole")]) == 0
    lora = ("--lora", tmp_path / "peft" / peft.FILE)
    np.testing.assert_allclose(drawn(tmp_path, "lora", "--pretrained", base, *lora), found, atol=1e-5)
    np.testing.assert_allclose(drawn(tmp_path, "whole", "--pretrained", tmp_path / "whole"), found, atol=1e-5)
    np.testing.assert_array_equal(drawn(tmp_path, "none", "--pretrained", base, *lora, "--lora-scale", "0"), plain)
    assert np.abs(drawn(tmp_path, "half", "--pretrained", base, *lora, "--lora-scale", "0.5") - found).max() > 1e-4


@pytest.mark.full
def test_the_base_is_pinned(base, adapted, tmp_path):
    file = base / "unet" / "diffusion_pytorch_model.safetensors"
    before = file.read_bytes()
    try:
        tensors = load_file(file)
        save_file(tensors | {"conv_in.bias": tensors["conv_in.bias"] + 1}, file, {"format": "pt"})
        with pytest.raises(UserError, match=r"the net base at .* has changed since this run began with it"):
            training.load(adapted)
    finally:
        file.write_bytes(before)


@pytest.mark.full
def test_at_first_there_is_no_update(net):
    system = systems.build("ldm", network="unet", channels=8, multipliers=(1,), blocks=1, attention=(4,), steps=10)
    images = {"image": RNG.integers(0, 256, (2, 4, 4, 1)).astype(np.uint8)}
    params = moved(systems.init(jax.random.key(0), system, images).params)
    frozen = systems.resolved(system, Variables(params))
    lora = systems.build("lora", base=frozen, rank=2)
    variables = systems.init(jax.random.key(1), lora, images)
    loss = lambda system, params: systems.loss(jax.random.key(2), system, Variables(params), images, ())[0]  # noqa: E731
    np.testing.assert_allclose(loss(lora, variables.params), loss(system, params), rtol=1e-6)
    gradient = jax.grad(lambda params: loss(lora, params))(variables.params)["network"]
    assert all(np.abs(pair["a"]).max() == 0 < np.abs(pair["b"]).max() for pair in gradient.values())
    asked = (keys.sample_keys(0, 0, 2),)
    shape = (2, 4, 4, 1)
    np.testing.assert_allclose(systems.generate(*asked, lora, variables, shape, steps=2).x,
                               systems.generate(*asked, system, Variables(params), shape, steps=2).x, atol=1e-6)  # fmt: skip


WRONG = {
    "base": ({"base": 3}, "low-rank updates are of a run of a diffusion system, got a int"),
    "rank": ({"rank": 0}, "the rank of an update is at least 1, got 0"),
    "low": ({"low": 3}, "low is a file of low-rank updates, got a int"),
}


@pytest.mark.parametrize(("options", "said"), WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_refused(options, said, net):
    system = systems.build("ldm", network="unet", channels=8, multipliers=(1,), blocks=1, attention=(), steps=10)
    frozen = systems.resolved(system, Variables({"network": {}}))
    with pytest.raises(ValueError, match=said):
        systems.build("lora", **{"base": frozen} | options)
    with pytest.raises(ValueError, match="no layer of the network is called as the targets 'nothing' of the low-rank updates"):
        kernels(net.weights, "nothing")


def written(net, tmp_path, **changed):
    adapted = updated(net, TARGETS)
    file = tmp_path / peft.FILE
    save_file(dict(peft.written(adapted.low, net)) | changed, file)
    return file, adapted.replace(scale=1.0)


def kohya(name):
    layer, half, _ = name.rsplit(".", 2)
    return f"lora_unet_{layer.replace('.', '_')}.{ {'lora_A': 'lora_down', 'lora_B': 'lora_up'}[half]}.weight"


def older(name):
    layer, half, _ = name.rsplit(".", 2)
    block, last = layer.removesuffix(".0").rsplit(".", 1)
    return f"unet.{block}.processor.{last}_lora.{ {'lora_A': 'down', 'lora_B': 'up'}[half]}.weight"


DIALECTS = {"peft": lambda name: f"base_model.model.{name}", "kohya": kohya, "older": older}


@pytest.mark.parametrize("name", DIALECTS)
def test_dialects(name, net, tmp_path):
    """The same updates by other names; alpha, where it is told, over the rank."""
    file, adapted = written(net, tmp_path)
    tensors = {DIALECTS[name](key.removeprefix("unet.")): value for key, value in load_file(file).items()}
    save_file(tensors, file)
    assert peft.matches(file) and pretrained.family(file).name == "peft"
    found = Adapted(net, peft.load(file).of(net))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found.merged.weights, adapted.merged.weights)
    stems = {key.rsplit(".", 2)[0] for key in tensors if ".lora_" in key}
    if stems:
        save_file(tensors | {f"{stem}.alpha": np.asarray(6.0, np.float32) for stem in stems}, file)
        twice = Adapted(net, peft.load(file).of(net))
        again = merged(net.weights, adapted.low(net.weights), 2.0)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), twice.merged.weights, again)


def test_ranks_may_differ(net, tmp_path):
    """Each layer's update is of its own two factors."""
    file, _ = written(net, tmp_path)
    tensors, rng = load_file(file), np.random.default_rng(3)
    key = f"{_Q}.lora_A.weight"
    small = {key: rng.normal(size=(1, 8)).astype(np.float32), key.replace("_A", "_B"): rng.normal(size=(8, 1)).astype(np.float32)}
    save_file(tensors | small, file)
    found = Adapted(net, peft.load(file).of(net)).merged.weights
    layer = ("down_0_0_transformer", "block_0", "attention", "query", "kernel")
    for part in layer:
        found = found[part]
    before = net.weights
    for part in layer:
        before = before[part]
    np.testing.assert_allclose(found, before + (small[key.replace("_A", "_B")] @ small[key]).T, atol=1e-5)


_Q = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
BROKEN = {
    "one half": ({f"{_Q}x.lora_A.weight": np.ones((3, 8), np.float32)}, "without"),
    "ranks": ({f"{_Q}.lora_A.weight": np.ones((2, 8), np.float32)}, "which are of no one rank"),
    "shape": ({f"{_Q}.lora_A.weight": np.ones((3, 7), np.float32)}, "is of a kernel of shape .7, 8., and the network's is .8, 8."),
    "finite": ({f"{_Q}.lora_A.weight": np.full((3, 8), np.nan, np.float32)}, "is not finite"),
    "strange": ({"unet.other.lora_A.weight": np.ones((3, 8), np.float32), "unet.other.lora_B.weight": np.ones((8, 3), np.float32)},
                "the updates are of other, which the network has not"),
}  # fmt: skip


@pytest.mark.parametrize(("changed", "said"), BROKEN.values(), ids=BROKEN)
def test_files_that_are_not_of_the_network_are_refused(changed, said, net, tmp_path):
    file, _ = written(net, tmp_path, **changed)
    with pytest.raises(UserError, match=said):
        peft.load(file).of(net)
    save_file({"a": np.ones(1, np.float32)}, file)
    assert not peft.matches(file)
    with pytest.raises(UserError, match="holds no low-rank updates of a network"):
        peft.load(file)
