"""Palette against its paper: four problems, the loss of what is wanted, samples that keep what is known, walks by exact models."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image as Pictures

from diffux import codecs, keys, networks, objectives, systems
from diffux.degradations import harmonic_fill, jpeg
from diffux.errors import UserError
from diffux.evaluation import _held_out
from diffux.evaluation.runs import through_codec
from diffux.fields import Image, Mask, drawing
from diffux.processes import posterior, upper
from diffux.sampling.draw import request
from diffux.systems import palette
from diffux.systems.trainable import Variables
from diffux.types import Net, part
from tests import drawn

pytestmark = pytest.mark.usefixtures("quick")

TINY = {"network": "unet", "channels": 8, "multipliers": (1,), "blocks": 1, "attention": ()}
RNG, SEEN = np.random.default_rng(0), []
IMAGES = RNG.integers(0, 256, (6, 8, 8, 3)).astype(np.uint8)
MASKED = ("inpainting", "uncropping")


def build(problem="inpainting", **more):
    return systems.build("palette", problem=problem, **TINY | more)


class Wave(nn.Module):
    """A network without parameters, whose calls are kept in SEEN."""

    @property
    def reads(self):
        return {"source": None}

    @nn.compact
    def __call__(self, x, noise, cond=None, train=False):
        SEEN.append((x, noise, cond))
        return jnp.sin(3 * x)


@pytest.mark.full
@pytest.mark.parametrize("problem, over, norm, power", [
    ("inpainting", "wanted", "squared", 2), ("uncropping", "all", "absolute", 1), ("jpeg", "wanted", "squared", 2),
])  # fmt: skip
def test_the_loss_is_the_papers(x64, problem, over, norm, power):
    """|f - eps|^p over the pixels that are wanted, as a mean of these or of all; gamma is what the network is told over 1000."""
    system = build(problem, over=over, norm=norm, steps=50).replace(network=Net(Wave(), {}))
    image = RNG.integers(0, 256, (200, 8, 8, 3)).astype(np.uint8)
    SEEN.clear()
    loss, _ = systems.loss(jax.random.key(0), system, Variables({}), {"image": image}, ())
    ((seen, told, cond),) = SEEN
    y, gamma = image / 127.5 - 1, np.asarray(told)[:, None, None, None] / 1000
    eps = (seen - np.sqrt(gamma) * y) / np.sqrt(1 - gamma)
    np.testing.assert_allclose([eps.mean(), eps.std()], [0, 1], atol=0.03)
    wanted = np.asarray(cond.get("wanted", np.ones(image.shape[:3], bool)))
    errors = np.abs(np.sin(3 * np.asarray(seen)) - eps) ** power * wanted[..., None]
    number = 3 * wanted.sum((1, 2)) if over == "wanted" else 3 * 8 * 8
    np.testing.assert_allclose(loss, (errors.sum((1, 2, 3)) / number).mean(), rtol=1e-6)
    assert cond["source"].shape == image.shape and (problem in MASKED) == (not wanted.all()) == ("mask" in cond)


class Anything(nn.Module):
    """What a network says, as parameters: a number for each pixel of each example."""

    reads = {"source": None}  # noqa: RUF012

    @nn.compact
    def __call__(self, x, noise, cond=None, train=False):
        return self.param("out", nn.initializers.ones, (6, 8, 8, 3))


@pytest.mark.parametrize("over", ["wanted", "all"])
def test_what_is_known_teaches_nothing(over):
    """The gradient in the network's output is exactly 0 there, and nowhere else."""
    system, mask = build(over=over).replace(network=Anything()), (RNG.random((6, 8, 8)) < 0.5).astype(np.uint8)
    batch = {"image": IMAGES, "mask": mask}
    params = {"network": {"out": jnp.asarray(RNG.normal(size=IMAGES.shape), jnp.float32)}}
    grads = jax.jit(jax.grad(lambda p: systems.loss(jax.random.key(0), system, Variables(p), batch, ())[0]))(params)
    grad = np.asarray(grads["network"]["out"])
    assert not grad[mask == 1].any() and grad[mask == 0].all()


