"""Estimates that are put together of tiles: they are the weighted mean, no seam is left, and memory goes by the tiles at once."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import Prediction, chain, grids, guidance, keys, schedules, solvers
from diffux.guidance import posterior_sampling, tiled
from diffux.types import part

SCHEDULE = schedules.linear()
LEVEL = SCHEDULE(0.4)
RNG = np.random.default_rng(0)
quick = pytest.mark.usefixtures("quick")
x64 = pytest.mark.usefixtures("x64")


def picture(*sides, batch=2, channels=3):
    return RNG.standard_normal((batch, *sides, channels))


def estimate(denoise, *transforms, x, cond=None, level=LEVEL):
    return jax.jit(lambda x, level, cond: chain(denoise, *transforms)(x, level, cond))(x, level, cond or {})


def same(found, want, **tolerance):
    assert jax.tree.structure(found) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, **{"rtol": 1e-10, "atol": 1e-11, **tolerance})


# --- what it is -------------------------------------------------------------------------------------------------------


def origins(side, tile, stride):
    """Where tiles begin: every `stride`, and the last where it ends with the side."""
    first = list(range(0, side - tile, stride))
    return [*first, side - tile]


def weight(side, first, tile, overlap, margin):
    """Of the pixels of one tile: nothing in the margin, a half-wave of a sine squared up to the overlap's end, one inside."""
    out = np.ones(tile)
    for i in range(tile):
        for distance, inner in ((i, first > 0), (tile - 1 - i, first + tile < side)):
            if inner and distance < margin:
                out[i] = 0
            elif inner and distance < overlap - margin:
                out[i] *= np.sin(np.pi / 2 * (distance - margin + 0.5) / (overlap - 2 * margin)) ** 2
    return out


def of_neighbours(x, level, cond):
    """An estimate of which every pixel knows the whole tile."""
    return Prediction(x - x.mean((1, 2), keepdims=True) * cond["label"][:, None, None, None], variance=jnp.cumsum(x, 2)[..., :1])


@quick
@x64
@pytest.mark.parametrize(("sides", "tile", "overlap", "margin", "at_once"), [
    ((8, 8), (8, 8), 2, 0, 4), ((13, 21), (8, 8), 4, 1, 3), ((20, 9), (7, 9), 5, 2, 100), ((17, 12), (8, 6), 0, 0, 1),
    ((19, 16), (8, 8), 6, 3, 2),
])  # fmt: skip
def test_it_is_the_minimiser_of_the_squared_differences_to_the_tiles(sides, tile, overlap, margin, at_once):
    """Pixel by pixel sum_i w_i x0_i / sum_i w_i (Bar-Tal et al., 2023, eq. 5-7), of the estimate and of the variance."""
    x, cond, stride = picture(*sides), {"label": np.array([0.5, 2.0])}, [side - overlap for side in tile]
    rows, columns = (origins(*each) for each in zip(sides, tile, stride, strict=True))
    over = {"x0": np.zeros(x.shape), "variance": np.zeros((*x.shape[:3], 1))}
    under = np.zeros((1, *sides, 1))
    for top in rows:
        for left in columns:
            place = np.s_[:, top : top + tile[0], left : left + tile[1]]
            w = np.outer(*(weight(*each, overlap, margin) for each in zip(sides, (top, left), tile, strict=True)))[None, ..., None]
            said, under[place] = of_neighbours(jnp.asarray(x[place]), LEVEL, cond), under[place] + w
            for name, total in over.items():
                total[place] += w * np.asarray(getattr(said, name))
    transform = tiled(tile, overlap, margin, at_once)
    assert transform.tiles(sides).count == len(rows) * len(columns)
    found = estimate(of_neighbours, transform, x=x, cond=cond)
    same(found, Prediction(over["x0"] / under, over["variance"] / under), rtol=1e-9)


@quick
@x64
def test_of_one_tile_it_is_the_model():
    x, cond = picture(9, 12), {"label": np.array([0.5, 2.0])}
    same(estimate(of_neighbours, tiled((9, 12), 4), x=x, cond=cond), of_neighbours(jnp.asarray(x), LEVEL, cond))


def of_pixels(x, level, cond):
    """Pixel by pixel, with all that a prediction may have, and with conditions of all kinds."""
    level, low = level.like(x), cond["low"].repeat(2, 1).repeat(2, 2)
    x0 = jnp.tanh(level.alpha * x + low) * cond["label"][:, None, None, None] + cond["source"].astype(x.dtype)
    assert cond["text"].shape[1:] == (7, 5) and cond["low_level"].shape == x.shape[:1]
    return Prediction(x0, variance=x0[..., :1] - 1, noise=x - x0, gradient=x0**2, memory={"one": x0 + cond["memory"]["one"]})


