"""Files of others: every family there and back, published sizes by shapes, and files that are damaged or lie."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from diffux import pretrained
from diffux.codecs import latents
from diffux.errors import UserError
from diffux.networks import clip, stable, t5
from diffux.networks.autoencoder import Codebook, ImageDecoder, ImageEncoder
from diffux.networks.dit import DiT
from diffux.networks.initialize import initialize
from diffux.pretrained import (
    _stored,
    _table,
    diffusers_autoencoder,
    diffusers_dit,
    diffusers_unet,
    transformers_clip,
    transformers_t5,
)
from diffux.types import Net

pytestmark = pytest.mark.usefixtures("quick")


def net(module, *shown):
    return Net(module, jax.tree.map(np.asarray, initialize(jax.random.key(0), module, *shown)))


TOKENS = jnp.zeros((1, 2), jnp.int32)
LEVELS = {"widths": (4, 8), "blocks": 1, "groups": 2, "inner": 3}


def unet():
    module = stable.Stable(widths=(4, 8), blocks=1, kinds=("cross", "self"), middle="self", heads=(2, 2), depth=(2, 1),
                           text_width=6, groups=2, symmetric=False, embedding="ddpm", classes=3, out_channels=5)  # fmt: skip
    given = {"text": jnp.ones((1, 2, 6)), "label": jnp.zeros(1, jnp.int32)}
    return net(module, jnp.ones((1, 4, 4, 5)), jnp.ones(1), given)


def stage():
    encoder, decoder = ImageEncoder(**LEVELS, latent=3, kinds=("plain", "self")), ImageDecoder(**LEVELS, latent=3)
    return latents(net(encoder, jnp.ones((1, 4, 4, 3))), net(decoder, jnp.ones((1, 2, 2, 3))), scale=0.5, shift=0.25)


def coded():
    encoder, decoder = ImageEncoder(**LEVELS, latent=2, moments=False), ImageDecoder(**LEVELS, latent=2)
    nets = net(encoder, jnp.ones((1, 4, 4, 3))), net(decoder, jnp.ones((1, 2, 2, 2))), net(Codebook(5, 2), jnp.ones((1, 2)))
    return latents(*nets)


def dit():
    module = DiT(width=8, layers=2, heads=2, classes=3, own=True, embedding="cos_first", variance=True)
    return net(module, jnp.ones((1, 4, 4, 5)), jnp.ones(1))


SIZES = {"width": 8, "layers": 2, "heads": 2, "inner": 6}
PARTS = {
    "unet": (diffusers_unet, unet),
    "dit": (diffusers_dit, dit),
    "kl": (diffusers_autoencoder, stage),
    "vq": (diffusers_autoencoder, coded),
    "clip of texts": (transformers_clip, lambda: net(clip.ClipText(**SIZES, vocabulary=9, length=4, end=7, projection=5), TOKENS)),
    "clip of images": (transformers_clip, lambda: net(clip.ClipImage(**SIZES, patch=2, side=4), jnp.ones((1, 4, 4, 3)))),
    "t5": (transformers_t5, lambda: net(t5.T5(**SIZES, head=3, vocabulary=9), TOKENS)),
    "the first t5": (transformers_t5, lambda: net(t5.T5(**SIZES, head=3, vocabulary=9, gate="relu"), TOKENS)),
}


def save(folder, family, part, file=None):
    """A folder as they would write it: (config, tensors)."""
    config, tensors = family.written(part, *((5,) if family in (diffusers_unet, diffusers_dit) else ()))
    (folder / "config.json").write_text(json.dumps(config))
    tensors = dict(tensors)
    save_file(tensors, folder / (file or "model.safetensors"))
    return config, tensors


@pytest.mark.full(but=("vq", "t5"))
@pytest.mark.parametrize("name", PARTS)
def test_there_and_back(name, tmp_path):
    """Another layout in the file, and the same network and bits when it is read."""
    family, make = PARTS[name]
    part = make()
    _, tensors = save(tmp_path, family, part)
    assert pretrained.family(tmp_path).name == family.__name__.rpartition(".")[2]
    found, report = family.read(tmp_path)
    assert sorted(tensors) == list(report.loaded) and not report.ignored
    assert jax.tree.structure(found) == jax.tree.structure(part)  # the modules, too
    jax.tree.map(np.testing.assert_array_equal, found, part)
    assert any(one.shape != two.shape for one, two in zip(tensors.values(), jax.tree.leaves(part), strict=False))


@pytest.mark.full
@pytest.mark.parametrize("make", [stage, coded], ids=["kl", "vq"])
def test_a_shift_of_each_channel_goes_into_the_weights(make, tmp_path):
    """The same latents and images, of a codec that has none left; a book's rows move with it."""
    part = make()
    rng = np.random.default_rng(0)
    moved = lambda net: net and net.replace(  # noqa: E731
        weights=jax.tree.map(lambda leaf: np.float32(leaf + rng.normal(size=leaf.shape)), net.weights))  # fmt: skip
    part = part.replace(encoder=moved(part.encoder), decoder=moved(part.decoder), codebook=moved(part.codebook), drawn=False,
                        scale=0.7, shift=np.float32([0.3, -0.2, 0.5])[: part.encoder.module.latent])  # fmt: skip
    save(tmp_path, diffusers_autoencoder, part)
    found = diffusers_autoencoder.load(tmp_path).replace(drawn=False)
    assert float(found.numbers[1]) == 0 and found.numbers[0] == 0.7
    x = rng.random((2, 4, 4, 3)).astype(np.float32)
    z = part.encode(None, x, {})
    np.testing.assert_allclose(found.encode(None, x, {}), z, atol=1e-5)
    np.testing.assert_allclose(found.decode(z, {}), part.decode(z, {}), atol=1e-5)
    alone = part.replace(encoder=part.encoder.replace(module=part.encoder.module.clone(quantized=False)))
    with pytest.raises(UserError, match="diffusers has no place without 1x1 convolutions"):
        diffusers_autoencoder.written(alone)


