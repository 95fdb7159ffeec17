"""SRDiff against its paper: the loss on residuals, its chain, the last step, and encoders frozen and trained."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import keys, systems
from diffux.config.plan import plan
from diffux.errors import UserError
from diffux.evaluation.runs import through_codec
from diffux.guidance import static_threshold
from diffux.processes import posterior
from diffux.systems.trainable import Variables
from diffux.types import Learned, Net

pytestmark = pytest.mark.usefixtures("quick")

TINY = {"enlarges": 2, "steps": 10, "channels": 4, "multipliers": (1,), "blocks": 1, "encoder_channels": 4, "encoder_blocks": 2}
RNG, SEEN = np.random.default_rng(0), []
IMAGES = RNG.integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)


class Known(nn.Module):
    """A network without parameters, whose calls are kept in SEEN; where `x0` is a number, it says the noise that x then has."""

    x0: float | None = None

    @property
    def reads(self):
        return {"features": None}

    @property
    def nulls(self):
        return ()

    @nn.compact
    def __call__(self, x, noise, cond=None, train=False):
        SEEN.append((x, noise, cond))
        if self.x0 is None:
            return jnp.sin(3 * x)
        abar = jnp.asarray(abars(10))[jnp.round(noise).astype(int)][:, None, None, None]
        return (x - jnp.sqrt(abar) * self.x0) / jnp.sqrt(1 - abar)


def abars(steps):
    """Nichol and Dhariwal, 2021, eq. 17: the products of 1 - beta, each beta at most 0.999."""
    f = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.cumprod(1 - np.minimum(1 - f[1:] / f[:-1], 0.999))


def enlarged(low):
    return np.asarray(jax.image.resize(low / 127.5 - 1, (len(low), 8, 8, 3), "cubic"))


@pytest.mark.full
def test_the_loss_is_the_papers(x64):
    """The mean of |eps_hat - eps|, where x_t is of the residual times 2, at the steps 0 .. 9, and eps is read off x_t."""
    system = systems.build("srdiff", **TINY).replace(network=Net(Known(), {}))
    image = RNG.integers(0, 256, (150, 8, 8, 3)).astype(np.uint8)
    variables = systems.init(jax.random.key(0), system, {"image": image})
    SEEN.clear()
    loss, _ = systems.loss(jax.random.key(0), system, variables, {"image": image}, ())
    ((seen, step, cond),) = SEEN
    low = np.asarray(system.given.asked({"image": image})["low"])
    residual = np.clip(2 * (image / 127.5 - 1 - enlarged(low)), -1, 1)
    assert set(np.asarray(step)) == set(range(10))
    abar = abars(10)[np.asarray(step).astype(int)][:, None, None, None]
    eps = (seen - np.sqrt(abar) * residual) / np.sqrt(1 - abar)
    np.testing.assert_allclose([eps.mean(), eps.std()], [0, 1], atol=0.02)
    np.testing.assert_allclose(loss, np.abs(np.sin(3 * np.asarray(seen)) - eps).mean(), rtol=1e-6)
    np.testing.assert_allclose(cond["low"], low / 127.5 - 1, atol=1e-6)


@pytest.mark.full
def test_a_walk_ends_at_the_clipped_residual_without_noise():
    """x_0 of 3 is clipped to 1, a residual of half the range; one of 0.4 is kept, and no noise is left."""
    low = RNG.integers(100, 120, (3, 4, 4, 3)).astype(np.uint8)
    up = enlarged(low)
    for said, found in ((3.0, 0.5), (0.4, 0.2), (-0.6, -0.3)):
        system = systems.build("srdiff", **TINY).replace(network=Net(Known(said), {}))
        variables = systems.init(jax.random.key(0), system, {"image": IMAGES})
        drawn = systems.generate(keys.sample_keys(0, 0, 3), system, variables, IMAGES.shape, {"low": low}).x
        np.testing.assert_allclose(drawn, (up + found + 1) / 2, atol=2e-6)


def test_the_defaults_are_the_papers():
    system = systems.build("srdiff")
    assert (system.steps, system.process.variance, system.codec.scale) == (100, posterior(), 2.0)
    levels = system.grid(system.process.schedule, 100)
    np.testing.assert_allclose(levels.alpha[:-1] ** 2, abars(100)[::-1], rtol=1e-4, atol=1e-9)
    assert system.guidance == (static_threshold(),)  # of the residual, in every step
    rrdb = system.given.parts[-1].net
    assert (rrdb.module.channels, rrdb.module.blocks, rrdb.module.enlarges) == (32, 8, 8)
    assert system.given.asks == ("low",) and system.reads == {"low": None, "features": None}


# --- encoders ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoder():
    made = systems.build("regression", enlarges=2, channels=4, blocks=2)
    return systems.resolved(made, systems.init(jax.random.key(1), made, {"image": IMAGES}))


@pytest.mark.full
def test_an_encoder_is_frozen_where_it_is_given_and_else_trained(encoder):
    """The features of the first are its own of the small image; gradients reach the second."""
    frozen, trained = systems.build("srdiff", encoder=encoder, **TINY), systems.build("srdiff", **TINY)
    batch = {"image": IMAGES}
    both = [systems.init(jax.random.key(0), system, batch) for system in (frozen, trained)]
    assert [set(variables.params) for variables in both] == [{"network"}, {"network", "encoder"}]
    assert trained.given.parts[-1].net.weights == Learned("encoder")
    cond = systems.encode(jax.random.key(0), frozen, both[0], batch)[1]
    module = encoder.network.module.clone(features=True)
    np.testing.assert_allclose(cond["features"], module.apply({"params": encoder.network.weights}, cond["low"]), atol=1e-6)
    assert np.abs(cond["features"]).max() > 0.01

    params = both[1].params  # the network's last layer begins at zero, through which nothing passes
    params["network"]["conv_out"]["kernel"] = jnp.ones_like(params["network"]["conv_out"]["kernel"])
    slope = jax.jit(jax.grad(lambda p: systems.loss(jax.random.key(0), trained, Variables(p), batch, ())[0]))(params)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(slope["encoder"]))


@pytest.mark.full
def test_the_features_change_the_samples(encoder):
    system = systems.build("srdiff", encoder=encoder, **TINY)
    variables = systems.init(jax.random.key(0), system, {"image": IMAGES})
    out = variables.params["network"]["conv_out"]
    out["kernel"] = out["kernel"] + RNG.normal(size=out["kernel"].shape).astype(np.float32)
    low = np.asarray(system.given.asked({"image": IMAGES})["low"])
    blind = system.replace(given=system.given.replace(parts=(*system.given.parts[:-1], silenced(system.given.parts[-1]))))
    draw = lambda system: systems.generate(keys.sample_keys(0, 0, 3), system, variables, IMAGES.shape, {"low": low}).x  # noqa: E731
    assert np.abs(draw(system) - draw(blind)).max() > 1e-2


def silenced(part):
    """The part with an encoder whose features are zero."""
    return part.replace(net=part.net.replace(weights=jax.tree.map(jnp.zeros_like, part.net.weights)))


def test_what_does_not_fit_is_refused(encoder):
    model = systems.build("ddpm", steps=50, channels=4, multipliers=(1,), attention=())
    plain = systems.build("regression", enlarges=2, network="unet", channels=4, multipliers=(1,), attention=())
    for given, words in ((model, "encoder is a run of a regression, got a System"), (plain, "this regression is on a UNet")):
        with pytest.raises(ValueError, match=words):
            systems.build("srdiff", encoder=given, **TINY)
    with pytest.raises(UserError, match="unknown option of system srdiff 'multiplier'"):
        plan({"system": {"name": "srdiff", "multiplier": (1, 2)}})
    system = systems.build("srdiff", encoder=encoder, **TINY)
    variables = systems.init(jax.random.key(0), system, {"image": IMAGES})
    for low, words in ((IMAGES[:, :3, :3], "got shape"), (IMAGES[:, :4, :4, :1], "do not fit what it is given")):
        with pytest.raises(ValueError, match=words) as error:
            systems.generate(keys.sample_keys(0, 0, 3), system, variables, IMAGES.shape, {"low": low})
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"sides of \(9, 8\) times 1 / 2 are no whole numbers"):
        systems.init(jax.random.key(0), system, {"image": np.zeros((1, 9, 8, 3), np.uint8)})


def test_evaluations_compare_with_the_images_as_they_are(encoder):
    """A codec that reads a small image cannot be applied to images alone."""
    system = systems.build("srdiff", encoder=encoder, **TINY)
    np.testing.assert_allclose(through_codec(system)(IMAGES), IMAGES / 255, atol=1e-6)