@quick
@x64
@pytest.mark.full(but=("False-sides2", "True-sides1"))
@pytest.mark.parametrize("sides", [(16, 16), (16, 18), (22, 50), (32, 30)])
@pytest.mark.parametrize("each", [False, True])
def test_of_a_model_of_pixels_it_is_the_model(sides, each):
    """At one level for all or at one a sample; pictures among the conditions are cut as x is, those of half the sides as well."""
    x, level = picture(*sides), SCHEDULE(jnp.array([0.2, 0.7])) if each else LEVEL
    cond = {"low": picture(*(side // 2 for side in sides)), "source": RNG.integers(0, 9, x.shape).astype(np.uint8),
            "label": np.array([1.0, 3.0]), "text": RNG.standard_normal((2, 7, 5)), "low_level": np.zeros(2),
            "memory": {"one": picture(*sides)}}  # fmt: skip
    for transform in (tiled((16, 16), 6), tiled((16, 16), 7, 0, 3), tiled((16, 16), 9, at_once=100)):
        same(estimate(of_pixels, transform, x=x, cond=cond, level=level), of_pixels(jnp.asarray(x), level, cond))


def kernels(*widths):
    """Of a network of so many layers, 3x3."""
    drawn = np.random.default_rng(1)
    return [drawn.standard_normal((3, 3, *ends)) / np.sqrt(9 * ends[0]) for ends in itertools.pairwise(widths)]


def convolved(x, *layers):
    """Convolutions with zeros beyond the borders: a pixel sees as many others in each direction as there are layers."""
    for kernel in layers:
        x = jax.lax.conv_general_dilated(jnp.tanh(x), jnp.asarray(kernel, x.dtype), (1, 1), "SAME",
                                         dimension_numbers=("NHWC", "HWIO", "NHWC"))  # fmt: skip
    return x


TWO, FOUR = kernels(3, 8, 3), kernels(3, 8, 8, 8, 3)


def of_convolutions(x, level, cond):
    return Prediction(convolved(x, *TWO))


@pytest.mark.full
@quick
@x64
def test_of_a_network_that_sees_no_further_than_the_margin_it_is_the_model():
    """And not where it does: tiles without a margin see zeros where the picture goes on."""
    x = picture(30, 41)
    whole = of_convolutions(jnp.asarray(x), LEVEL, {})
    for margin, overlap in ((2, 4), (2, 8), (3, 6)):
        same(estimate(of_convolutions, tiled((16, 16), overlap, margin), x=x), whole)
    for margin, overlap in ((1, 8), (0, 8), (0, 0)):
        apart = np.abs(estimate(of_convolutions, tiled((16, 16), overlap, margin), x=x).x0 - whole.x0)
        assert apart.max() > 1e-3 and np.median(apart) < 1e-10


@quick
@x64
@pytest.mark.full(but=("ddim", "ancestral"))
@pytest.mark.parametrize("solver", ["ddim", "ancestral", "heun", "dpm_solver_pp_2m", "unipc", "euler_ancestral"])
def test_every_solver_walks_as_with_the_whole_picture(solver):
    """What it draws is of the whole picture, so that all tiles see the same."""
    from diffux import processes

    made = {"ancestral": lambda: solvers.ancestral(processes.Gaussian(SCHEDULE))}.get(solver, getattr(solvers, solver))()
    levels, x, own = grids.uniform(end=0.01)(SCHEDULE, 4), jnp.asarray(picture(11, 14)), keys.sample_keys(0, 0, 2)
    walk = lambda *transforms: solvers.sample(own, part(chain(of_convolutions, *transforms)), made, levels, x).x  # noqa: E731
    np.testing.assert_allclose(walk(tiled((10, 10), 6, 2)), walk(), rtol=1e-9, atol=1e-9)


# --- with other transforms --------------------------------------------------------------------------------------------


def of_labels(x, level, cond):
    null = cond.get("null", jnp.zeros(x.shape[0], bool))
    return Prediction(jnp.tanh(level.like(x).alpha * x) + ~null[:, None, None, None] * cond["label"][:, None, None, None] * x)


@quick
@x64
def test_guidance_inside_is_that_of_the_whole_picture_where_it_is_of_pixels():
    """Momentum is remembered pixel by pixel from step to step; a quantile is one of each tile."""
    levels, x, cond = grids.uniform(end=0.01)(SCHEDULE, 5), jnp.asarray(picture(12, 20)), {"label": np.array([0.3, 1.0])}
    steady = guidance.adaptive_projected(3.0, parallel=1.0, momentum=-0.5)
    walk = lambda *transforms: solvers.sample(  # noqa: E731
        keys.sample_keys(0, 0, 2), part(chain(of_labels, *transforms)), solvers.ddim(), levels, x, cond).x  # fmt: skip
    np.testing.assert_allclose(walk(steady, tiled((8, 8), 4)), walk(steady), rtol=1e-9, atol=1e-9)
    assert np.abs(walk(steady) - walk(guidance.classifier_free(3.0))).max() > 1e-3
    ramp = np.linspace(0.1, 9, 24).reshape(1, 1, 24, 1).repeat(8, 1)
    same_x = lambda x, level, cond: Prediction(x)  # noqa: E731
    found = estimate(same_x, guidance.dynamic_threshold(1.0), tiled((8, 8), 0), x=ramp).x0
    sizes = np.maximum(ramp.reshape(8, 3, 8).max((0, 2)), 1)
    np.testing.assert_allclose(found[0, ..., 0].reshape(8, 3, 8), ramp[0, ..., 0].reshape(8, 3, 8) / sizes[:, None], rtol=1e-6)


@quick
@x64
def test_what_a_transform_draws_is_another_noise_in_each_tile():
    class Drawing:
        tells_step = True

        def __call__(self, denoise):
            return lambda x, level, cond: Prediction(keys.noise(cond["keys"], x.shape))

    own = keys.sample_keys(0, 0, 2)
    found = np.asarray(estimate(of_pixels, Drawing(), tiled((8, 8), 0), x=picture(8, 24), cond={"keys": own}).x0)
    assert len({round(float(value), 9) for value in found.ravel()}) == found.size


@quick
@x64
def test_a_gradient_goes_through_it():
    """Posterior sampling around it, as it is a denoiser like any other."""
    x, y = picture(12, 12, channels=1), picture(12, 12, channels=1)
    of = lambda x, level, cond: Prediction(level.like(x).alpha * jnp.tanh(x))  # noqa: E731
    guided = posterior_sampling(lambda x: x[:, ::2], y[:, ::2], 0.5, guidance.dps())
    same(estimate(of, tiled((8, 8), 4), guided, x=x), estimate(of, guided, x=x))


# --- seams ------------------------------------------------------------------------------------------------------------


def spectrum(side):
    """The variances and directions of a side of a smooth field, whose covariance exp(-d^2 / 72) goes far."""
    apart = np.arange(side)[:, None] - np.arange(side)
    return np.linalg.eigh(np.exp(-(apart**2) / 72) + 1e-4 * np.eye(side))


def of_fields(x, level, cond):
    """The exact estimate of a Gaussian field on a picture of any sides."""
    (rows, down), (columns, across) = map(spectrum, x.shape[1:3])
    turned = jnp.einsum("bhwc,hi,wj->bijc", x, down, across)
    variance = jnp.asarray(rows[:, None, None] * columns[:, None])
    gain = level.alpha * variance / (level.alpha**2 * variance + level.sigma**2)
    return Prediction(jnp.einsum("bijc,hi,wj->bhwc", gain * turned, down, across))


def fields(*sides, batch):
    """Such fields themselves."""
    (rows, down), (columns, across) = map(spectrum, sides)
    return np.einsum("hi,bijc,wj->bhwc", down * np.sqrt(rows), picture(*sides, batch=batch), across * np.sqrt(columns))


def seam(x, transform, edge=0):
    """The mean difference between neighbours across the borders of tiles, over that between all others, of both directions.

    edge: so many pixels at the picture's own borders are left out.
    """
    out, tiles, inner = [], transform.tiles(x.shape[1:3]), slice(edge, -edge or None)
    for axis, along in ((1, tiles.rows), (2, tiles.columns)):
        ends = along.origins + along.weights.shape[1]
        borders = [place - edge for place in sorted({*along.origins[1:] - 1, *ends[:-1] - 1})]
        steps = np.abs(np.diff(x[:, inner, inner], axis=axis)).mean(tuple({0, 1, 2, 3} - {axis}))
        out.append(steps[borders].mean() / np.delete(steps, borders).mean())
    return np.array(out)


class Hard(guidance.Tiled):
    """The plain mean of all tiles that hold a pixel, up to their borders."""

    def _window(self, inside):
        return np.ones(len(inside))


@x64
@pytest.mark.full
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_no_seam_is_left_in_samples_of_a_field_of_long_correlations(eta):
    """The difference across a border is 0.9 to 1.1 times that inside; tiles side by side have 3 times as much."""
    levels, x = grids.uniform()(SCHEDULE, 25), jnp.asarray(picture(64, 96, batch=16, channels=1))
    own = keys.sample_keys(0, 0, 16)

    def measured(transform):
        walked = solvers.sample(own, part(chain(of_fields, transform)), solvers.ddim(eta=eta), levels, x)
        return seam(np.asarray(walked.x), transform)

    found = measured(tiled((32, 32), 16, at_once=2))
    assert (found > 0.9).all() and (found < 1.1).all(), found
    assert (measured(tiled((32, 32), 0, at_once=2)) > 2).all()


@pytest.mark.full(but=("twice as far",))
@pytest.mark.parametrize("layers", [TWO, FOUR], ids=["as far as the margin", "twice as far"])
def test_a_hard_edge_leaves_a_seam(layers):
    """In the estimate of a network that sees zeros beyond a tile: the plain mean of overlapping tiles steps at each border.

    The differences across borders, over those inside, are what they are in the estimate of the whole picture, 0.85 to 1.1 times.
    """
    denoise = lambda x, level, cond: Prediction(convolved(x, *layers))  # noqa: E731
    x = (2 + fields(64, 88, batch=4)).astype(np.float32)
    whole = np.asarray(estimate(denoise, x=x).x0)
    soft, hard, none = (
        seam(np.asarray(estimate(denoise, each, x=x).x0), each, len(layers)) / seam(whole, each, len(layers))
        for each in (tiled((32, 32), 8), Hard((32, 32), 8, 2, 4), tiled((32, 32), 0))
    )
    assert (soft > 0.85).all() and (soft < 1.1).all() and (hard > 2).all() and (none > 2).all(), (soft, hard, none)


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.full
def test_memory_grows_with_the_pictures_own_arrays_alone():
    """The temporary memory of a compiled walk: a network of 64 channels needs them for the tiles at once, whatever the picture."""
    layers, levels = kernels(3, 64, 64, 3), grids.uniform()(SCHEDULE, 10)
    wide = lambda x, level, cond: Prediction(convolved(x, *layers))  # noqa: E731

    def temporary(side, *transforms):
        walk = lambda x: solvers.sample(keys.sample_keys(0, 0, 1), part(chain(wide, *transforms)), solvers.ddim(), levels, x).x  # noqa: E731
        compiled = jax.jit(walk).lower(jax.ShapeDtypeStruct((1, side, side, 3), np.float32)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    pictures, tiles = 3 * 4 * (256**2 - 64**2), 4 * 4 * 32**2 * 64
    small, large = (temporary(side, tiled((32, 32), 8, at_once=4)) for side in (64, 256))  # 9 tiles, and 121
    assert large - small < 4 * pictures and tiles < small < 4 * tiles
    assert temporary(256) - temporary(64) > 20 * pictures
    assert temporary(256, tiled((32, 32), 8, at_once=16)) - large > 2 * tiles


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "words"), [
    (lambda: tiled((8, 8), 8), "tiles of 8x8 overlap by 0 to 7 pixels, got 8"),
    (lambda: tiled((8, 4), 5), "tiles of 8x4 overlap by 0 to 3 pixels, got 5"),
    (lambda: tiled((8, 8), -1), "tiles of 8x8 overlap by 0 to 7 pixels, got -1"),
    (lambda: tiled((8, 8), True), "tiles of 8x8 overlap by 0 to 7 pixels, got True"),
    (lambda: tiled((0, 8), 0), r"the sides of a tile, two whole numbers from 1 on, got \(0, 8\)"),
    (lambda: tiled((8,), 0), r"the sides of a tile, two whole numbers from 1 on, got \(8,\)"),
    (lambda: tiled((8, 8), 4, 3), "the margin of tiles that overlap by 4 is 0 to 2 pixels, got 3"),
    (lambda: tiled((8, 8), 4, at_once=0), "a number of tiles at once from 1 on, got 0"),
    (lambda: estimate(of_convolutions, tiled((8, 8), 2), x=picture(7, 20)), "tiles of 8x8 are larger than the picture, 7x20: pad"),
    (lambda: estimate(of_convolutions, tiled((8, 8), 2), x=picture(16, 20)[0]), r"pictures \(B, H, W, C\), got x of shape \(16, "),
    (lambda: estimate(of_convolutions, tiled((8, 8), 2), x=picture(16, 20), cond={"low": picture(8, 11)}),
     "the condition low has the sides 8x11, and tiled cuts pictures whose sides are those of x, 16x20, or the same part of both"),
    (lambda: estimate(of_convolutions, tiled((9, 9), 2), x=picture(16, 20), cond={"low": picture(8, 10)}),
     "1/2 of its picture's sides, and tiles of 9x9 do not divide by 2"),
    (lambda: estimate(of_convolutions, tiled((8, 8), 6), x=picture(16, 20), cond={"low": picture(4, 5)}),
     "tiles of 8x8 that begin at multiples of 4 overlap by 4 at most, got 6"),
    (lambda: estimate(lambda x, level, cond: Prediction(x, variance=x[:, 0, 0]), tiled((8, 8), 2), x=picture(16, 20)),
     r"the variance of a tile's prediction has the shape \(2, 3\), and tiled puts pictures of 8x8 together"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_sentence(make, words):
    with pytest.raises(ValueError, match=words) as error:
        make()
    assert "\n" not in str(error.value)
