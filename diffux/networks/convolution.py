"""The one convolution of all networks, and their matrix product: how layers apply a kernel, and what its gradient is.

XLA runs the two gradient convolutions of a loop body on CPU through a naive kernel, because their flipped windows and
permuted layouts are only made ordinary outside of loops; a scanned training step is then 2 to 60 times slower than the
same step outside. Here both gradients are written as ordinary convolutions of explicitly flipped and transposed
arrays, which XLA runs at full speed everywhere.

A kernel may be of a wider type than the computation. It is then narrowed to x's type, and so is its gradient, which
devices that share a batch sum up in that type; `weight_gradients` keeps it wide.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from diffux.networks.platform import platform

Array = Any
Shape = tuple[int, ...]
Padding = str | Sequence[tuple[int, int]]

_MOST, _LEAST = 8, 1024  # groups, and entries that a group contracts at least

plain_wanted = contextvars.ContextVar("plain_convolution", default=False)
_gradient_type: contextvars.ContextVar[Any] = contextvars.ContextVar("weight_gradients", default=None)


@contextlib.contextmanager
def plain_convolution() -> Iterator[None]:
    """Within this context the networks trace plain `lax.conv_general_dilated`, which forward mode can differentiate.

    The custom reverse rule of `convolution` refuses `jax.jvp` (and with it `jacfwd`, `hessian` and `linearize`).
    Enter the context where the function is *traced*: a function already compiled by `jax.jit` keeps its choice.

    Example:
        >>> x, kernel = jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1))
        >>> with plain_convolution():
        ...     _, tangent = jax.jvp(lambda x: convolution(x, kernel), (x,), (x,))
        >>> tangent.shape
        (1, 4, 4, 1)
    """
    token = plain_wanted.set(True)
    try:
        yield
    finally:
        plain_wanted.reset(token)


@contextlib.contextmanager
def weight_gradients(dtype: Any) -> Iterator[None]:
    """Within this context the gradients of layers' parameters are contracted to `dtype`, where that is wider than x's type.

    For computations in half precision with float32 parameters: under "float32" every product of x and dy that gives a
    parameter's gradient is accumulated and returned in float32, and so are sums of it over devices; under "bfloat16", and
    outside of the context, it is rounded to x's type. Enter the context where the function is *traced*. As with the
    reverse rule on CPU, such a layer refuses forward mode, which `plain_convolution` restores.

    Example:
        >>> x, kernel = jnp.ones((1, 4, 4, 1), jnp.bfloat16), jnp.ones((3, 3, 1, 1))
        >>> with weight_gradients("float32"):
        ...     step = jax.make_jaxpr(jax.grad(lambda kernel: convolution(x, kernel).sum()))(kernel)
        >>> "preferred_element_type=float32" in str(step)
        True
    """
    token = _gradient_type.set(jnp.dtype(dtype))
    try:
        yield
    finally:
        _gradient_type.reset(token)


def gradient_type(x: Array, parameter: Array) -> Any:
    """The type in which `parameter`'s gradient is contracted: x's, or a wider one that `weight_gradients` asks for."""
    wanted = _gradient_type.get()
    wide = wanted is not None and min(wanted.itemsize, parameter.dtype.itemsize) > x.dtype.itemsize
    return wanted if wide else x.dtype


def biased(y: Array, bias: Array) -> Array:
    """y (*b, features) + bias (features,), in y's type.

    Example:
        >>> biased(jnp.zeros((1, 2), jnp.bfloat16), jnp.arange(2.0)).dtype
        dtype(bfloat16)
    """
    if gradient_type(y, bias) != y.dtype:  # so that the gradient is widened before it is summed over positions
        bias = jnp.broadcast_to(bias, y.shape)
    return y + bias.astype(y.dtype)


def product(x: Array, kernel: Array, precision: Any = None, preferred_element_type: Any = None) -> Array:
    """The matrix product of x (*b, I) and kernel (I, O) in x's type: (*b, O).

    Example:
        >>> product(jnp.ones((2, 3, 4)), jnp.ones((4, 5))).shape
        (2, 3, 5)
    """
    wide = gradient_type(x, kernel)
    if plain_wanted.get() or wide == x.dtype:
        return _plain_product(x, kernel, precision, preferred_element_type)
    return _product(x, kernel, precision, preferred_element_type, wide)


def convolution(
    x: Array,
    kernel: Array,
    window_strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: int | Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
    **unusual: Any,
) -> Array:
    """`lax.conv_general_dilated` for channels-last arrays: x (B, *d, I) and kernel (*k, I, O) -> (B, *d', O).

    Any number of spatial axes. The arguments are those of `lax.conv_general_dilated`, so that the function also fits
    `flax.linen.Conv(conv_general_dilated=convolution)`; layouts other than channels-last and grouped convolutions are
    passed on to it. The computation is in x's type.

    On CPU the reverse rule is our own (see the module's docstring); elsewhere it is XLA's. The choice is made while
    tracing, by `platform()`.

    Raises:
        TypeError: under forward-mode differentiation on CPU or in `weight_gradients`; `plain_convolution` restores it.

    Example:
        >>> convolution(jnp.ones((2, 8, 6, 3)), jnp.ones((3, 3, 3, 5)), (2, 2)).shape
        (2, 4, 3, 5)
    """
    rank = x.ndim - 2
    layout = channels_last(x.ndim)
    ordinary = lax.conv_dimension_numbers(x.shape, kernel.shape, layout)
    numbers = lax.conv_dimension_numbers(x.shape, kernel.shape, dimension_numbers or layout)
    strides, spread, step = (_per_axis(value or 1, rank) for value in (window_strides, lhs_dilation, rhs_dilation))
    grouped = feature_group_count != 1 or batch_group_count != 1
    unpadded = isinstance(padding, str) and set(spread) != {1}
    if numbers != ordinary or grouped or unpadded or unusual:
        kernel = kernel.astype(x.dtype)
        return lax.conv_general_dilated(
            x, kernel, strides, padding, lhs_dilation, step, numbers, feature_group_count, batch_group_count, precision,
            preferred_element_type, **unusual,
        )  # fmt: skip
    if isinstance(padding, str):
        spans = [d * (size - 1) + 1 for d, size in zip(step, kernel.shape, strict=False)]
        padding = lax.padtype_to_pads(x.shape[1:-1], spans, strides, padding)
    window = Window(strides, tuple((int(low), int(high)) for low, high in padding), spread, step)
    if set(kernel.shape[:rank]) == {1} and set(window.padding) == {(0, 0)} and set(spread) == {1}:  # 1x1: a matrix product
        x = x[(slice(None), *(slice(None, None, stride) for stride in strides))]
        return product(x, kernel.reshape(kernel.shape[rank:]), precision, preferred_element_type)
    wide = gradient_type(x, kernel)
    if plain_wanted.get() or (platform() != "cpu" and wide == x.dtype):
        return _plain(x, kernel, window, precision, preferred_element_type)
    # where its gradient stays wide, the kernel is narrowed within the rule, or else before it
    return _convolve(x, kernel if wide != x.dtype else kernel.astype(wide), window, precision, preferred_element_type, wide)


class Window(NamedTuple):
    """How the kernel K walks over x, an entry an axis: y_p = sum_q K_q X_(stride p + step q - low), where X is x
    with `spread - 1` zeros between its entries, and `padding` is (low, high)."""

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    spread: tuple[int, ...]
    step: tuple[int, ...]

    def transposed(self, x: Shape, kernel: Shape) -> Window:
        """The window with which the flipped kernel walks over dy and gives dx:
        dx_i = sum_q K_(k-1-q) dY_(spread i + step q - (step (k - 1) - low))."""
        low = [d * (k - 1) - low for d, k, (low, _) in zip(self.step, kernel, self.padding, strict=True)]
        return Window(self.spread, self.padding, self.strides, self.step).giving(low, x=self.sizes(x, kernel), kernel=kernel, out=x)

    def exchanged(self, x: Shape, kernel: Shape) -> Window:
        """The window with which dy, as the kernel, walks over x and gives dK: dK_q = sum_p dy_p X_(step q + stride p - low)."""
        low = [low for low, _ in self.padding]
        return Window(self.step, self.padding, self.spread, self.strides).giving(low, x=x, kernel=self.sizes(x, kernel), out=kernel)

    def sizes(self, x: Shape, kernel: Shape) -> Shape:
        """The side lengths of y."""
        return tuple(
            (a * (n - 1) + low + high - d * (k - 1)) // s + 1 for n, k, s, (low, high), a, d in zip(x, kernel, *self, strict=True)
        )

    def giving(self, low: Sequence[int], *, x: Shape, kernel: Shape, out: Shape) -> Window:
        """This window with the padding that begins with `low` and gives exactly `out` entries."""
        high = [
            s * (m - 1) + d * (k - 1) - a * (n - 1) - l for m, k, n, l, s, _, a, d in zip(out, kernel, x, low, *self, strict=True)
        ]
        return self._replace(padding=tuple(zip(low, high, strict=True)))


def _plain(x, kernel, window, precision, dtype):
    kernel, layout = kernel.astype(x.dtype), channels_last(x.ndim)
    return lax.conv_general_dilated(x, kernel, *window, layout, precision=precision, preferred_element_type=dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def _convolve(x, kernel, window, precision, dtype, wide):
    return _plain(x, kernel, window, precision, dtype)


def _forward(x, kernel, window, precision, dtype, wide):
    return _plain(x, kernel, window, precision, dtype), (x, kernel)


def _backward(window, precision, dtype, wide, saved, dy):
    x, kernel = saved
    dy = dy.astype(x.dtype)
    gradients = _explicit_gradients if platform() == "cpu" else _implicit_gradients
    dx, dk = gradients(x, kernel.astype(x.dtype), dy, window, precision, dtype, wide)
    return dx.astype(x.dtype), dk.astype(kernel.dtype)


def _explicit_gradients(x, kernel, dy, window, precision, dtype, wide):
    """As convolutions of arrays that are flipped and transposed beforehand: as attributes of the convolution, the flips and
    transpositions cost its speed in loops on CPU."""
    sizes = x.shape[1:-1], kernel.shape[:-2]
    flipped = jnp.swapaxes(lax.rev(kernel, tuple(range(x.ndim - 2))), -1, -2)
    dx = _convolve(dy, flipped, window.transposed(*sizes), precision, dtype, dy.dtype)
    exchanged, groups = window.exchanged(*sizes), groups_of(dy.shape)

    def contracted(x, dy):  # x (I, *d, B) and dy (*d', B, O) -> (I, *k, O): the batch is contracted
        return _convolve(jnp.swapaxes(x, 0, -1), jnp.moveaxis(dy, 0, -2), exchanged, precision, wide, dy.dtype)

    dk = functools.reduce(jnp.add, map(contracted, jnp.split(x, groups), jnp.split(dy, groups)))
    return dx, jnp.moveaxis(dk, 0, -2)


def groups_of(shape: Shape) -> int:
    """In how many groups of images, one after the other, a kernel's gradient is contracted with dy of this shape (B, *d', O).

    The patches of many or large images do not fit the processor's caches together, and the products of a group that contracts
    less than `_LEAST` entries are too small (experiments/benchmarks/convolution.py --groups). What devices share stays whole.

    Example:
        >>> groups_of((8, 32, 32, 128)), groups_of((8, 16, 16, 256)), groups_of((8, 8, 8, 256))
        (8, 2, 1)
    """
    groups, entries = 1, math.prod(shape[:-1])
    while 2 * groups <= _MOST and shape[0] % (2 * groups) == 0 and entries >= 2 * groups * _LEAST and jax.device_count() == 1:
        groups *= 2
    return groups


def _implicit_gradients(x, kernel, dy, window, precision, dtype, wide):
    """As XLA's own rule has them, but for the type of dK."""
    (dx,) = jax.linear_transpose(lambda x: _plain(x, kernel, window, precision, None), x)(dy)
    axes = "0123456789"[: x.ndim - 2]
    layout = f"C{axes}N", f"I{axes}O", f"{axes}NC"  # the batch is what is contracted, and the channels of x stay
    exchanged = window.exchanged(x.shape[1:-1], kernel.shape[:-2])
    return dx, lax.conv_general_dilated(x, dy, *exchanged, layout, precision=precision, preferred_element_type=wide)


_convolve.defvjp(_forward, _backward)


def _plain_product(x, kernel, precision, dtype):
    return lax.dot_general(x, kernel.astype(x.dtype), (((x.ndim - 1,), (0,)), ((), ())), precision, dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _product(x, kernel, precision, dtype, wide):
    return _plain_product(x, kernel, precision, dtype)


def _product_forward(x, kernel, precision, dtype, wide):
    return _plain_product(x, kernel, precision, dtype), (x, kernel)


def _product_backward(precision, dtype, wide, saved, dy):
    x, kernel = saved
    dy, samples = dy.astype(x.dtype), tuple(range(x.ndim - 1))
    dx = lax.dot_general(dy, kernel.astype(x.dtype), (((x.ndim - 1,), (1,)), ((), ())), precision)
    dk = lax.dot_general(x, dy, ((samples, samples), ((), ())), precision, wide)
    return dx, dk.astype(kernel.dtype)


_product.defvjp(_product_forward, _product_backward)


def channels_last(rank: int) -> tuple[str, str, str]:
    """The layout (B, *d, C), (*k, I, O) -> (B, *d', C) of arrays with `rank` axes.

    Example:
        >>> channels_last(4)
        ('N01C', '01IO', 'N01C')
    """
    axes = "0123456789"[: rank - 2]
    return f"N{axes}C", f"{axes}IO", f"N{axes}C"


def _per_axis(value: int | Sequence[int], rank: int) -> tuple[int, ...]:
    return (int(value),) * rank if isinstance(value, int) else tuple(int(entry) for entry in value)
