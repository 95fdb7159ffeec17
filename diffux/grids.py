"""Grids: the levels that a solver visits, `grid(schedule, steps)` -> NoiseLevel with fields (steps + 1,), noisiest first.

Every grid here ends at the clean level (0, 1, 0) unless its docstring says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffux.noise_level import NoiseLevel, clean
from diffux.schedules import VARIANCE_PRESERVING, family
from diffux.types import Grid, Schedule


def _levels(schedule: Schedule, t) -> NoiseLevel:
    """The schedule's levels at decreasing times t (n,), followed by the clean one."""
    level = schedule(jnp.asarray(t, jnp.result_type(float)))
    return NoiseLevel(*(jnp.append(jnp.asarray(field), end) for field, end in zip(level, clean(), strict=True)))


def _steps(steps: int, most: int | None = None) -> int:
    if int(steps) != steps or steps < 1:
        raise ValueError(f"a grid needs a whole number of steps of at least 1, got {steps}")
    if most is not None and steps > most:
        raise ValueError(f"a chain of {most} steps cannot be sampled in {steps}: ask for at most {most}")
    return int(steps)


@struct.dataclass
class Uniform:
    """Times uniform in t, up to an end or up to the clean level."""

    start: Any
    end: Any

    def __call__(self, schedule: Schedule, steps: int) -> NoiseLevel:
        n = _steps(steps)
        t = np.linspace(self.start, 0, n + 1)[:-1] if self.end is None else np.linspace(self.start, self.end, n)
        return _levels(schedule, t)


def uniform(start: float = 1.0, end: float | None = None) -> Uniform:
    """Times linspace(start, 0, steps + 1) whose last is the clean level; with `end`, linspace(start, end, steps), then clean.

    `uniform(end=0.0)` is NCSN's geometric list on the `geometric` schedule, whose t = 0 still has sigma_min.
    """
    if not 0 < start <= 1 or (end is not None and not 0 <= end < start):
        raise ValueError(f"a uniform grid needs 0 <= end < start <= 1, got start {start} and end {end}")
    return Uniform(start, end)


_EDGE = 1e-3  # from t = 0 and 1, where log-SNR may be infinite


def _along(schedule: Schedule, start, end, steps: int, between: Callable[[Any, Any, int], Any]) -> NoiseLevel:
    """The levels at the log-SNRs between(first, last, n) from t = start to t = end (None: to the cleanest that is finite).

    Where log-SNR is not finite at `start`, or falls so fast there that levels would share a time, `start` itself comes first and
    the others begin at _EDGE below it.
    """
    start, n = jnp.asarray(start, jnp.result_type(float)), _steps(steps)
    if end is None:
        end = jnp.where(jnp.isfinite(schedule(jnp.zeros_like(start)).log_snr), 0.0, _EDGE)
    first, slope = jax.jvp(lambda t: schedule(t).log_snr, (start,), (jnp.ones_like(start),))
    inner, last = schedule(jnp.stack([start - _EDGE, end])).log_snr
    apart = 4 * jnp.finfo(start.dtype).eps * jnp.abs(slope) * n < last - first  # false where either is infinite
    after = jnp.where(apart, between(first, last, n)[1:], between(inner, last, n - 1))
    return _levels(schedule, jnp.append(start, schedule.inverse(after)))


@struct.dataclass
class LogSNR:
    """Times uniform in log-SNR."""

    start: Any
    end: Any

    def __call__(self, schedule: Schedule, steps: int) -> NoiseLevel:
        return _along(schedule, self.start, self.end, steps, jnp.linspace)


def log_snr(start: float = 1.0, end: float = 1e-3) -> LogSNR:
    """Levels uniform in log-SNR from t = start to t = end, then clean (Lu et al., 2022, sec. 3.3).

    Where log-SNR is -inf at `start`, or falls there too steeply for the floats that times are, the first level is t = start and the
    others are uniform from t = start - 1e-3.
    """
    if not 0 < end < start <= 1:
        raise ValueError(f"a log-SNR grid needs 0 < end < start <= 1, got end {end} and start {start}")
    return LogSNR(start, end)


