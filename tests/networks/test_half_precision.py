"""Computation in bfloat16 with float32 parameters: what stays float32, and the type of the parameters' gradients."""

import collections
import math
import os
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from diffux.networks.attention import attend
from diffux.networks.classifier import Classifier
from diffux.networks.convolution import plain_convolution, weight_gradients
from diffux.networks.dequantizer import Dequantizer
from diffux.networks.instance_norm import InstanceNormPlus
from diffux.networks.layers import Conv, Dense, Downsample, GroupNorm, TransposedConv, Upsample
from diffux.networks.mlp import MLP
from diffux.networks.multiscale import MultiScale
from diffux.networks.ncsnpp import FIRConv, ncsnpp
from diffux.networks.noisy_classifier import NoisyClassifier
from diffux.networks.platform import compiling_for
from diffux.networks.refinenet import MeanPoolConv, RefineNet
from diffux.networks.rrdb import RRDB
from diffux.networks.unet import UNet

RNG = np.random.default_rng(0)
X, NOISE = RNG.normal(size=(2, 8, 8, 2)).astype(np.float32), np.array([1.0, 7.0], np.float32)
LABEL = {"label": np.array([0, 2])}
TEXT = {"text": np.ones((2, 3, 4), np.float32)}
HALF = {"dtype": "bfloat16"}  # by name, as configs have it
NETWORKS = {  # with its arguments, and the scope of the layer that makes its output
    "unet": (UNet(8, (1, 2), 1, (4,), classes=3, text_width=4, **HALF), (X, NOISE, LABEL | TEXT), "conv_out"),
    "ncsnpp": (ncsnpp(8, (1, 1), 1, (4,), classes=3, **HALF), (X, NOISE, LABEL), "out_conv"),
    "ncsnpp, skips": (ncsnpp(8, (1,), 1, (), pyramid_in="skip", pyramid_out="skip", **HALF), (X, NOISE), "_out_conv"),
    "refinenet": (RefineNet(4, (1, 2, 2), (2,), levels=10, classes=3, **HALF), (X, NOISE, LABEL), "conv_out"),
    "rrdb": (RRDB(4, 2, 2, **HALF), (X,), "conv_out"),
    "mlp": (MLP(10, (16,), **HALF), (X, NOISE), "readout"),
    "mlp, shared": (MLP(10, (16,), readout="shared", **HALF), (X, NOISE), "readout"),
    "multiscale": (MultiScale(10, convolutions=(4,), dense=(8,), upper=(4,), **HALF), (X, NOISE), "readout"),
    "noisy classifier": (NoisyClassifier(3, depth=10, width=1, base=8, **HALF), (X, NOISE), "logits"),
    "classifier": (Classifier(3, (4, 8), 8, **HALF), (X,), "Dense_1"),
    "dequantizer": (Dequantizer(4, 1, 2, **HALF), (X, X), "/conv_1"),
}
LAYERS = {
    "conv": Conv(6), "strided": Downsample(6), "1x1": Conv(6, 1), "dense": Dense(6), "upsampling": Upsample(6),
    "fir, up": FIRConv(6, up=True), "fir, down": FIRConv(6, up=False), "mean pool": MeanPoolConv(6),
    "transposed": TransposedConv(6),
}  # fmt: skip


def equations(jaxpr):
    """(primitive, scope, types of the operands, type of the first result) of everything, in inner functions too."""
    for equation in jaxpr.eqns:
        types = [str(getattr(variable.aval, "dtype", None)) for variable in (*equation.invars, *equation.outvars[:1])]
        yield equation.primitive.name, str(equation.source_info.name_stack), types[:-1], types[-1]
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner)


@pytest.mark.full(but=("ncsnpp, skips",), one_in=3)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_stream_is_half_and_statistics_softmax_and_last_layer_are_float32(name):
    network, arguments, last = NETWORKS[name]
    params = jax.eval_shape(network.init, jax.random.key(0), *arguments)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}

    def run(params):
        return network.apply(params, *arguments)

    with plain_convolution():  # whose equations carry their layer's name
        made = list(equations(jax.make_jaxpr(run)(params).jaxpr))
    found = collections.Counter()
    for primitive, scope, operands, result in made:
        if primitive in ("rsqrt", "exp"):  # of norms and softmaxes: elu has expm1, and swish the logistic function
            assert result == "float32", (primitive, scope)
        if primitive not in ("conv_general_dilated", "dot_general"):
            continue
        narrow = set(operands) == {"bfloat16"}
        is_last, logits = last in scope or "bhwoj" in scope, "BTNH,BSNH" in scope
        found[is_last] += 1
        assert narrow != is_last and result == ("float32" if is_last or logits else "bfloat16"), (scope, operands, result)
    assert found[True] and found[False]
    assert jax.tree.leaves(jax.eval_shape(run, params))[0].dtype == jnp.float32


def test_statistics_of_a_large_mean():
    x = jnp.asarray(RNG.normal(size=(2, 64, 64, 8)) + 30, jnp.bfloat16)
    wide = np.asarray(x, np.float64)
    grouped = wide.reshape(2, -1, 2, 4)
    by_group = (grouped - grouped.mean((1, 3), keepdims=True)) / grouped.std((1, 3), keepdims=True)
    by_channel = (wide - wide.mean((1, 2), keepdims=True)) / wide.std((1, 2), keepdims=True)
    one, zero = jnp.ones(8), jnp.zeros(8)
    for norm, params, want in (
        (GroupNorm(groups=2, **HALF), {"scale": one, "bias": zero}, by_group.reshape(x.shape)),
        (InstanceNormPlus(**HALF), {"gamma": one, "alpha": zero, "beta": zero}, by_channel),
    ):
        got = norm.apply({"params": params}, x)
        assert got.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.asarray(got, np.float64), want, atol=0.02)


