"""Parts of a row of conditions: each makes entries of the fields that it reads, (keys, fields, train) -> fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct

from diffux import keys as rng
from diffux.codecs import Codec
from diffux.fields import Embedding
from diffux.noise_level import append_axes, level_dtype
from diffux.processes import Process
from diffux.types import as_part


@runtime_checkable
class Part(Protocol):
    """What makes some fields of others; by default it asks for the field `name` of its own, and makes the entry of that name."""

    @property
    def asks(self) -> tuple[str, ...]:
        """The fields that a request for samples must have for this part."""
        return (self.name,)

    @property
    def makes(self) -> tuple[str, ...]:
        """The entries that become conditions."""
        return (self.name,)

    @property
    def takes(self) -> tuple[str, ...]:
        """What a request may say besides, and need not."""
        return ()

    @property
    def spares(self) -> tuple[str, ...]:
        """What of `asks` a request may leave out all the same."""
        return ()

    def needs(self, fields: Mapping[str, Any]) -> tuple[str, ...]:
        """The names that must be among `fields` before the part can run."""
        return self.asks

    def __call__(self, keys, fields: dict[str, Any], train: bool) -> dict[str, Any]:
        """`fields` with the entries that the part makes; keys () or (B,)."""

    def fields(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """The `fields.Field` of what a request may have in the place of what a batch has, of those that are `known`."""
        return {}

    def asked(self, keys, fields: Mapping[str, Any]) -> dict[str, Any]:
        """What a request would have of the fields of a batch; keys as those of the call."""
        return {}

    def check(self, asked: Mapping[str, Any]) -> None:
        """Raise ValueError, in one sentence, where a request asks for what cannot be; numbers under `jit` are not looked at."""


class Derived(Part):
    """What makes its entry of the field `source`, as `asked` says, unless it is given; `beside` are other fields it looks at."""

    beside: tuple[str, ...] = ()

    def needs(self, fields):
        return (self.name,) if self.name in fields or self.source not in fields else (self.source, *self.beside)

    def __call__(self, keys, fields, train):
        return fields if self.name in fields else fields | self.asked(keys, fields)

    def fields(self, known):
        return {self.name: known[self.source]} if self.source in known else {}


@struct.dataclass
class Made(Derived):
    """fields[name] = operator(fields[source]), unless it is there."""

    name: str = struct.field(pytree_node=False)
    source: str = struct.field(pytree_node=False)
    operator: Callable

    def fields(self, known):
        if self.source not in known:
            return {}
        field = known[self.source]
        made = jax.eval_shape(self._apply, jax.ShapeDtypeStruct((1, *field.shape), field.dtype))
        return {self.name: dataclasses.replace(field, shape=made.shape[1:])}

    def asked(self, keys, fields):
        return {self.name: self._apply(jnp.asarray(fields[self.source]))} if self.source in fields else {}

    def _apply(self, x):
        # a mean of 8-bit values is one of numbers, which wrap around in their own type; the result is 8 bits again
        out = self.operator(x.astype(jnp.float32) if x.dtype == jnp.uint8 else x)
        if x.dtype != jnp.uint8 or out.dtype == bool:
            return out
        return jnp.clip(jnp.round(out), 0, 255).astype(jnp.uint8)  # a cubic kernel overshoots


def made(name: str, source: str, operator: Callable) -> Made:
    """`name` as operator(the field `source`), (B, *d) -> (B, *d'), unless it is given: what a task does to its data.

    In training the operator, such as one of `diffux.operators`, makes the small, grey or masked image of the example; a request
    for samples gives it. 8-bit images stay 8-bit images.

    Example:
        >>> from diffux.operators import average_pool
        >>> part = made("low", "image", average_pool(2))
        >>> part(None, {"image": jnp.full((1, 2, 2, 1), 200, jnp.uint8)}, True)["low"].tolist()
        [[[[200]]]]
    """
    return Made(name, source, as_part(operator))


@struct.dataclass
class Applied(Part):
    """fields[to] = operator(fields[name])."""

    name: str = struct.field(pytree_node=False)
    operator: Callable
    to: str = struct.field(pytree_node=False)
    stays: bool = struct.field(pytree_node=False, default=True)

    @property
    def makes(self):
        return (self.to,)

    def __call__(self, keys, fields, train):
        others = {key: value for key, value in fields.items() if self.stays or key != self.name}
        return others | {self.to: self.operator(fields[self.name])}


def applied(name: str, operator: Callable, to: str | None = None, stays: bool = True) -> Applied:
    """operator(the field `name`) in the place of the field, in training and in sampling: a small picture at the sides of the large
    one, say, applied("low", operators.rescale(4)). With `to` the result is an entry of that name, and the field `stays` or goes."""
    return Applied(name, as_part(operator), name if to is None else to, stays)


@struct.dataclass
class Blurred(Part):
    """fields[name] blurred in training, a share of the samples, by a Gaussian of random width."""

    name: str = struct.field(pytree_node=False)
    low: Any
    high: Any
    share: Any
    side: int = struct.field(pytree_node=False)

    def __call__(self, keys, fields, train):
        if not train:
            return fields
        x, keys = fields[self.name], rng.fold_in(keys, 0)  # 1 and more make the keys of the parts after the first
        stds = self.low + (self.high - self.low) * rng.uniform(rng.fold_in(keys, 0), x.shape[:1])
        chosen = rng.uniform(rng.fold_in(keys, 1), x.shape[:1]) < self.share
        at = jnp.arange(self.side) - self.side // 2
        weights = jnp.exp(-0.5 * (at / stds[:, None]) ** 2)
        weights = jnp.where(chosen[:, None], weights / weights.sum(1, keepdims=True), at == 0).astype(x.dtype)
        for axis in (1, 2):
            margin = [(0, 0)] * x.ndim
            margin[axis] = (self.side // 2, self.side // 2)
            wide, length = jnp.pad(x, margin, mode="edge"), x.shape[axis]
            x = sum(append_axes(weights[:, i], x) * jax.lax.slice_in_dim(wide, i, i + length, axis=axis) for i in range(self.side))
        return fields | {self.name: x}


def blurred(name: str, low: float = 0.4, high: float = 0.6, share: float = 0.5, side: int = 3) -> Blurred:
    """The field `name`, floats (B, H, W, C), blurred in training and not in sampling: a `share` of the samples, each by a Gaussian
    kernel of `side` pixels with a standard deviation uniform between `low` and `high` pixels (Ho et al., 2022, "Cascaded diffusion
    models", sec. 3.1). The picture's border is continued by its last pixels.

    Raises ValueError unless 0 < low <= high and 0 <= share <= 1, and for a side that is not odd.
    """
    if not (0 < low <= high and 0 <= share <= 1):
        raise ValueError(f"blurred needs 0 < low <= high pixels and a share from 0 to 1, got {low}, {high} and {share}")
    if side < 1 or side % 2 == 0:
        raise ValueError(f"a kernel's side is an odd number of pixels, got {side}")
    return Blurred(name, low, high, share, int(side))


@struct.dataclass
class Into(Part):
    """fields[name] = codec.encode(fields[name])."""

    name: str = struct.field(pytree_node=False)
    codec: Codec

    def __call__(self, keys, fields, train):
        return fields | {self.name: self.codec.encode(keys, fields[self.name], {})}


def into(name: str, codec: Codec) -> Into:
    """The field `name` in the space of a codec: pixels in the range of the diffusion, or latents of another model."""
    return Into(name, codec)


@struct.dataclass
class Encoded(Part):
    """The `entries` = net(fields[name])."""

    name: str = struct.field(pytree_node=False)
    net: Callable
    entries: tuple[str, ...] = struct.field(pytree_node=False)

    @property
    def makes(self):
        return self.entries

    def fields(self, known):
        _knows(self.net, self.name, known)
        return {}

    def __call__(self, keys, fields, train):
        out = self.net(fields[self.name])
        return fields | dict(zip(self.makes, out if isinstance(out, tuple) else (out,), strict=True))


def _knows(net: Any, name: str, known: Mapping[str, Any]) -> None:
    """Raise ValueError where the data have more tokens than a network of texts: those behind would all be read as its last one."""
    mine, theirs = getattr(getattr(net, "module", None), "vocabulary", None), getattr(known.get(name), "categories", None)
    if mine is not None and theirs is not None and theirs > mine:
        raise ValueError(f"the system knows {mine:,} tokens of {name}, and the data have {theirs:,}: make it know as many, or take "
                         f"fewer by data.options vocabulary={mine}")  # fmt: skip


def encoded(name: str, net: Callable, makes: Sequence[str] | None = None) -> Encoded:
    """What a network, such as a text encoder, makes of the field `name`: one entry of that name, or several, `makes`, of which it
    returns a tuple. A frozen net stays as it is; one whose weights are `Learned` is trained with the system.
    """
    return Encoded(name, net, (name,) if makes is None else tuple(makes))


@struct.dataclass
class Worded(Part):
    """fields[to] = net(fields[name]), and its null = net(fields[other]), of `tokens` where there is no such field."""

    name: str = struct.field(pytree_node=False)
    other: str = struct.field(pytree_node=False)
    net: Callable
    tokens: Any
    to: str = struct.field(pytree_node=False, default="text")

    @property
    def makes(self):
        return (self.to, f"null_{self.to}")

    @property
    def asks(self):
        return (self.name, self.other)

    @property
    def spares(self):
        return (self.other,)

    def needs(self, fields):
        return (self.name,)

    def __call__(self, keys, fields, train):
        found, like = self.net(fields[self.name]), fields[self.name]
        if self.other in fields:
            return fields | dict(zip(self.makes, (found, self.net(fields[self.other])), strict=True))
        none = jnp.broadcast_to(jnp.asarray(self.tokens, like.dtype), like.shape[1:])
        return fields | dict(zip(self.makes, (found, jnp.broadcast_to(self.net(none[None]), found.shape)), strict=True))

    def fields(self, known):
        _knows(self.net, self.name, known)
        return {self.other: known[self.name]} if self.name in known else {}


def worded(name: str, other: str, net: Callable, tokens: Any, to: str = "text") -> Worded:
    """`to`, (B, ...), as a text encoder makes it of the field `name`, tokens (B, L); and "null_<to>", what it makes of the field
    `other`, a text that stands for none or is not wanted, or where that is not given of `tokens` (L,), those of the empty text."""
    return Worded(name, other, net, tokens, to)


@struct.dataclass
class Embedded(Derived):
    """fields[name] = see(fields[source]), unless it is there."""

    name: str = struct.field(pytree_node=False)
    source: str = struct.field(pytree_node=False)
    see: Callable
    data: bool = struct.field(pytree_node=False, default=False)

    @property
    def asks(self):
        return () if self.data else (self.name,)

    @property
    def makes(self):
        return self.asks

    def needs(self, fields):
        return () if self.data else super().needs(fields)

    def fields(self, known):
        if self.source not in known:
            return {}
        field = known[self.source]
        seen = jax.eval_shape(self.see, jax.ShapeDtypeStruct((1, *field.shape), field.dtype))
        return {self.name: Embedding(seen.shape[1:])}

    def asked(self, keys, fields):
        return {self.name: self.see(jnp.asarray(fields[self.source]))} if self.source in fields else {}


def embedded(name: str, source: str, see: Callable, data: bool = False) -> Embedded:
    """`name`, (B, ...), as an encoder makes it of the field `source`, see(data (B, *d)), unless it is given: a request gives it.

    data: where it is no condition but what is diffused, which training makes of the source, and a request does not say.
    """
    return Embedded(name, source, as_part(see), data)


@struct.dataclass
class Augmented(Part):
    """fields[name] ~ q(x_t | fields[name]), and the level's t."""

    name: str = struct.field(pytree_node=False)
    process: Process
    most: Any
    level: Any

    @property
    def makes(self):
        return (self.name, f"{self.name}_level")

    @property
    def takes(self):
        return (f"{self.name}_level", f"{self.name}_noised")

    def __call__(self, keys, fields, train):
        told, noised = self.takes
        x = fields[self.name]
        if noised in fields:
            if fields[noised].shape != x.shape or told not in fields:
                raise ValueError(f"{noised} has the shape of {self.name} where its noise is added, {x.shape}, and goes with "
                                 f"{told}, got the shape {fields[noised].shape} with {', '.join(sorted(fields))}")  # fmt: skip
            level = jnp.broadcast_to(jnp.asarray(fields[told], level_dtype(x)), x.shape[:1])
            return fields | {self.name: fields[noised].astype(x.dtype), told: level}
        keys = rng.fold_in(keys, 0)  # 1 and more make the keys of the parts after the first
        if train:
            t = self.most * rng.uniform(rng.fold_in(keys, 0), x.shape[:1], level_dtype(x))
        else:
            t = jnp.broadcast_to(jnp.asarray(fields.get(told, self.level), level_dtype(x)), x.shape[:1])
        noised = self.process.marginal(x, self.process.schedule(t)).sample(rng.fold_in(keys, 1))
        return fields | {self.name: noised, told: t}


def augmented(name: str, process: Process, most: float = 1.0, level: float = 0.0) -> Augmented:
    """The field `name` with noise of a random level t in [0, `most`] in training, and of t = `level` in sampling unless
    "`name`_level" is given, which is also what the network is told (Ho et al., 2022, "Cascaded diffusion models", sec. 3).

    After `into`, so that the noise meets data of the range that the process is for. Where "`name`_noised" is given it is taken as
    it is, as x_t of "`name`_level": a walk that stopped there has left that noise (truncated augmentation, sec. 3.2).
    """
    for what, t in (("most", most), ("level", level)):
        if isinstance(t, int | float) and not 0 <= t <= 1:
            raise ValueError(f"augmented takes times from 0 to 1, got {what} = {t}")
    return Augmented(name, process, most, level)


@struct.dataclass
class Dropped(Part):
    """fields["null"]: in training, at random, all conditions together or each by itself."""

    everything: Any
    each: tuple[Any, ...]
    names: tuple[str, ...] = struct.field(pytree_node=False)
    asks = ()
    makes = ("null",)

    @property
    def ever(self) -> bool:
        """Whether anything is ever dropped; numbers under `jit` are not looked at."""
        return any(isinstance(share, jax.core.Tracer) or share > 0 for share in (self.everything or 0, *self.each))

    def __call__(self, keys, fields, train):
        if not fields:
            return fields
        batch = len(jax.tree.leaves(fields)[0])

        def flags(keys, share):
            return rng.uniform(keys, (batch,)) < share if train else jnp.zeros(batch, bool)

        if not self.names:
            return fields | {"null": flags(keys, self.everything)}
        own = rng.fold_in(keys, 0)  # 1 and more make the keys of the parts after the first
        each = {name: flags(rng.fold_in(own, i) if i else keys, share)
                for i, (name, share) in enumerate(zip(self.names, self.each, strict=True))}  # fmt: skip
        if self.everything is not None:
            whole = flags(rng.fold_in(own, len(self.names)), self.everything)
            each = {name: flag | whole for name, flag in each.items()}
        before = fields.get("null", {})
        if not isinstance(before, Mapping):
            raise ValueError(f"conditions are dropped all together or by name, and {' and '.join(self.names)} would be both")
        return fields | {"null": {**before, **each}}


def dropped(everything: float | None = None, **each: float) -> Dropped:
    """Conditions that are null in training, each sample's with a probability (Ho and Salimans, 2022, alg. 1).

    `everything`: that of all together, dropped(0.1); by name, of each by itself, dropped(text=0.1, image=0.5). Both may be given,
    and those by name of several parts add up.
    Raises ValueError for what is no probability below 1, and where nothing is dropped.
    """
    for name, share in {"everything": everything, **each}.items():
        if share is not None and not 0 <= share < 1:
            raise ValueError(f"the dropout of {name} is a probability 0 <= p < 1, got {share}")
    if everything is None and not each:
        raise ValueError("dropped needs a probability, dropped(0.1), or one by name, dropped(label=0.1)")
    return Dropped(everything, tuple(each.values()), tuple(each))