@pytest.mark.full
def test_sources():
    """Grey in all channels as PIL has it, an 8-bit picture that a JPEG changed, and the image but for its holes."""
    found = {name: build(name).given(jax.random.key(0), {"image": IMAGES}, True) for name in palette.PROBLEMS}
    levels = {name: (np.asarray(cond["source"]) + 1) * 127.5 for name, cond in found.items()}
    grey = np.stack([np.asarray(Pictures.fromarray(image).convert("L")) for image in IMAGES])
    for channel in range(3):
        np.testing.assert_array_equal(levels["colorization"][..., channel], levels["colorization"][..., 0])
    np.testing.assert_allclose(levels["colorization"][..., 0], grey, atol=1.001)
    assert np.abs(levels["colorization"][..., 0] - grey).mean() < 0.1
    np.testing.assert_allclose(levels["jpeg"], np.round(levels["jpeg"]), atol=1e-3)
    worst, best = (np.abs(255 * np.asarray(jpeg(IMAGES / 255, quality)) - IMAGES).mean((1, 2, 3)) for quality in (5, 30))
    assert (np.abs(levels["jpeg"] - IMAGES).mean((1, 2, 3)) <= 1.1 * worst).all()
    assert (np.abs(levels["jpeg"] - IMAGES).mean((1, 2, 3)) >= 0.9 * best).all()
    for name in MASKED:
        mask = np.asarray(found[name]["mask"])
        np.testing.assert_allclose(levels[name][mask], IMAGES[mask], atol=1e-3)
        assert (np.abs(levels[name][~mask] - IMAGES[~mask]) > 1).mean() > 0.9
        np.testing.assert_array_equal(found[name]["wanted"], ~mask)
    assert ((~np.asarray(found["uncropping"]["mask"])).mean((1, 2)) == 0.5).all()


@pytest.mark.full
def test_holes_are_filled_smoothly_where_that_is_asked():
    """The same picture and holes, and for every key the same fill, which knows nothing of what is hidden."""
    found = build("inpainting(fill=harmonic)").given(jax.random.key(0), {"image": IMAGES}, True)
    mask = np.asarray(found["mask"])
    np.testing.assert_array_equal(mask, build("inpainting").given(jax.random.key(0), {"image": IMAGES}, True)["mask"])
    hidden = np.where(mask[..., None], IMAGES, 0).astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(found["source"], harmonic_fill(hidden, mask), atol=1e-5)
    with pytest.raises(UserError, match="unknown fill 'smooth'"):
        build("uncropping(fill=smooth)")


@pytest.mark.full
@pytest.mark.parametrize("problem", palette.PROBLEMS)
def test_a_scale_diffuses_what_the_source_lacks(problem):
    """The image is the source and the residual over the scale, whatever the problem; what is known of it has none."""
    filled = "fill=harmonic," if problem in MASKED else ""
    system = build(f"{problem}({filled}scale=0.5)")
    cond = system.given(jax.random.key(0), {"image": IMAGES}, True)
    z = system.codec.encode(jax.random.key(1), IMAGES, cond)
    source = np.asarray(cond["source"])
    np.testing.assert_allclose(z, 0.5 * (IMAGES / 127.5 - 1 - source), atol=1e-5)
    np.testing.assert_allclose(system.codec.decode(z, cond), IMAGES / 255, atol=1e-5)
    if problem in MASKED:
        assert abs(np.asarray(z)[np.asarray(cond["mask"])]).max() < 1e-6
    variables = systems.init(jax.random.key(0), system, {"image": IMAGES})
    assert np.isfinite(systems.loss(jax.random.key(0), system, variables, {"image": IMAGES}, ())[0])


@pytest.fixture(scope="module")
def tiny():
    """Systems with weights, by problem."""
    made = {name: build(name, draws=3) for name in ("inpainting", "colorization")}
    return {name: (one, systems.init(jax.random.key(0), one, {"image": IMAGES})) for name, one in made.items()}


MASK = np.zeros((6, 8, 8), np.uint8)
MASK[:, :5] = 1


def generate(tiny, given, problem="inpainting", **more):
    system, variables = tiny[problem]
    return systems.generate(keys.sample_keys(0, 0, 6), system, variables, IMAGES.shape, given, **more)


@pytest.mark.full(but=1)
@pytest.mark.parametrize("source", [IMAGES, (IMAGES / 255 + 0.0001).astype(np.float32)], ids=["8 bits", "floats"])
def test_known_pixels_are_those_that_were_given_to_the_last_bit(tiny, source):
    """And the others are not; of every state of a walk as well."""
    out = generate(tiny, {"source": source, "mask": MASK}, save=2)
    want = source / np.float32(255) if source.dtype == np.uint8 else source
    for x in (out.x, *out.trajectory):
        x = np.asarray(x)
        np.testing.assert_array_equal(x[MASK == 1].view(np.uint32), want[MASK == 1].view(np.uint32))
        assert (x[MASK == 0] != want[MASK == 0]).mean() > 0.9
    written = drawing.eight_bit(out.x)[MASK == 1]
    np.testing.assert_array_equal(written, np.round(source / (1 if source.dtype == np.uint8 else 1 / 255))[MASK == 1])