def exponential(start: float = 1.0, end: float = 1e-3) -> LogSNR:
    """log(sigma / alpha) uniform from t = start to t = end, then clean: `log_snr` under the name k-diffusion gives it."""
    return log_snr(start, end)


@struct.dataclass
class Karras:
    """sigma^(1/rho) uniform between two times."""

    rho: Any
    start: Any
    end: Any

    def __call__(self, schedule: Schedule, steps: int) -> NoiseLevel:
        def between(first, last, n):
            return -2 * self.rho * jnp.log(jnp.linspace(*(jnp.exp(-0.5 * end / self.rho) for end in (first, last)), n))

        return _along(schedule, self.start, self.end, steps, between)


def karras(rho: float = 7.0, start: float = 1.0, end: float | None = None) -> Karras:
    """(sigma / alpha)^(1/rho) uniform from t = start to t = end, then clean (Karras et al., 2022, eq. 5).

    `end` is by default 0 where there is still noise, as in EDM's schedule, and 1e-3 where t = 0 is clean data. A schedule that is
    -inf or too steep in log-SNR at `start` is walked as by `log_snr`. Raises ValueError unless 0 <= end < start <= 1 and rho > 0.
    """
    if not (0 <= (end or 0) < start <= 1 and rho > 0):
        raise ValueError(f"a Karras grid needs 0 <= end < start <= 1 and rho > 0, got end {end}, start {start} and rho {rho}")
    return Karras(rho, start, end)


