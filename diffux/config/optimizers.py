"""Any optax optimizer by its name, with a learning-rate schedule and warm-up, for all parameters or for groups of them."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from diffux.config.schema import KEYS, check_value
from diffux.errors import UserError, unknown
from diffux.naming import make

# lbfgs needs to evaluate the loss again inside its update, and the others take no schedule of the learning rate.
_UNFIT = frozenset({"lbfgs", "optimistic_adam", "rprop", "sm3"})


@functools.cache
def names() -> tuple[str, ...]:
    """The optimizers that can be asked for: the functions of optax that take a learning rate."""

    def takes_learning_rate(value) -> bool:
        try:
            return inspect.isfunction(value) and "learning_rate" in inspect.signature(value).parameters
        except (TypeError, ValueError):
            return False

    public = (name for name in dir(optax) if not name.startswith(("_", "scale_by_")))
    return tuple(name for name in public if name not in _UNFIT and takes_learning_rate(getattr(optax, name)))


def halved(parts: int = 2) -> Callable[[Any], Any]:
    """The peak rate in the first of `parts` equal parts of the run, and in each other half as much as in the one before.

    Raises ValueError for fewer than one part.
    """
    if parts < 1:
        raise ValueError(f"a rate is halved in 1 part of a run or more, got {parts}")
    return lambda done: 0.5 ** jnp.minimum(jnp.floor(parts * done + 1e-6), parts - 1)


SCHEDULES: dict[str, Callable[..., Callable[[Any], Any]]] = {
    "constant": lambda: jnp.ones_like,
    "cosine": lambda: lambda done: 0.5 * (1 + jnp.cos(jnp.pi * done)),
    "linear": lambda: lambda done: 1 - done,
    "halved": halved,
}
"""What makes learning-rate shapes: the share of the run that is done, in [0, 1] -> the share of the peak rate."""


def learning_rate_of(peak: float, shape: str, warmup: int, steps: int) -> Callable[[Any], Any]:
    """step -> rate: linear from peak/warmup over `warmup` steps, then `shape` over the rest of `steps`.

    Example:
        >>> rate = learning_rate_of(1.0, "cosine", warmup=10, steps=110)
        >>> [round(float(rate(step)), 3) for step in (0, 9, 60, 110)]
        [0.1, 1.0, 0.5, 0.0]
    """
    curve = make("learning-rate schedule", shape, SCHEDULES)

    def rate(step):
        step = jnp.asarray(step, jnp.float32)
        done = jnp.clip((step - warmup) / max(1, steps - warmup), 0, 1)
        return peak * jnp.minimum(1, (step + 1) / max(1, warmup)) * curve(done)

    return rate


def optimizer(
    name: str, rate: Callable[[Any], Any], options: Mapping[str, Any] | None = None
) -> optax.GradientTransformationExtraArgs:
    """The optax optimizer called `name` at the learning rate `rate(step)`.

    Raises UserError for a name that optax does not have, and for options that the optimizer does not take.
    """
    if name not in names():
        raise unknown("optimizer", name, names())
    build, options = getattr(optax, name), dict(options or {})
    accepted = [key for key in inspect.signature(build).parameters if key != "learning_rate"]
    for key in options:
        if key not in accepted:
            raise unknown(f"option of optimizer {name}", key, accepted)
    try:
        return optax.with_extra_args_support(build(learning_rate=rate, **options))
    except TypeError as error:
        raise UserError(f"optimizer {name} cannot be built: {error}") from error


FROZEN = "frozen"


@dataclasses.dataclass(frozen=True)
class Group:
    """The parameters whose path `pattern` is found in, by `re.search`, and how they are trained; None where they are not."""

    pattern: str
    transformation: optax.GradientTransformation | None
    rate: Callable[[Any], Any] | None = None
    clip: float | None = None


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """What turns gradients into updates: each parameter belongs to the first of `groups` that fits, the last of which fits all."""

    groups: tuple[Group, ...]

    def rate(self, step: Any) -> Any:
        """The learning rate of the parameters that no pattern names."""
        return self.groups[-1].rate(step)

    def init(self, params: Any) -> Any:
        """The state before the first update. Raises UserError for a pattern that fits no parameter, and where all are frozen."""
        found = set(jax.tree.leaves(self._labels(params)))
        for i, group in enumerate(self.groups[:-1]):
            if str(i) not in found:
                raise UserError(f"no parameter is left for the pattern {group.pattern!r} of optimizer.groups; their paths are like "
                                f"{', '.join(_paths(params)[:3])}")  # fmt: skip
        if all(self.groups[int(label)].transformation is None for label in found):
            raise UserError("optimizer.groups freezes every parameter, and nothing is left to train")
        return self._transformation.init(params)

    def trained(self, params: Any) -> Any:
        """`params` as the loss sees them: no gradient reaches the frozen ones."""
        if all(group.transformation for group in self.groups):
            return params
        return jax.tree.map(lambda x, label: x if self.groups[int(label)].transformation else jax.lax.stop_gradient(x),
                            params, self._labels(params))  # fmt: skip

    def update(self, gradients: Any, state: Any, params: Any, value: Any) -> tuple[Any, Any, dict[str, Any]]:
        """(updates, next state, the norms of the gradients before they are clipped: "grad_norm" of all, and of every group)."""
        norms = {"grad_norm": optax.global_norm(gradients)}
        if len(self.groups) == 1:
            gradients = _clipped(gradients, norms["grad_norm"], self.groups[0].clip)
        else:
            labels = self._labels(params)
            for i, group in enumerate(self.groups):
                if group.transformation is not None:
                    mine = [x for x, label in zip(*map(jax.tree.leaves, (gradients, labels)), strict=True) if label == str(i)]
                    norms[f"grad_norm/{group.pattern or 'others'}"] = norm = optax.global_norm(mine)
                    clipped = functools.partial(_clipped, norm=norm, clip=group.clip)
                    gradients = jax.tree.map(lambda x, label, i=i, f=clipped: f(x) if label == str(i) else x, gradients, labels)
        updates, state = self._transformation.update(gradients, state, params, value=value)
        return updates, state, norms

    @property
    def _transformation(self) -> optax.GradientTransformationExtraArgs:
        if len(self.groups) == 1:
            return optax.with_extra_args_support(self.groups[0].transformation)
        each = {str(i): group.transformation or optax.set_to_zero() for i, group in enumerate(self.groups)}
        return optax.partition(each, self._labels)

    def _labels(self, params: Any) -> Any:
        """The number of each parameter's group, as a string."""

        def label(path, _):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            return next(str(i) for i, group in enumerate(self.groups) if re.search(group.pattern, name))

        return jax.tree_util.tree_map_with_path(label, params)