@pytest.mark.parametrize("given, problem, words", [
    ({"source": IMAGES}, "inpainting", "^this model is given mask and source, got source"),
    ({"source": IMAGES, "mask": MASK[:, :7]}, "inpainting", r"mask has an entry for each pixel of source, \(6, 8, 8\), got"),
    ({"source": IMAGES, "mask": MASK | 1}, "inpainting", "one that leaves nothing to be made"),
    ({"source": IMAGES, "mask": MASK & 0}, "inpainting", "one that knows nothing"),
    ({"source": IMAGES[..., :1], "mask": MASK}, "inpainting", r"the samples' shape \(6, 8, 8, 3\), got the shape \(6, 8, 8, 1\)"),
    ({"source": IMAGES[:, :7], "mask": MASK[:, :7]}, "inpainting", r"has the samples' shape \(6, 8, 8, 3\), got .* \(6, 7, 8, 3\)"),
    ({"source": IMAGES[..., :1]}, "colorization", r"do not fit what it is given, \(6, 8, 8, 3\), \(6,\), source \(6, 8, 8, 1\)"),
    ({"source": IMAGES[:, :7]}, "colorization", r"source stands beside x of shape \(6, 8, 8, 3\).* got shape \(6, 7, 8, 3\)"),
    ({"source": IMAGES, "mask": MASK}, "colorization", "mask was given, and nothing in this model reads it"),
])  # fmt: skip
def test_bad_requests_are_refused_in_one_sentence(tiny, given, problem, words):
    with pytest.raises(ValueError, match=words) as error:
        generate(tiny, given, problem)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("options, words", [
    ({"problem": "inpaint"}, "unknown problem 'inpaint'; did you mean 'inpainting'"),
    ({"over": "some"}, "over the wanted entries or over all, got over='some'"),
    ({"norm": "cubed"}, "unknown norm 'cubed'"),
])  # fmt: skip
def test_bad_systems_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        build(**options)
    with pytest.raises(ValueError, match=r"mask has an entry for each pixel of samples of shape \(1, 2\), got none"):
        codecs.pasted(codecs.pixels()).decode(jnp.zeros((1, 2)), {"known": jnp.zeros((1, 2))})


@pytest.mark.full
def test_held_out_rows_have_masks_of_their_own(tiny):
    """A request without words shows held-out pictures with random masks; a figure's masks do not depend on its batches."""
    system, variables = tiny["inpainting"]
    run = dataclasses.replace(drawn.run(system, {"image": IMAGES}, {"image": IMAGES}), variables=variables)
    assert run.asks == {"mask": Mask((8, 8)), "source": Image((8, 8, 3), 256)}
    asked = request(run, 8)
    is_known = asked["mask"] == 1
    np.testing.assert_array_equal(asked["source"][is_known], IMAGES[[0, 1, 2, 3, 4, 5, 0, 1]][is_known])
    assert (asked["source"][~is_known] == 128).all()  # and nothing of the answer
    assert asked["mask"].dtype == np.uint8 and len({one.tobytes() for one in asked["mask"]}) == 6
    assert request(run, 2, {"mask": MASK[:1]})["mask"].tolist() == MASK[:2].tolist()
    with pytest.raises(UserError, match="masks have the shape"):
        request(run, 2, {"mask": MASK[:1, :7]})

    def shown(batch):
        found = [cond["mask"] for *_, cond in _held_out.held_out(run, None, batch).batches(0, 0)]
        return np.concatenate(found)[:6]

    np.testing.assert_array_equal(shown(2), shown(3))
    assert len({one.tobytes() for one in shown(2)}) == 6
    np.testing.assert_array_equal(through_codec(system)(IMAGES), IMAGES / np.float32(255))  # real data are as they are


# --- walks by an exact model ---------------------------------------------------------------------------------------------

RHO, STD, CHAIN = 0.9, 0.2, (1e-4, 0.3, 100)


@part
def first_of_two(keys, sides):
    """The first pixel of two is known."""
    return jnp.broadcast_to(jnp.asarray([True, False])[None, None, :, None], (len(keys), 1, 2, 1))


