"""Regression: an image as a network's one answer to a picture of it that was made small, grey or worse.

It is what diffusion models of the same task are compared with: least squares gives the mean of all images that fit the picture, and
with it the best PSNR and no detail. On the network "rrdb" it is also how SRDiff's encoder is trained (Li et al., 2021, sec. 3.3).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffux import networks, objectives, operators
from diffux.codecs import Codec, pixels
from diffux.conditions import Given, applied, given, into, made
from diffux.denoisers import chain
from diffux.naming import accepts, make, pick, public
from diffux.noise_level import NoiseLevel
from diffux.operators import rescale, shrink
from diffux.solvers import Sampled
from diffux.systems.answers import answered
from diffux.systems.palette import PROBLEMS
from diffux.systems.system import conditions, inputs
from diffux.types import Learned, Net, Prediction, Transform, reads

NOTHING = NoiseLevel(1.0, 0.0, 1.0)
"""The level at which an x shows nothing of the image."""


@struct.dataclass
class Estimate:
    """The network as a denoiser of an x that shows nothing: it sees the picture cond[`source`] in its place."""

    network: Net
    source: str = struct.field(pytree_node=False)

    def __call__(self, x, level, cond, **options):
        picture = cond[self.source]
        found = self.network(picture, jnp.zeros(picture.shape[:1]), cond, **options)
        if found.shape != x.shape:
            raise ValueError(f"the network makes {found.shape} of {self.source}, {picture.shape}, and the images are {x.shape}")
        return Prediction(found)


@struct.dataclass
class Regression:
    """A network that is given a picture and says the image, by the mean of a norm of its error.

    - network: (picture, noise = 0, cond, train) -> the image in the space of `codec`; cond[`source`] is the picture.
    - mask: the condition, if any, that is true for the entries whose error counts.
    - guidance: transforms of the estimate, `tiled` for pictures that are larger than memory allows.
    """

    network: Net
    norm: Any
    source: str = struct.field(pytree_node=False, default="low")
    codec: Codec = pixels()
    data: str = struct.field(pytree_node=False, default="image")
    given: Given = Given()
    guidance: tuple[Transform, ...] = ()
    mask: str | None = struct.field(pytree_node=False, default=None)
    steps: int = struct.field(pytree_node=False, default=1)

    def state(self):
        return ()

    def check(self):
        if self.source not in self.given.gives:
            raise ValueError(f"a regression is on the picture {self.source}, and this one is given "
                             f"{', '.join(self.given.gives) or 'nothing'}")  # fmt: skip

    @property
    def reads(self) -> dict[str, int | None] | None:
        """The picture, and what the network, the loss and the codec look at besides."""
        own = reads(self.network)
        masked = {} if self.mask is None else {self.mask: None}
        return None if own is None else {self.source: None, **masked, **(reads(self.codec) or {}), **own}

    @property
    def optional(self) -> tuple[str, ...]:
        return tuple(getattr(self.network.module, "nulls", reads(self.network) or ()))

    def loss(self, key, batch, state, train):
        key_given, key_codec, key_dropout = jax.random.split(key, 3)
        x, cond = inputs(key_given, key_codec, self, batch, train)
        options = {"train": train, "rngs": {"dropout": key_dropout} if train else None}
        error = Estimate(self.network, self.source)(x, NOTHING, cond, **options).x0 - x
        rms = jnp.sqrt(jnp.mean(error**2)) / 2  # of pixels in [0, 1]
        wanted = None if self.mask is None else cond[self.mask]
        return jnp.mean(objectives.mean_over_dims(self.norm(error), wanted)), ({"rms": rms}, state)

    def generate(self, keys, shape, given, *, steps=None, save=None, progress=None) -> Sampled:
        """The image of each picture, the same one for every key: one evaluation, and no walk."""
        answer = lambda cond, shape: _answer(  # noqa: E731
            Estimate(self.network, self.source), self.guidance, self.codec, cond, shape)
        return answered(self, answer, keys, shape, given, what="a regression", steps=steps, save=save, progress=progress)

    def conditions(self, keys, given, batch: int) -> dict[str, Any]:
        """As `systems.system.conditions`, of this one."""
        return conditions(self, keys, given, batch, self.network, self, *self.guidance)

    def encoder(self) -> Net:
        """The network as one that gives features of the picture, for models that read them, such as `srdiff`.

        Raises ValueError for a network without a field `features`.
        """
        module = self.network.module
        if not hasattr(module, "features"):
            raise ValueError(f"an encoder has features, and this regression is on a {type(module).__name__}, which has none: one "
                             "on the network 'rrdb' would do")  # fmt: skip
        return self.network.replace(module=module.clone(features=True))


@functools.partial(jax.jit, static_argnames=("shape",))
def _answer(estimate, guidance, codec, cond, shape):
    return codec.decode(chain(estimate, *guidance)(jnp.zeros(shape), NOTHING, cond).x0, cond)


def build(enlarges: int = 8, operator: Any = None, problem: Any = None, norm: str = "absolute", source: str = "low",
          network: str = "rrdb", **options) -> Regression:  # fmt: skip
    """A regression of images in [0, 1] on the field `source`; the defaults are how SRDiff's encoder of faces is trained.

    - enlarges: the factor between the sides of the image and of the picture, 1 where they are the same.
    - operator: what makes the picture of the image in training, of `diffux.operators` by name; by default the antialiased cubic
      shrink(8), where `enlarges` is 8.
    - problem: one of Palette's, "colorization", "inpainting", "uncropping" or "jpeg", whose "source" is the picture then and whose
      samples keep what is known; nothing is enlarged. The network is "unet" or another that gives what it is given.
    - norm: of the error, "absolute" or "squared".
    - network: "rrdb", which is given the picture as it is, and so is any with a field `enlarges`; "unet" or another of
      `networks.names()` is given it enlarged to the image's sides, in the place of x and with noise 0. Further keywords are its
      fields.

    For pictures that are made in another way, `replace` the row `given`; the network may read more of them.
    Raises ValueError for another norm or problem.
    """
    error = pick("norm", norm, objectives.NORMS)
    if problem is not None:
        asked = make("problem", problem, PROBLEMS)
        return Regression(Net(networks.named(network)(**options), Learned("network")), error, "source", asked.codec,
                          given=asked.given, mask=asked.mask)  # fmt: skip
    found = networks.named(network)
    itself = "enlarges" in accepts(found)[0]
    enlarged = () if itself or enlarges == 1 else (applied(source, rescale(enlarges)),)
    worse = make("operator", shrink(enlarges) if operator is None else operator, public(operators))
    return Regression(
        network=Net(found(**({"enlarges": enlarges} if itself else {}), **options), Learned("network")),
        norm=error, source=source,
        given=given(made(source, "image", worse), into(source, pixels()), *enlarged),
    )  # fmt: skip