COUNTS = {
    "stable_1": (lambda: diffusers_unet.shapes(stable.stable_1(), {"in_channels": 4} | OF), 859_520_964, 686),
    "stable_1_inpainting": (lambda: diffusers_unet.shapes(stable.stable_1_inpainting(), {"in_channels": 9} | OF), 859_535_364, 686),
    "stable_2": (lambda: diffusers_unet.shapes(stable.stable_2(), {"in_channels": 4} | OF), 865_910_724, 686),
    "autoencoder": (lambda: diffusers_autoencoder.shapes(ImageEncoder(), ImageDecoder(), None), 83_653_863, 248),
    "clip_text_l": (lambda: transformers_clip.shapes(clip.clip_text_l()), 123_060_480, 196),
    "clip_image_l": (lambda: transformers_clip.shapes(clip.clip_image_l()), 303_966_208, 392),
    "t5_xxl": (lambda: transformers_t5.shapes(t5.t5_xxl()), 4_762_310_656, 219),  # and the table a second time
}
OF = {"_class_name": "UNet2DConditionModel"}


@pytest.mark.full(but=("autoencoder", "clip_text_l"))
@pytest.mark.parametrize("name", COUNTS)
def test_published_sizes(name):
    """The parameters and tensors of the published files, from shapes alone."""
    made, parameters, tensors = COUNTS[name]
    leaves = jax.tree.leaves(made())
    assert (sum(math.prod(leaf.shape) for leaf in leaves), len(leaves)) == (parameters, tensors)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("t5")
    config, tensors = save(path, *(PARTS["t5"][0], PARTS["t5"][1]()))
    return path, config, tensors


def copy(folder, to):
    for file in folder[0].iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to / "model.safetensors"


