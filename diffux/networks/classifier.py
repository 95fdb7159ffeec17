"""A small convolutional classifier: for judging samples, and for guiding them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from diffux.networks.layers import Conv, Dense


class Classified(NamedTuple):
    """What the classifier says of a batch: `logits` (B, classes) and the penultimate `features` (B, features)."""

    logits: Any
    features: Any


class Classifier(nn.Module):
    """Images in [-1, 1], shape (B, H, W, C) -> `Classified`.

    Every width is two 3x3 convolutions, and all widths but the first begin by halving the side. The last map is
    flattened, not averaged, because where a stroke lies is part of what a digit is; one hidden layer then gives the
    features, which are non-negative (ReLU). `dropout` acts on that map while training.

    Example:
        >>> import jax
        >>> classifier = Classifier(classes=10)
        >>> images = jnp.zeros((2, 8, 8, 1))
        >>> params = jax.jit(classifier.init)(jax.random.key(0), images)
        >>> logits, features = jax.jit(classifier.apply)(params, images)
        >>> logits.shape, features.shape
        ((2, 10), (2, 64))
    """

    classes: int
    widths: Sequence[int] = (32, 64)
    features: int = 64
    dropout: float = 0.0
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images, train: bool = False) -> Classified:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = images
        for place, width in enumerate(self.widths):
            for half in range(2):
                stride = 2 if place > 0 and half == 0 else 1
                x = nn.relu(Conv(width, 3, strides=stride, **types)(x))
        x = x.reshape(x.shape[0], -1)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        features = nn.relu(Dense(self.features, **types)(x))
        wide = {**types, "dtype": jnp.result_type(self.dtype or self.param_dtype, images.dtype, jnp.float32)}
        return Classified(Dense(self.classes, **wide)(features), features)