def _paths(params: Any) -> list[str]:
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree_util.tree_leaves_with_path(params)]


def _clipped(gradients: Any, norm: Any, clip: float | None) -> Any:
    if clip is None:
        return gradients
    # One factor for all leaves fuses into the optimizer's arithmetic; a separate transformation compiles a second's worth of
    # small kernels more.
    factor = jnp.where(norm > clip, clip / norm, 1)
    return jax.tree.map(lambda x: (x * factor).astype(x.dtype), gradients)


def made(steps: int, name: str = "adam", learning_rate: float = 1e-3, schedule: str = "constant", warmup: int = 0,
         clip: float | None = None, options: Mapping[str, Any] | None = None, groups: Any = ()) -> Optimizer:  # fmt: skip
    """The optimizer of a run of `steps`: one for all parameters, or others for `groups` of them.

    groups: pairs of a pattern that is searched in a parameter's path, such as "network/label", and "frozen" or the settings that
    differ, {"learning_rate": 1e-4}; the first that fits decides. Each group is clipped by its own norm.
    Raises UserError for names and options that do not exist, and for groups of another form.

    Example:
        >>> made(100, groups=[("judge/", {"learning_rate": 1e-4}), ("head", "frozen")]).groups[1].transformation is None
        True
    """
    own = {"name": name, "learning_rate": learning_rate, "schedule": schedule, "warmup": warmup, "clip": clip, "options": options}

    def group(pattern: str, settings: Mapping[str, Any]) -> Group:
        rate = learning_rate_of(settings["learning_rate"], settings["schedule"], settings["warmup"], steps)
        return Group(pattern, optimizer(settings["name"], rate, settings["options"]), rate, settings["clip"])

    found = []
    for pair in groups if isinstance(groups, list | tuple) else [groups]:
        pattern, settings = pair if isinstance(pair, list | tuple) and len(pair) == 2 else (None, None)
        if not isinstance(pattern, str) or not (settings == FROZEN or isinstance(settings, Mapping)):
            raise UserError(f"optimizer.groups is pairs of a pattern and 'frozen' or settings, got {pair!r}")
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"the pattern {pattern!r} of optimizer.groups is no regular expression: {error}") from error
        if settings == FROZEN:
            found.append(Group(pattern, None))
            continue
        for key, value in settings.items():
            if key not in own:
                raise unknown("setting of optimizer.groups", key, own)
            known = KEYS[f"optimizer.{key}"]
            check_value(f"config.optimizer.groups.{key}", known, value)
            if known.open and not isinstance(value, Mapping):
                raise UserError(f"config.optimizer.groups.{key} is a section of settings, got {value!r}")
        # options belong to an optimizer: another one begins without
        fresh = {"options": None} if "name" in settings else {}
        found.append(group(pattern, own | fresh | dict(settings)))
    return Optimizer((*found, group("", own)))