def refused(path) -> str:
    with pytest.raises(UserError) as error:
        pretrained.load(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_damaged_file_is_refused_or_whole(folder, tmp_path):
    """Cut anywhere, or with any byte of its header changed: one sentence, or the weights as they were."""
    file, rng = copy(folder, tmp_path), np.random.default_rng(0)
    whole, right = file.read_bytes(), pretrained.load(folder[0]).weights
    network = transformers_t5.built(folder[1])
    table, shapes = transformers_t5.table(network), transformers_t5.shapes(network)

    def read(content):
        file.write_bytes(content)
        try:
            return _table.carried(table, shapes, _stored.stored(tmp_path))[0]
        except UserError as error:
            assert "\n" not in str(error)

    head = 8 + int.from_bytes(whole[:8], "little")
    assert not any(read(whole[:size]) for size in rng.integers(0, len(whole), 100))
    changed = [read(whole[:at] + bytes([rng.integers(0, 256)]) + whole[at + 1 :]) for at in rng.integers(0, head, 200)]
    kept = [found for found in changed if found is not None]
    assert len(kept) < 20
    for found in kept:
        jax.tree.map(np.testing.assert_array_equal, found, right)
    file.write_bytes((100 * 10**9).to_bytes(8, "little") + whole[8:])
    assert "safetensors" in refused(tmp_path)


WRONG = {
    "lacks": (lambda tensors: {name: value for name, value in tensors.items() if "wo" not in name}, "lacks encoder.block.0.l"),
    "shape": (lambda tensors: tensors | {"shared.weight": tensors["shared.weight"][:5]},
              r"shared.weight in \S+ has the shape \(5, 8\), wanted \(9, 8\)"),
    "transposed": (lambda tensors: tensors | {"shared.weight": np.ascontiguousarray(tensors["shared.weight"].T)},
                   r"has the shape \(8, 9\), wanted \(9, 8\)"),
    "not finite": (lambda tensors: tensors | {"shared.weight": np.full((9, 8), np.nan, np.float32)}, "is not finite"),
    "whole numbers": (lambda tensors: tensors | {"shared.weight": np.ones((9, 8), np.int8)}, "shared.weight in .* is of int8"),
    "empty": (lambda tensors: {}, "lacks"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "said"), WRONG.values(), ids=WRONG)
def test_tensors_that_do_not_fit_are_refused(change, said, folder, tmp_path):
    import re

    file = copy(folder, tmp_path)
    save_file(change(folder[2]), file)
    assert re.search(said, refused(tmp_path))


def test_more_tensors_are_ignored_and_named(folder, tmp_path):
    save_file(folder[2] | {"encoder.embed_tokens.weight": np.ones((9, 8), np.float32)}, copy(folder, tmp_path))
    assert transformers_t5.read(tmp_path)[1].ignored == ("encoder.embed_tokens.weight",)
    assert "ignored: encoder.embed_tokens.weight" in str(transformers_t5.read(tmp_path)[1])


INDICES = {
    "outside": ({"shared.weight": "../model.safetensors"}, "which is not in its folder"),
    "absolute": ({"shared.weight": "/etc/passwd"}, "which is not in its folder"),
    "missing": ({"shared.weight": "model-00002-of-00002.safetensors"}, "which is not there"),
    "another": ({"nothing.weight": "one.safetensors"}, "says that nothing.weight is in one.safetensors, and it is not"),
    "no map": (None, "has no weight_map"),
    "numbers": ({"shared.weight": 3}, "has no weight_map"),
}


@pytest.mark.parametrize(("places", "said"), INDICES.values(), ids=INDICES)
def test_an_index_that_lies_is_refused(places, said, folder, tmp_path):
    copy(folder, tmp_path).rename(tmp_path / "one.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({} if places is None else {"weight_map": places}))
    assert said in refused(tmp_path)


def test_a_link_is_followed_as_caches_have_them(folder, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(folder[1]))
    (tmp_path / "one.safetensors").symlink_to(folder[0] / "model.safetensors")
    places = dict.fromkeys(folder[2], "one.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert set(_stored.stored(tmp_path)) == set(folder[2])


def test_folders_without_weights_and_unknown_files(folder, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(folder[1]))
    assert "has no weights: diffusion_pytorch_model.safetensors or model.safetensors" in refused(tmp_path)
    with pytest.raises(UserError, match="is no file of tensors that can be read"):
        _stored.stored(tmp_path / "config.json")
    for text in ("", "[1]", "{", '{"architectures": []}', "\0"):
        (tmp_path / "config.json").write_text(text)
        assert "no weights that a file of pretrained/ recognises" in refused(tmp_path)


SETTINGS = {
    "fourier": (diffusers_unet, {"_class_name": "UNet2DModel", "time_embedding_type": "fourier"}, "time_embedding_type='fourier'"),
    "skips": (diffusers_unet, {"_class_name": "UNet2DModel", "down_block_types": ["SkipDownBlock2D"] * 4}, "SkipDownBlock2D"),
    "uneven": (diffusers_unet, {"_class_name": "UNet2DModel", "up_block_types": ["UpBlock2D"] * 4}, "other levels on its way up"),
    "sines": (diffusers_unet, {"_class_name": "UNet2DModel", "freq_shift": 1}, "flip_sin_to_cos=True and freq_shift=1"),
    "xl": (diffusers_unet, {"_class_name": "UNet2DConditionModel", "addition_embed_type": "text_time"}, "addition_embed_type"),
    "spatial": (diffusers_autoencoder, {"_class_name": "VQModel", "norm_type": "spatial"}, "norm_type='spatial'"),
    "one level": (diffusers_autoencoder, {"_class_name": "VQModel", "down_block_types": []}, "has the down_block_types"),
    "channels": (transformers_clip, {"architectures": ["CLIPVisionModel"], "num_channels": 1}, "num_channels=1"),
    "silu": (transformers_t5, {"architectures": ["T5EncoderModel"], "feed_forward_proj": "gated-silu"}, "'gated-silu'"),
}  # fmt: skip


@pytest.mark.parametrize(("family", "config", "said"), SETTINGS.values(), ids=SETTINGS)
def test_settings_that_are_not_built_are_named(family, config, said):
    with pytest.raises(UserError) as error:
        family.built(config)
    assert said in str(error.value)
