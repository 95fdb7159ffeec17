"""Averages of the parameters over training, several at once: exponential ones, and power functions of the step.

A power-function average weighs the parameters of step tau by tau^gamma (Karras et al., 2024, "Analyzing and improving the
training dynamics of diffusion models", sec. 3), so its width is a constant share `sigma_rel` of the run so far. From stored
snapshots of two of them an average of any other width is reconstructed after the run (their sec. 3.2).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffux.errors import UserError, unknown

PyTree = Any
WIDEST = 12**-0.5  # of the plain mean of all steps, gamma = 0


def relative_width(gamma: float) -> float:
    """sigma_rel: the standard deviation of the profile tau^gamma on [0, t], as a share of t (Karras et al., 2024, sec. 3.1).

    Example:
        >>> round(relative_width(6.94), 3), round(relative_width(16.97), 3)
        (0.1, 0.05)
    """
    return (gamma + 1) ** 0.5 / (gamma + 2) / (gamma + 3) ** 0.5


def exponent(sigma_rel: float) -> float:
    """gamma >= 0 of a relative width in (0, 12^-1/2]: the inverse of `relative_width`; UserError for others."""
    if not 0 < sigma_rel <= WIDEST:
        raise UserError(f"an average's relative width is above 0 and at most {WIDEST:.4f} (the mean of all steps), got {sigma_rel}")
    # (gamma + 2)^2 (gamma + 3) = (gamma + 1) sigma_rel^-2 has one root of at least 0 for these widths, its largest.
    square = sigma_rel**-2
    return max(0.0, float(np.roots([1, 7, 16 - square, 12 - square]).real.max()))


def exponential(decay: float, warmup: bool = True) -> Callable[[Any], Any]:
    """step -> 1 - min(decay, (1 + step) / (10 + step)), the latter with warm-up: the share of the new parameters.

    Without warm-up the average of a short run is mostly its initialisation.

    Example:
        >>> float(exponential(0.999)(0))
        0.8999999761581421
    """
    return lambda step: jnp.maximum(1 - decay, 9 / (10 + jnp.float32(step))) if warmup else jnp.float32(1 - decay)


def power_function(sigma_rel: float) -> Callable[[Any], Any]:
    """step -> 1 - beta(t) with beta(t) = (1 - 1/t)^(gamma + 1), t = step + 1 (Karras et al., 2024, sec. 3.1)."""
    power = exponent(sigma_rel) + 1
    # 1 - 1/t itself would leave float32 two digits of beta after a million steps.
    return lambda step: -jnp.expm1(power * jnp.log1p(-1 / (jnp.float32(step) + 1)))


@dataclasses.dataclass(frozen=True)
class Averages:
    """Which averages a run keeps, as a mapping name -> tree; `main` is the one for samples and the held-out loss.

    decay: of the exponential ones, called "0.999"; power: relative widths of the others, called "power_0.05".
    leave: the entries of the parameters of which none is kept, networks that nothing is sampled with.
    """

    decay: tuple[float, ...]
    power: tuple[float, ...] = ()
    warmup: bool = True
    main: str = ""
    leave: frozenset[str] = frozenset()

    def __post_init__(self):
        object.__setattr__(self, "main", self.main or self.names[0])

    @property
    def names(self) -> tuple[str, ...]:
        return (*(str(decay) for decay in self.decay), *map(power_name, self.power))

    def init(self, params: PyTree) -> dict[str, PyTree]:
        """Every average starts at the parameters."""
        # Copies, because the update donates its state and one buffer cannot be donated twice.
        return {name: jax.tree.map(jnp.copy, self._of(params)) for name in self.names}

    def _of(self, params: PyTree) -> PyTree:
        return {name: tree for name, tree in params.items() if name not in self.leave} if self.leave else params

    def update(self, averages: Mapping[str, PyTree], params: PyTree, step) -> dict[str, PyTree]:
        """The averages once the update after `step` earlier ones has led to `params`; each in its own dtype."""
        params = self._of(params)
        shares = [exponential(decay, self.warmup)(step) for decay in self.decay]
        shares += [power_function(sigma_rel)(step) for sigma_rel in self.power]

        def moved(old, share):
            # The form old + share (new - old) leaves a parameter that does not move exactly where it is.
            return jax.tree.map(lambda x, new: x + (share * (new.astype(x.dtype) - x)).astype(x.dtype), old, params)

        return {name: moved(averages[name], share) for name, share in zip(self.names, shares, strict=True)}

    @property
    def said(self) -> str:
        """The average that samples and the held-out loss take, in words: "ema 0.999"."""
        return said(self.main)

    def chosen(self, averages: Mapping[str, PyTree]) -> PyTree:
        """The average that samples and the held-out loss take."""
        return averages[self.main]

    def sampled(self, averages: Mapping[str, PyTree], params: PyTree) -> PyTree:
        """The `chosen` average, and of what none is kept the parameters themselves."""
        return {name: params[name] for name in self.leave} | dict(self.chosen(averages))

    def snapshot(self, averages: Mapping[str, PyTree]) -> dict[str, PyTree]:
        """The averages from which others can be reconstructed."""
        return {name: averages[name] for name in map(power_name, self.power)}


def said(name: str) -> str:
    """What weights are called that are the average of this name."""
    return f"ema {name}"


def power_name(sigma_rel: float) -> str:
    return f"power_{float(sigma_rel)}"


def power_width(name: str) -> float | None:
    """0.05 of "power_0.05", and None of what is no such name."""
    try:
        return float(name.removeprefix("power_")) if name.startswith("power_") else None
    except ValueError:
        return None


def kept(decay: Any, power: Any = (), warmup: bool = True, snapshot_every: int = 0,
         samples_from: str | float | None = None) -> Averages:  # fmt: skip
    """The averages that a run keeps, checked: `decay` and `power` as in `Averages`, or a number of each alone; `samples_from` is
    the name of the main one.

    Raises UserError where there is none, or what no average can be, and for snapshots without power functions.
    """

    def numbers(key, values):
        values = values if isinstance(values, list | tuple) else [values]
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UserError(f"config.ema.{key} must be a number, or several, got {value!r}")
        return tuple(map(float, values))

    decay, power = numbers("decay", decay), numbers("power", power)
    for value in decay:
        if not 0 <= value < 1:
            raise UserError(f"config.ema.decay must be at least 0 and below 1, at which nothing is ever averaged, got {value}")
    for value in power:
        if not 0 < value <= WIDEST:
            raise UserError(f"config.ema.power is relative widths, above 0 and at most {WIDEST:.4f} (all steps' mean), got {value}")
    if not decay + power:
        raise UserError("config.ema needs an average: a number in ema.decay, such as 0.999, or in ema.power, such as 0.05")
    made = Averages(decay, power, warmup)
    twice = [name for name in made.names if made.names.count(name) > 1]
    if twice:
        raise UserError(f"config.ema names the average {twice[0]} twice")
    if snapshot_every and not power:
        raise UserError("config.ema.snapshot_every stores the averages of ema.power, which names none; (0.05, 0.1) would do")
    if samples_from is not None:
        if str(samples_from) not in made.names:
            raise unknown("average (config.ema.samples_from)", str(samples_from), made.names)
        made = dataclasses.replace(made, main=str(samples_from))
    return made


def inner_product(step_a, gamma_a, step_b, gamma_b):
    """The integral of two profiles (gamma + 1) tau^gamma / step^(gamma + 1) on [0, step] (Karras et al., 2024, app. C)."""
    least, most = np.minimum(step_a, step_b), np.maximum(step_a, step_b)
    # As ratios of at most 1 nothing overflows.
    ratios = (least / step_a) ** gamma_a * (least / step_b) ** gamma_b / most
    return (gamma_a + 1) * (gamma_b + 1) / (gamma_a + gamma_b + 1) * ratios


def coefficients(steps: Sequence[int], widths: Sequence[float], step: int, sigma_rel: float) -> np.ndarray:
    """The weights (n,), of sum 1, whose sum of the profiles (steps[i], widths[i]) is nearest to the profile (step, sigma_rel).

    Nearest in L2 (Karras et al., 2024, algs. 2 and 3). They leave the sum of the weights free; tied to 1 it keeps what all
    snapshots share, most of a parameter in a short run, exactly.
    """
    t, gamma = np.asarray(steps, np.float64), np.array([exponent(width) for width in widths])
    wanted = exponent(sigma_rel)
    # Minimise |sum_i w_i p_i - p|^2 with a Lagrange multiplier for the sum, in units of |p_i|.
    unit = inner_product(t, gamma, t, gamma) ** -0.5
    gram = inner_product(t[:, None], gamma[:, None], t, gamma) * unit[:, None] * unit
    bordered = np.block([[gram, unit[:, None]], [unit, np.zeros(1)]])
    right = np.append(inner_product(t, gamma, float(step), wanted) * unit, 1)
    return np.linalg.lstsq(bordered, right)[0][:-1] * unit


def reconstruct(snapshots: Sequence[tuple[int, float, PyTree | Callable[[], PyTree]]], step: int, sigma_rel: float) -> PyTree:
    """The power-function average of relative width `sigma_rel` over the steps 1 .. `step`, from snapshots of others.

    snapshots: (step, sigma_rel, weights); weights that are a function are asked for one after the other, so that one
    snapshot at a time is in memory. The sum is made in float64 and has the snapshots' dtypes, as numpy arrays.
    Raises UserError where there is no snapshot.
    """
    if not snapshots:
        raise UserError(f"an average of relative width {sigma_rel} is reconstructed from snapshots, and there are none")
    weights = coefficients([found[0] for found in snapshots], [found[1] for found in snapshots], step, sigma_rel)

    def weighed(weight, tree):
        return jax.tree.map(lambda x: weight * np.asarray(x, np.float64), tree)

    total, like = None, None
    for weight, (_, _, tree) in zip(weights, snapshots, strict=True):
        tree = tree() if callable(tree) else tree
        term = weighed(weight, tree)
        total = term if total is None else jax.tree.map(np.add, total, term)
        like = like or jax.tree.map(lambda x: x.dtype, tree)
    return jax.tree.map(lambda x, dtype: x.astype(dtype), total, like)
