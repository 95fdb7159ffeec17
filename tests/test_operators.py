"""Linear operators: adjoints to rounding, orthonormal bases, and the operations against numpy's and scipy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from diffux import operators

pytestmark = pytest.mark.usefixtures("x64")

RNG = np.random.default_rng(0)
KNOWN = RNG.random((4, 6, 3)) < 0.4
KERNEL = RNG.random((3, 5))
OPERATORS = {
    "mask": lambda: operators.mask(KNOWN),
    "grey": lambda: operators.grey(),
    "grey_basis": lambda: operators.grey_basis(),
    "average_pool": lambda: operators.average_pool(2),
    "resize, smaller": lambda: operators.resize((4, 6), (2, 4)),
    "resize, larger": lambda: operators.resize((4, 6), (7, 9), "linear"),
    "rescale, smaller": lambda: operators.rescale(1 / 2),
    "rescale, larger": lambda: operators.rescale("3/2", "linear"),
    "blur": lambda: operators.blur(KERNEL),
    "blur, zero": lambda: operators.blur(KERNEL, "zero"),
    "matrix": lambda: operators.matrix(RNG.standard_normal((5, 72)), (4, 6, 3)),
}
X = RNG.standard_normal((2, 4, 6, 3))


@pytest.mark.parametrize("name", OPERATORS)
def test_the_transpose_is_the_adjoint_and_the_map_is_linear(name):
    operator = OPERATORS[name]()
    assert isinstance(operator, operators.Operator)
    image = operator(jnp.asarray(X))
    y = RNG.standard_normal(image.shape)
    back = operator.transpose(jnp.asarray(y))
    assert back.shape == X.shape
    for i in range(2):  # and sample by sample
        np.testing.assert_allclose((image[i] * y[i]).sum(), (X[i] * back[i]).sum(), rtol=1e-12)
    np.testing.assert_allclose(operator(jnp.asarray(X + 2 * X[::-1])), image + 2 * image[::-1], atol=1e-12)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_the_grey_basis_is_orthonormal(channels):
    """Its first vector is grey, it keeps lengths, and its transpose is its inverse, all to rounding."""
    basis, x = operators.grey_basis(channels), RNG.standard_normal((2, 3, 3, channels))
    matrix = basis(jnp.eye(channels))
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(channels), atol=1e-15)
    np.testing.assert_allclose(matrix[:, 0], np.full(channels, channels**-0.5), atol=1e-15)
    np.testing.assert_allclose(basis(jnp.asarray(x))[..., 0], np.sqrt(channels) * x.mean(-1), atol=1e-14)
    np.testing.assert_allclose(basis.transpose(basis(jnp.asarray(x))), x, atol=1e-14)


def test_rows_are_as_orthogonal_as_is_said():
    for operator, scale in ((operators.mask(KNOWN), 1.0), (operators.average_pool(2), 0.25), (operators.grey(), 1 / 3)):
        y = jnp.asarray(RNG.standard_normal(operator(jnp.asarray(X)).shape))
        np.testing.assert_allclose(operator(operator.transpose(y)), scale * y, atol=1e-14)


def test_the_operations_are_numpys():
    x = jnp.asarray(X)
    np.testing.assert_array_equal(operators.mask(KNOWN)(x), X[:, KNOWN])
    np.testing.assert_allclose(operators.grey()(x)[..., 0], X.mean(-1), atol=1e-15)
    blocks = [[X[:, i : i + 2, j : j + 2].mean((1, 2)) for j in range(0, 6, 2)] for i in range(0, 4, 2)]
    np.testing.assert_allclose(operators.average_pool(2)(x), np.stack([np.stack(row, 1) for row in blocks], 1), atol=1e-15)
    for boundary, mode in (("circular", "wrap"), ("zero", "constant")):
        want = ndimage.convolve(X, KERNEL[None, :, :, None], mode=mode)
        np.testing.assert_allclose(operators.blur(KERNEL, boundary)(x), want, atol=1e-13)


@pytest.mark.parametrize("sides", [(5, 4), (3, 9), (20, 31), (10, 12)])
@pytest.mark.parametrize("kernel", ["linear", "cubic"])
def test_resized_images_are_pils_and_jaxs(kernel, sides):
    """Smaller and larger, by whole and by broken ratios."""
    x = RNG.random((10, 12))
    got = operators.resize(x.shape, sides, kernel)(jnp.asarray(x)[None, :, :, None])[0, :, :, 0]
    np.testing.assert_allclose(got, jax.image.resize(jnp.asarray(x), sides, kernel), atol=1e-6)
    resampling = {"linear": Image.Resampling.BILINEAR, "cubic": Image.Resampling.BICUBIC}[kernel]
    want = np.asarray(Image.fromarray(x.astype(np.float32)).resize(sides[::-1], resampling))
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("sides", [(5, 4), (3, 9), (20, 31), (10, 12)])
def test_area_is_the_mean_of_what_a_pixel_covers(sides):
    """Of an image whose pixels are divided until all sides are whole numbers of them."""
    x = RNG.random((10, 12))
    got = operators.resize(x.shape, sides, "area")(jnp.asarray(x)[None, :, :, None])[0, :, :, 0]
    fine = np.kron(x, np.ones(sides)).reshape(sides[0], 10, sides[1], 12)
    np.testing.assert_allclose(got, fine.mean((1, 3)), atol=1e-12)


def test_resize_without_antialiasing_reads_the_nearest_pixels_alone():
    x = jnp.asarray(RNG.random((1, 16, 16, 1)))
    got = operators.resize((16, 16), (4, 4), "linear", antialias=False)(x)
    np.testing.assert_allclose(got, jax.image.resize(x, (1, 4, 4, 1), "linear", antialias=False), atol=1e-12)
    assert np.abs(got - operators.resize((16, 16), (4, 4), "linear")(x)).max() > 0.01


REFUSED = {
    "a resize to nothing": (lambda: operators.resize((4, 4), (0, 2)), r"sides \(h, w\) of at least 1, got \(4, 4\) and \(0, 2\)"),
    "a resize of a line": (lambda: operators.resize((4,), (2, 2)), r"from sides \(H, W\)"),
    "an unknown kernel": (lambda: operators.resize((4, 4), (2, 2), "bicubic"), "unknown kernel of resize 'bicubic'"),
    "images of other sides": (lambda: operators.resize((4, 4), (2, 2))(jnp.asarray(X)), r"sides \(4, 4\), got \(4, 6\)"),
    "a mask of numbers": (lambda: operators.mask(np.ones(3)), "boolean array.*float64"),
    "an empty mask": (lambda: operators.mask(np.zeros(3, bool)), "True where entries are known.*with 0"),
    "another shape": (lambda: operators.mask(KNOWN)(jnp.zeros((2, 3))), r"of examples of shape \(4, 6, 3\), got \(3,\)"),
    "an odd side": (lambda: operators.average_pool(4)(jnp.asarray(X)), r"multiples of 4, got \(4, 6\)"),
    "a side of none": (lambda: operators.average_pool(0), "at least 1, got 0"),
    "an even kernel": (lambda: operators.blur(np.ones((2, 3))), r"odd sides.*got shape \(2, 3\)"),
    "an unknown boundary": (lambda: operators.blur(KERNEL, "same"), "'circular' and 'zero', got 'same'"),
    "a kernel of other axes": (lambda: operators.blur(np.ones(3))(jnp.asarray(X)), "with 1 axes is of examples"),
    "a matrix of other width": (lambda: operators.matrix(np.ones((2, 5)), (2, 2)), r"shape \(M, 4\).*got shape \(2, 5\)"),
    "one channel": (lambda: operators.grey_basis(1), "at least 2 channels, got 1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_in_one_sentence(name):
    make, words = REFUSED[name]
    with pytest.raises(ValueError, match=words) as error:
        make()
    assert "\n" not in str(error.value)