def test_softmax_of_large_logits():
    query, key, value = (jnp.asarray(RNG.normal(size=(1, 16, 1, 16)) + shift, jnp.bfloat16) for shift in (4, 4, 0))
    q, k, v = (np.asarray(array, np.float64)[0, :, 0] for array in (query, key, value))
    logits = q @ k.T / 4  # about 64, where neighbours in bfloat16 are 0.5 apart
    weight = np.exp(logits - logits.max(-1, keepdims=True))
    weight /= weight.sum(-1, keepdims=True)
    np.testing.assert_allclose(np.asarray(attend(query, key, value), np.float64)[0, :, 0], weight @ v, atol=0.02)


@pytest.mark.full(but=("1x1-cpu",), one_in=3)
@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_a_layers_parameters_are_as_wide_as_wanted(name, platform):
    """Against float64 at the same rounded arrays: in float32 all are accurate, in bfloat16 those of kernels are not."""
    layer = LAYERS[name].clone(**HALF)
    x = RNG.integers(-1, 2, (3, 4, 6, 5)).astype(np.float32)
    shapes = jax.eval_shape(layer.init, jax.random.key(0), x)["params"]
    # Numbers of few bits are exact after taps were added or averaged, and x was filtered.
    params = jax.tree.map(lambda p: RNG.integers(-4, 5, p.shape).astype(p.dtype) / 8, shapes)
    dy = RNG.normal(size=jax.eval_shape(layer.apply, {"params": params}, x).shape)

    def gradient(layer, params, x, dy):
        return jax.grad(lambda params, x: jnp.sum(layer.apply({"params": params}, x).astype(dy.dtype) * dy), (0, 1))(params, x)

    x, dy = (np.asarray(array.astype(jnp.bfloat16)) for array in (x, dy))
    with jax.enable_x64(True), plain_convolution():
        exact = gradient(layer.clone(dtype="float64"), params, x.astype(float), dy.astype(float))
    errors = {}
    for wanted in ("float32", "bfloat16"):
        with weight_gradients(wanted), compiling_for(platform):
            found = gradient(layer, params, x, dy)
        assert {leaf.dtype for leaf in jax.tree.leaves(found[0])} == {jnp.dtype("float32")} and found[1].dtype == x.dtype
        relative = jax.tree.map(lambda a, b: float(np.abs(np.asarray(a, np.float64) - b).max() / np.abs(b).max()), found, exact)
        errors[wanted] = relative[0].get("conv", relative[0])
        assert relative[1] < 0.02
    assert max(errors["float32"].values()) < 1e-5, errors
    assert errors["bfloat16"]["kernel"] > 1e-4, errors


def test_forward_mode_is_refused_only_where_gradients_are_widened():
    layer = Dense(3, **HALF)
    params, x = {"params": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}}, jnp.ones((1, 2), jnp.bfloat16)

    def slope(layer=layer):
        return jax.jvp(lambda x: layer.apply(params, x), (x,), (x,))[1]

    np.testing.assert_array_equal(slope(), 2)
    with weight_gradients("float32"):
        np.testing.assert_array_equal(slope(Dense(3)), 2)
        with pytest.raises(TypeError, match="forward-mode"):
            slope()
        with plain_convolution():
            np.testing.assert_array_equal(slope(), 2)


class Layers(nn.Module):
    """A layer of every kind whose gradient is contracted over the batch."""

    @nn.compact
    def __call__(self, x):
        x = Conv(128, **HALF)(x)
        x = Upsample(128, **HALF)(nn.swish(GroupNorm(**HALF)(x)))
        x = Conv(128, 1, **HALF)(Downsample(128, **HALF)(nn.swish(x)))
        return Dense(128, **HALF)(nn.swish(x))


@pytest.mark.slow  # compiles for a TPU, a minute or more
@pytest.mark.parametrize("wanted", ["float32", "bfloat16"])
def test_gradients_cross_chips_in_the_wanted_type(wanted, monkeypatch):
    pytest.importorskip("libtpu")
    from jax.experimental import topologies

    for name in ("TPU_SKIP_MDS_QUERY", "ALLOW_MULTIPLE_LIBTPU_LOAD"):
        monkeypatch.setitem(os.environ, name, "1")
    chips = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices
    mesh = jax.sharding.Mesh(np.array(chips), ("data",))
    whole, split = (jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes)) for axes in ((), ("data",)))
    x = jax.ShapeDtypeStruct((16, 8, 8, 128), jnp.bfloat16, sharding=split)
    params = jax.eval_shape(Layers().init, jax.random.key(0), x)

    def loss(params, x):
        return jnp.mean(Layers().apply(params, x).astype(jnp.float32) ** 2)

    with weight_gradients(wanted), compiling_for("tpu"):
        program = jax.jit(jax.grad(loss), in_shardings=(whole, split), out_shardings=whole).lower(params, x).compile().as_text()
    numbers = collections.Counter()
    for line in program.splitlines():
        result, found, _ = line.partition(" all-reduce(")
        for kind, shape in re.findall(r"(f32|bf16)\[([\d,]*)\]", result.partition("=")[2] if found else ""):
            numbers[kind] += math.prod(int(side) for side in shape.split(",") if side)
    kernels = sum(leaf.size for leaf in jax.tree.leaves(params) if leaf.ndim > 1)
    assert numbers["f32" if wanted == "float32" else "bf16"] >= kernels, numbers
    assert wanted == "bfloat16" or numbers["bf16"] == 0, numbers
