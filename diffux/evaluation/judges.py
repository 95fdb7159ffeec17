"""Judges: whose features, and opinions where they have some, the figures of images are made of.

Of images with classes a small classifier, trained on them once and kept; of others a random network; or features that are given.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import math
import os
import re
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util

from diffux import data, listing
from diffux.errors import EvaluationError, one_sentence
from diffux.evaluation.figure import examples_of
from diffux.naming import pick
from diffux.networks import random_features
from diffux.networks.classifier import Classifier
from diffux.networks.initialize import initialize

Array = Any
CHUNK, PIXELS = 500, 2**22  # images a call of the network, and their pixels
LARGEST = 64  # side of images that a classifier sees; larger ones are averaged over squares


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A judge's network and training. Any change of a number makes another judge; `version` marks changes of code.

    `shift` pixels each way, `noise` (largest standard deviation, in [0, 1] pixels) and `flip` (left to right) vary the
    training images, and `smoothing` of the labels keeps the judge from being sure of what it has not seen.
    """

    widths: tuple[int, ...]
    features: int = 128
    dropout: float = 0.3
    steps: int = 500
    batch: int = 64
    learning_rate: float = 4e-3
    warmup: int = 50
    weight_decay: float = 1e-3
    smoothing: float = 0.01
    shift: int = 1
    noise: float = 0.2
    flip: bool = False
    seed: int = 0
    version: int = 1


@dataclasses.dataclass(frozen=True)
class Judge:
    """A trained classifier with the number that its features are divided by, and the field that it knows: see `judge`."""

    dataset: str
    identity: str
    network: Classifier
    params: Any
    scale: float
    shape: tuple[int, ...]
    version: int
    label: str

    @property
    def name(self) -> str:
        """What a figure made with it must be told with, as "digits classifier v1 (6c1e03a2), 64 features"."""
        return f"{self.dataset} classifier v{self.version} ({self.identity}), {self.network.features} features"

    def __call__(self, images) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (N, classes) and features (N, D) of images in [0, 1], shape (N, H, W, C)."""
        probabilities, features = _in_chunks(lambda x: _classify(self.network, self.params, reduced(x)), images)
        return probabilities, features / self.scale


@dataclasses.dataclass(frozen=True)
class Features:
    """A judge without opinions: a function, images (N, H, W, C) in [0, 1] -> features (N, D), shifted and divided as given."""

    name: str
    function: Callable[[np.ndarray], Any]
    mean: Any = 0.0
    scale: Any = 1.0
    label: str | None = None

    def __call__(self, images) -> tuple[None, np.ndarray]:
        """(None, features (N, D)) of images; EvaluationError where the function gives something else, or fails."""
        try:
            (found,) = _in_chunks(lambda x: (self.function(x),), images)
        except EvaluationError:
            raise
        except Exception as error:  # whatever a function of the user's own raises
            said = f"{type(error).__name__}: {one_sentence(error)[:300]}"
            raise EvaluationError(f"the features of {self.name} fail on images {np.shape(images)[1:]} ({said})") from error
        if found.shape[1:] != (found.size // max(len(found), 1),) or not np.isfinite(found).all():
            raise EvaluationError(f"the features of {self.name} are finite numbers (N, D), got {(len(images), *found.shape[1:])}")
        return None, (found - self.mean) / self.scale


def _in_chunks(function: Callable, images) -> list[np.ndarray]:
    """The arrays (N, ...) that `function` returns for images, a chunk at a time."""
    parts, size = [], min(CHUNK, max(PIXELS // math.prod(images.shape[1:3]), 1))
    for start in range(0, len(images), size):
        chunk = np.asarray(images[start : start + size], np.float32)
        # The last chunk is filled up, so that one compiled program serves every count.
        filled = np.concatenate([chunk, np.zeros((size - len(chunk), *chunk.shape[1:]), np.float32)])
        found = [np.asarray(part) for part in function(filled)]
        if any(not part.ndim or len(part) != size for part in found):
            raise EvaluationError(f"features are one row for each of {size} images, got an array {found[0].shape}")
        parts.append([part[: len(chunk)] for part in found])
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def judge(source: data.Source, say: Callable[[str], None] = lambda message: None, wanted: Any = None,
          image: str | None = None) -> Judge | Features:  # fmt: skip
    """The judge of a training split of images, its first field or `image`.

    wanted: "classifier", of the first field that is one of several classes, the default where there is one; "random", a network of
    random weights; a file in use that defines `features`; such a function, images (N, H, W, C) in [0, 1] -> (N, D); or a pair
    (Flax module, its parameters) that is one. Features that are given are taken as they are.

    Raises EvaluationError, and UserError for a name that is none of these.
    """
    image = next(iter(source.fields)) if image is None else image
    if wanted is None:
        wanted = "random" if label_of(source) is None else "classifier"
    if isinstance(wanted, str):
        listed = listing.modules(sys.modules["diffux.evaluation"], "features")
        own = {name: functools.partial(_given, name, found.load().features) for name, found in listed.items()}
        return pick("judge", wanted, {"classifier": classifier, "random": random, **own})(source, say, image)
    if isinstance(wanted, tuple) and len(wanted) == 2:
        module, params = wanted
        return Features(type(module).__name__, lambda images: module.apply({"params": params}, images))
    if not callable(wanted):
        raise EvaluationError(f"a judge is a name, a function of images, or (module, parameters), got {type(wanted).__name__}")
    return Features(getattr(wanted, "__name__", type(wanted).__name__), wanted)


def _given(name: str, function: Callable, source: data.Source, say: Callable, image: str) -> Features:
    return Features(name, function)


def random(source: data.Source, say: Callable[[str], None], image: str) -> Features:
    """The judge of random features, each shifted and divided so that the training split's have mean 0 and variance 1."""
    (found,) = _in_chunks(lambda x: (random_features.features(x),), examples_of(source)[image] / np.float32(255))
    return Features(f"a random network, {found.shape[1]} features", random_features.features, found.mean(0), spread(found))