class Exact(nn.Module):
    """The noise of two pixels, Gaussian with deviation STD and correlation RHO, given the first of them in "source"."""

    reads = {"source": None}  # noqa: RUF012

    @nn.compact
    def __call__(self, x, noise, cond=None, train=False):
        gamma = jnp.reshape(noise, (-1, 1, 1, 1)) / 1000
        mean, variance = RHO * cond["source"][:, :, :1], STD**2 * (1 - RHO**2)
        x0 = mean + jnp.sqrt(gamma) * variance / (gamma * variance + 1 - gamma) * (x - jnp.sqrt(gamma) * mean)
        return (x - jnp.sqrt(gamma) * x0) / jnp.sqrt(1 - gamma)


def walked(mean, variance, upper):
    """(mean, std) that ancestral sampling with the exact denoiser of N(mean, variance) ends with, in float64."""
    betas = np.linspace(*CHAIN)
    gammas = np.append(1, np.cumprod(1 - betas))
    m, v = 0.0, 1.0
    for i in range(len(betas), 0, -1):
        g, h, beta = gammas[i], gammas[i - 1], betas[i - 1]
        pull = np.sqrt(g) * variance / (g * variance + 1 - g)
        to_x0, to_x = np.sqrt(h) * beta / (1 - g), np.sqrt(1 - beta) * (1 - h) / (1 - g)
        slope, noise = to_x0 * pull + to_x, beta if upper else beta * (1 - h) / (1 - g)
        m, v = slope * m + to_x0 * mean * (1 - pull * np.sqrt(g)), slope**2 * v + noise * (i > 1)
    return m, np.sqrt(v)


@pytest.mark.full(but=1)
@pytest.mark.parametrize("variance", ["upper", "posterior"])
def test_a_pixel_has_the_law_that_the_other_one_gives_it(variance):
    """By the exact model, of a source whose other pixel is noise; what the variance of the steps adds is known as well."""
    low, high, draws = CHAIN
    problem = palette.completion(first_of_two)
    system = build(problem, variance=variance, draws=draws, grid=f"betas({low}, {high})").replace(network=Net(Exact(), {}))
    n, known = 10_000, 0.25
    source = np.full((n, 1, 2, 1), 0.9, np.float32)
    source[:, :, 0] = (known + 1) / 2
    mask = np.broadcast_to(np.asarray([1, 0], np.uint8), (n, 1, 2))
    x = systems.generate(keys.sample_keys(0, 0, n), system, Variables({}), source.shape, {"source": source, "mask": mask}).x
    np.testing.assert_array_equal(x[:, :, 0], source[:, :, 0])
    mean, std = walked(RHO * known, STD**2 * (1 - RHO**2), variance == "upper")
    z = 2 * np.asarray(x)[:, 0, 1, 0] - 1
    np.testing.assert_allclose(z.mean(), mean, atol=4 * std / np.sqrt(n))
    np.testing.assert_allclose(z.std(), std, rtol=0.03)
    known_std = {"upper": 0.2146, "posterior": 0.1712}[variance]  # of N(0.3, 0.2^2), from another program
    np.testing.assert_allclose(walked(0.3, 0.04, variance == "upper")[1], known_std, rtol=0.02)


def test_the_system_walks_as_it_says():
    """The paper's variance without clipping, and the ports' on request."""
    paper, port = build(), build(variance="posterior", clip=True)
    assert (paper.process.variance, paper.guidance, paper.steps) == (upper(), (), 1000)
    assert (paper.objective.norm, paper.objective.mask, paper.objective.over) == (objectives.squared, "wanted", "wanted")
    assert port.process.variance == posterior() and len(port.guidance) == 1
    gamma = np.cumprod(1 - np.linspace(1e-4, 0.09, 1000))
    np.testing.assert_allclose(paper.grid(paper.process.schedule, 1000).alpha[:-1] ** 2, gamma[::-1], rtol=1e-4)
    trained = np.cumprod(1 - np.linspace(1e-6, 0.01, 2000))
    np.testing.assert_allclose(paper.process.schedule(np.asarray([0.25, 1.0])).alpha ** 2, trained[[499, 1999]], rtol=1e-3)


@pytest.mark.full
def test_the_published_network_has_the_papers_parameters():
    """552 million, as the paper has it."""
    shape = lambda *sides: jax.ShapeDtypeStruct(sides, jnp.float32)  # noqa: E731
    network = networks.named("palette_256")()
    made = jax.eval_shape(network.init, jax.random.key(0), shape(1, 256, 256, 3), shape(1), {"source": shape(1, 256, 256, 3)})
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(made)) // 10**6 == 552
    assert tuple(network.attention) == (32, 16, 8) and network.classes is None