@struct.dataclass
class Discrete:
    """Integer steps of a chain of T."""

    steps: int = struct.field(pytree_node=False)
    spacing: str = struct.field(pytree_node=False)
    offset: int = struct.field(pytree_node=False)
    above: bool = struct.field(pytree_node=False)
    last: str = struct.field(pytree_node=False)

    def __call__(self, schedule: Schedule, steps: int) -> NoiseLevel:
        total, n = self.steps, _steps(steps, self.steps - self.above)
        index = self._index(n + 1)[:-1] if self.above else self._index(n)
        if index[0] + self.offset >= total:
            raise ValueError(f"{n} steps of a chain of {total}, {self.offset} further up, begin above its end: ask for fewer")
        levels = _levels(schedule, (index + self.offset + 1) / total)
        if self.last == "clean":
            return levels
        first = schedule(jnp.asarray(1 / total, levels.t.dtype))
        return NoiseLevel(*(field.at[-1].set(value) for field, value in zip(levels, first, strict=True)))

    def _index(self, n: int) -> np.ndarray:
        """Code indices, 0 .. T - 1, falling."""
        total = self.steps
        if self.spacing == "linspace":  # both ends included
            index = np.round(np.linspace(0, total - 1, n))[::-1] if n > 1 else np.array([total - 1.0])
        elif self.spacing == "trailing":
            index = np.round(np.arange(n, 0, -1) * (total / n)) - 1
        elif self.spacing == "leading":
            index = (np.arange(n) * (total // n))[::-1]
        else:
            index = (np.linspace(0, np.sqrt(0.8 * total), n) ** 2).astype(int)[::-1]
            for i in range(n - 2, -1, -1):  # the squares repeat an index at the clean end of a long grid
                index[i] = max(index[i], index[i + 1] + 1)
        return index


def discrete(steps: int = 1000, spacing: str = "linspace", offset: int = 0, above: bool = False, last: str = "clean") -> Discrete:
    """`n` of the `steps` = T steps t = i / T of a discrete chain, then clean.

    With n = T it is the chain itself. Otherwise, in code indices i - 1: "linspace" 0 .. T - 1 with both ends (Nichol
    and Dhariwal, 2021), "trailing" T - 1, ... in strides of T / n (Lin et al., 2024), "leading" 0, T // n, ... (Song et
    al., 2020, "uniform"), "quadratic" (linspace(0, sqrt(0.8 T), n))^2 (Song et al., 2020, "quad").

    Stable Diffusion's walks have an `offset`, which moves all indices up, and for a `last` level "first" end at the chain's first,
    i = 1, and not clean. `above`: n + 1 indices, but the lowest (Lu et al., 2022, code). Raises ValueError for another spacing or
    end, and where an offset leaves the chain.
    """
    fits = ("linspace", "trailing", "leading", "quadratic")
    if spacing not in fits:
        raise ValueError(f"discrete grids have the spacings {', '.join(fits)}; got {spacing!r}")
    if last not in ("clean", "first") or offset < 0:
        raise ValueError(f"a discrete grid ends clean or first, at an offset from 0 on, got {last!r} and {offset}")
    return Discrete(int(steps), spacing, int(offset), bool(above), last)


def sections(steps: int = 1000, counts: Sequence[int] = (10, 10, 3, 2, 2), highest: int | None = None) -> Given:
    """A chain of `steps` in equal parts, the cleanest first, of each of which so many steps are taken, with both ends, then clean
    (Nichol and Dhariwal, 2021, code).

    highest: the code index i - 1 of the noisiest step, where it is not the chain's last: GLIDE's 27 steps of its enlarging model
    are sections(1000, (10, 10, 3, 2, 2), 997). Raises ValueError for parts that have not so many steps, and for a highest one that
    is not above the one before.

    Example:
        >>> from diffux import schedules
        >>> (20 * sections(20, (3, 2))(schedules.linear()).t).round().astype(int).tolist()
        [20, 11, 10, 5, 1, 0]
    """
    parts = np.array_split(np.arange(steps), max(len(counts), 1))
    if not counts or any(not 1 <= count <= len(part) for count, part in zip(counts, parts, strict=True)):
        raise ValueError(f"sections of a chain of {steps} have {[len(part) for part in parts]} steps, got {tuple(counts)} of them")
    places = (np.round(np.linspace(0, len(part) - 1, count)) for count, part in zip(counts, parts, strict=True))
    index = np.concatenate([part[place.astype(int)] for part, place in zip(parts, places, strict=True)])
    before = index[-2] if len(index) > 1 else -1
    index[-1] = index[-1] if highest is None else highest
    if not before < index[-1] < steps:
        raise ValueError(f"the highest step of these sections is above {before} and below {steps}, got {highest}")
    return given((index[::-1] + 1) / steps)


@struct.dataclass
class Betas:
    """The levels of another chain."""

    beta_min: Any
    beta_max: Any

    def fits(self, system) -> None:
        schedule = system.process.schedule
        if (kind := family(schedule)) != VARIANCE_PRESERVING:
            name = type(schedule).__name__
            raise ValueError(f"a grid of betas needs a variance preserving schedule, got {name}, which is {kind}")

    def __call__(self, schedule: Schedule, steps: int) -> NoiseLevel:
        log_alpha = 0.5 * jnp.cumsum(jnp.log1p(-jnp.linspace(self.beta_min, self.beta_max, _steps(steps))))[::-1]
        alpha, sigma = jnp.exp(log_alpha), jnp.sqrt(-jnp.expm1(2 * log_alpha))
        t = jnp.clip(schedule.inverse(2 * (log_alpha - jnp.log(sigma))), 0, 1)
        return NoiseLevel(*(jnp.append(field, end) for field, end in zip((t, alpha, sigma), clean(), strict=True)))


def betas(beta_min: float = 1e-4, beta_max: float = 0.09) -> Betas:
    """The levels of a chain of as many steps as the walk, with betas linear from `beta_min` to `beta_max`, then clean: how models
    are walked whose network is told alpha^2, whatever chain they were trained on (Saharia et al., 2021, sec. 2.4; Saharia et al.,
    2022, "Palette", app. B, with these numbers and 1000 steps).

    t is where the model's own schedule has that noise, or 1 where it never has so much. Raises ValueError unless both lie strictly
    between 0 and 1; a model whose schedule is not variance preserving refuses it.

    Example:
        >>> from diffux import schedules
        >>> (betas(0.5, 0.75)(schedules.linear(), 2).alpha ** 2).round(3).tolist()
        [0.125, 0.5, 1.0]
    """
    if not (0 < beta_min < 1 and 0 < beta_max < 1):
        raise ValueError(f"a grid of betas needs both ends strictly between 0 and 1, got {beta_min} and {beta_max}")
    return Betas(beta_min, beta_max)


@struct.dataclass
class Given:
    """Times as given."""

    t: Any

    def __call__(self, schedule: Schedule, steps: int | None = None) -> NoiseLevel:
        if steps is not None and steps != len(self.t):
            raise ValueError(f"the given grid has {len(self.t)} steps, {steps} were asked for")
        return _levels(schedule, self.t)


def given(t) -> Given:
    """The times t (n,), strictly decreasing and above 0, then clean."""
    t = np.asarray(t, np.float64)
    if t.ndim != 1 or t.size == 0 or not np.all(np.diff(t) < 0) or t[-1] <= 0:
        raise ValueError(f"a given grid needs times strictly decreasing and above 0, got {t.tolist()}")
    return Given(tuple(t.tolist()))


def check(levels: NoiseLevel, path: str = "falls") -> None:
    """Refuse levels that are not a path of this kind, "falls", "rises" or "any": ValueError names the first place that is wrong."""
    noise = np.asarray(levels.sigma, np.float64) / np.maximum(np.asarray(levels.alpha, np.float64), 1e-30)
    if noise.ndim != 1 or noise.size < 2:
        raise ValueError(f"sampling needs levels of shape (steps + 1,) with at least 1 step, got shape {noise.shape}")
    change = np.diff(noise)
    wrong = np.flatnonzero(~{"falls": change < 0, "rises": change > 0, "any": np.abs(change) > 0}[path])
    if wrong.size:
        i, way = int(wrong[0]), {"falls": "strictly decreasing", "rises": "strictly increasing", "any": "changing"}[path]
        hint = "; grids.ascending(levels) turns a sampling grid round" if path == "rises" else ""
        raise ValueError(f"this solver needs levels of {way} noise, got sigma / alpha = {noise[i]:.4g} "
                         f"followed by {noise[i + 1]:.4g} at step {i}{hint}")  # fmt: skip


def until(levels: NoiseLevel, last: NoiseLevel) -> NoiseLevel:
    """The levels (n + 1,) that are noisier than `last`, and `last` itself (): a walk that stops there.

    Raises ValueError where none is.
    """
    noisier = np.flatnonzero(np.asarray(levels.log_snr) < float(last.log_snr))
    if not noisier.size:
        raise ValueError(f"this walk begins with less noise than where it is to stop, t = {float(last.t):g}")
    return NoiseLevel(*(jnp.append(field[noisier], end) for field, end in zip(levels, last, strict=True)))


def ascending(levels: NoiseLevel) -> NoiseLevel:
    """A sampling grid's levels (n + 1,) from the cleanest to the noisiest, for `ddim_inversion`."""
    return NoiseLevel(*(field[::-1] for field in levels))


@struct.dataclass
class Resampled:
    """A grid with jumps back up."""

    grid: Grid
    jump: int = struct.field(pytree_node=False)
    resamples: int = struct.field(pytree_node=False)

    def __call__(self, schedule: Schedule, steps: int) -> NoiseLevel:
        levels = self.grid(schedule, steps)
        path, last = [0], levels.t.shape[0] - 1
        left = dict.fromkeys(range(last - 1, self.jump - 1, -self.jump), self.resamples - 1)
        while path[-1] < last:
            path.append(path[-1] + 1)
            if left.get(path[-1], 0):
                left[path[-1]] -= 1
                path.extend(range(path[-1] - 1, path[-1] - 1 - self.jump, -1))
        return NoiseLevel(*(field[np.asarray(path)] for field in levels))


def resampled(grid: Grid, jump: int = 10, resamples: int = 10) -> Resampled:
    """`grid` with jumps of `jump` steps back up: the last noisy level, and every `jump`-th before it, is reached `resamples` times
    (Lugmayr et al., 2022, app. B, and code). The walk is longer than `steps`; a solver that walks up as well, `repaint`, takes it.

    Raises ValueError for a jump or a number of resamples below 1.

    Example:
        >>> from diffux import schedules
        >>> (10 * resampled(uniform(), 2, 2)(schedules.linear(), 5).t).round().astype(int).tolist()
        [10, 8, 6, 8, 10, 8, 6, 4, 2, 4, 6, 4, 2, 0]
    """
    if jump < 1 or resamples < 1:
        raise ValueError(f"resampled needs a jump and a number of resamples of at least 1, got {jump} and {resamples}")
    return Resampled(grid, int(jump), int(resamples))