def spread(features: np.ndarray) -> np.ndarray:
    """What each of some features, (N, D), is divided by: its standard deviation, or a tenth of what they all have, so that one that
    hardly varies does not count most."""
    own = features.std(0)
    return np.maximum(own, 0.1 * np.sqrt(np.mean(own**2)) + 1e-6)


def classifier(source: data.Source, say: Callable[[str], None], image: str) -> Judge:
    """The classifier of a training split, from the cache, or trained on it (seconds, or minutes) and put there.

    Features are the penultimate activations divided by one number, so that the variances of the train split's features
    average to 1: a Frechet distance then does not grow with a network's confidence. The cache's file is named after the
    recipe and the data, so a changed one is never read, and it is renamed into place whole, so several processes may
    train at once. `say` is told when training begins.

    Raises:
        EvaluationError: the source has no classes, or the cache cannot be written.
    """
    label, field = label_of(source), source.fields[image]
    if label is None:
        raise EvaluationError(f"{source.name} has no classes for a classifier to know: another judge is random, or one of your own")
    examples = {name: values for name, values in examples_of(source).items() if name in (image, label)}
    recipe = general(field.shape, len(source)) if source.recipe is None else Recipe(**source.recipe)
    examples[image] = np.round(np.asarray(reduced(examples[image]))).astype(np.uint8)
    identity, shape = _identity(source.name, recipe, examples), examples[image].shape[1:]
    stem = re.sub(r"[^\w.-]+", "-", source.name)[-80:].strip("-")
    path = data.cache_dir() / "judges" / f"{stem}-{identity}.npz"
    network = Classifier(source.fields[label].categories, recipe.widths, recipe.features, recipe.dropout)
    saved = _read(path, network, shape)
    if saved is None:
        say(f"training the {source.name} classifier, once, on {len(examples[image])} real images")
        params = train(network, recipe, examples[image], examples[label])
        unscaled = Judge(source.name, identity, network, params, 1.0, shape, recipe.version, label)
        features = unscaled(examples[image] / np.float32(255))[1]
        saved = params, float(np.sqrt(features.astype(np.float64).var(0).mean()))
        _write(path, *saved)
    return Judge(source.name, identity, network, *saved, shape, recipe.version, label)


def label_of(source: data.Source) -> str | None:
    """The first field that is one of several classes, if there is one."""
    classes = {name: field.categories or 0 for name, field in source.fields.items() if not field.shape}
    return next((name for name, count in classes.items() if count > 1), None)


def general(shape: tuple[int, ...], count: int) -> Recipe:
    """The recipe for so many images (H, W, C) of which nothing else is known: down to at most 8 pixels a side, ten times over each
    image but 500 to 2,000 steps."""
    side = max(shape[:2]) // -(-max(shape[:2]) // LARGEST)
    depth = max(2, math.ceil(math.log2(max(side, 8) / 4)))
    widths = tuple(min(16 * 2**i, 64) for i in range(depth))
    return Recipe(widths=widths, steps=min(max(10 * count // 64, 500), 2000))


def reduced(images) -> Array:
    """Images (N, H, W, C) averaged over squares, so that no side is above LARGEST; smaller ones as they are."""
    images = jnp.asarray(images)
    by = -(-max(images.shape[1:3]) // LARGEST)
    if by == 1:
        return images
    n, height, width, channels = images.shape
    images = images[:, : height // by * by, : width // by * by].astype(jnp.float32)
    return images.reshape(n, height // by, by, width // by, by, channels).mean((2, 4))


def train(network: Classifier, recipe: Recipe, images: np.ndarray, labels: np.ndarray) -> Any:
    """The parameters of a classifier of images uint8 (N, H, W, C) with labels (N,): one compiled scan, one seed."""
    key = jax.random.key(recipe.seed)
    params = initialize(key, network, jax.ShapeDtypeStruct((1, *images.shape[1:]), jnp.float32))
    return jax.device_get(_train(network, recipe, params, key, jnp.asarray(images), jnp.asarray(labels)))


@functools.partial(jax.jit, static_argnames=("network", "recipe"))
def _train(network, recipe, params, key, images, labels):
    rate = optax.warmup_cosine_decay_schedule(0.0, recipe.learning_rate, recipe.warmup, recipe.steps)
    optimizer = optax.adamw(rate, weight_decay=recipe.weight_decay)

    def step(carry, key):
        params, opt_state = carry
        key_choice, key_vary, key_dropout = jax.random.split(key, 3)
        chosen = jax.random.randint(key_choice, (recipe.batch,), 0, len(images))
        x = vary(key_vary, images[chosen] / jnp.float32(255), recipe)
        target = optax.smooth_labels(jax.nn.one_hot(labels[chosen], network.classes), recipe.smoothing)

        def loss(params):
            logits = network.apply({"params": params}, 2 * x - 1, train=True, rngs={"dropout": key_dropout}).logits
            return optax.softmax_cross_entropy(logits, target).mean()

        updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    keys = jax.random.split(key, recipe.steps)
    return jax.lax.scan(step, (params, optimizer.init(params)), keys)[0][0]


def vary(key: Array, x: Array, recipe: Recipe) -> Array:
    """Images in [0, 1], shape (B, H, W, C), shifted (edges repeated; half of them stay), flipped and made noisy."""
    key_stay, key_shift, key_flip, key_level, key_noise = jax.random.split(key, 5)
    b, height, width, channels = x.shape
    offsets = jax.random.randint(key_shift, (b, 2), 0, 2 * recipe.shift + 1)
    offsets = jnp.where(jax.random.bernoulli(key_stay, 0.5, (b, 1)), recipe.shift, offsets)
    border = [(0, 0), (recipe.shift, recipe.shift), (recipe.shift, recipe.shift), (0, 0)]
    cut = jax.vmap(lambda image, at: jax.lax.dynamic_slice(image, (at[0], at[1], 0), (height, width, channels)))
    x = cut(jnp.pad(x, border, mode="edge"), offsets)
    if recipe.flip:
        x = jnp.where(jax.random.bernoulli(key_flip, 0.5, (b, 1, 1, 1)), x[:, :, ::-1], x)
    level = recipe.noise * jax.random.uniform(key_level, (b, 1, 1, 1))
    return jnp.clip(x + level * jax.random.normal(key_noise, x.shape), 0, 1)


@functools.partial(jax.jit, static_argnames=("network",))
def _classify(network, params, images):
    logits, features = network.apply({"params": params}, 2 * images - 1)
    return jax.nn.softmax(logits), features


def _identity(dataset, recipe, examples) -> str:
    digest = hashlib.sha256(repr((dataset, recipe)).encode())
    for name in sorted(examples):
        digest.update(np.ascontiguousarray(examples[name]).tobytes())
    return digest.hexdigest()[:8]


def _read(path: Path, network, shape) -> tuple[Any, float] | None:
    """The parameters and the scale in a file, or None where it is missing, damaged, or of another network."""
    try:
        with np.load(path) as file:
            flat = {name: file[name] for name in file.files}
        scale = float(flat.pop("scale"))
        params = traverse_util.unflatten_dict(flat, sep="/")
        wanted = jax.eval_shape(
            lambda key: network.init(key, jnp.zeros((1, *shape)))["params"],
            jax.random.key(0),
        )
        same = jax.tree.map(lambda leaf, want: leaf.shape == want.shape, params, dict(wanted))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return (params, scale) if all(jax.tree.leaves(same)) and np.isfinite(scale) else None


def _write(path: Path, params, scale) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".part", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, scale=scale, **traverse_util.flatten_dict(params, sep="/"))
            os.replace(part, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise
    except OSError as error:
        raise EvaluationError(
            f"the classifier cannot be kept in {path.parent} ({error.strerror or error}): set DIFFUX_CACHE to a directory"
            " that can be written"
        ) from error
