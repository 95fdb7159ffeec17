"""A row of parts that turns the fields of a batch into conditions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
from flax import struct

from diffux import keys as rng
from diffux.conditions.parts import Part, dropped


@struct.dataclass
class Given:
    """The fields `names` as they are, and what `parts` make of others."""

    names: tuple[str, ...] = struct.field(pytree_node=False, default=())
    parts: tuple[Part, ...] = ()

    def __call__(self, keys, fields: Mapping[str, Any], train: bool, optional: tuple[str, ...] = ()) -> dict[str, Any]:
        """The conditions {name: (B, ...)} of fields {name: (B, ...)}, and "null" where a part drops some.

        keys: one key (), or a key a sample (B,). optional: entries that may be missing, because the network has a null for them.
        Raises ValueError for a field that is missing.
        """
        return self.run(keys, fields, train, optional)[1]

    def run(self, keys, fields: Mapping[str, Any], train: bool, optional: tuple[str, ...] = ()) -> tuple[dict, dict]:
        """(all fields after the last part, the conditions among them): a part may change the data as well, as `warped` does."""
        came, fields, missing = sorted(fields), dict(fields), []
        for name in self.names:
            if name not in fields and name not in optional:
                missing.append(name)
        for i, part in enumerate(self.parts):
            lacking = [name for name in part.needs(fields) if name not in fields]
            if lacking and not set(part.makes) <= {*optional, "null"}:
                missing += lacking
            elif not lacking:
                fields = part(rng.fold_in(keys, i) if i else keys, fields, train)
        if missing:
            raise ValueError(f"this model is given {' and '.join(self.asks)}, got {' and '.join(came) or 'nothing'}")
        return fields, {name: fields[name] for name in self.gives if name in fields}

    @property
    def gives(self) -> tuple[str, ...]:
        """The entries of the conditions."""
        return tuple(dict.fromkeys([*self.names, *(name for part in self.parts for name in part.makes)]))

    @property
    def asks(self) -> tuple[str, ...]:
        """The fields that a request for samples has: those that no part makes of others."""
        return tuple(dict.fromkeys(self._asks()))

    @property
    def takes(self) -> tuple[str, ...]:
        """What a request may say besides, such as how noisy a picture is."""
        return tuple(name for part in self.parts for name in getattr(part, "takes", ()))

    @property
    def spares(self) -> tuple[str, ...]:
        """What of `asks` a request may leave out, because a part has something in its place."""
        return tuple(name for part in self.parts for name in getattr(part, "spares", ()))

    def _asks(self) -> Iterator[str]:
        known: set[str] = set()
        yield from self.names
        for part in self.parts:
            yield from (name for name in part.asks if name not in known)
            known.update(part.makes)

    @property
    def drops(self) -> bool:
        """Whether training ever replaces a condition by its null."""
        return any(getattr(part, "ever", False) for part in self.parts)

    def fields(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """The `fields.Field` of every name in `asks`, from those of a data set; a name that it does not have is left out."""
        known = self.known(known)
        return {name: known[name] for name in self.asks if name in known}

    def known(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The `fields.Field` of all that the data have and that parts make of them."""
        known = dict(fields)
        for part in self.parts:
            known |= part.fields(known)
        return known

    def asked(self, batch: Mapping[str, Any], keys: Any = None) -> dict[str, Any]:
        """What a request would hold that asks for the examples of a batch: held-out rows show a model what it is asked.

        keys: (B,), of what parts draw, such as masks; by default always the same ones, so that a row is always asked the same.
        """
        fields = dict(batch)
        if keys is None:
            keys = rng.sample_keys(0, 0, len(jax.tree.leaves(fields)[0]) if fields else 0)
        for i, part in enumerate(self.parts):
            fields = part.asked(rng.fold_in(keys, i) if i else keys, fields) | fields  # what the batch has is not made
        return {name: fields[name] for name in self.asks if name in fields}

    def check(self, asked: Mapping[str, Any]) -> None:
        """Raise ValueError, in one sentence, where a request asks for what cannot be, in the words of the part that reads it."""
        for part in self.parts:
            part.check(asked)


def given(*row: str | Part) -> Given:
    """A row of conditions: a name is a field that is given as it is, a part makes entries of fields, in the written order.

    In training it reads a batch, in sampling what was asked; the same parts run in both. Example: super-resolution of images that
    are brought to the range of the diffusion, given("label", made("low", "image", average_pool(4)), into("low", pixels())).

    Example:
        >>> import jax
        >>> from diffux.conditions import dropped
        >>> row = given("label", dropped(0.1))
        >>> sorted(row(jax.random.key(0), {"label": jax.numpy.arange(3), "image": None}, True))
        ['label', 'null']
        >>> row.asks
        ('label',)
    """
    return Given(tuple(part for part in row if isinstance(part, str)), tuple(part for part in row if not isinstance(part, str)))


def labelled(classes: int | None, dropout: float, *parts: Part) -> Given:
    """The label of one of `classes`, null in training with the probability `dropout`, after `parts`; they alone where `classes` is
    None.

    Raises ValueError for what is no probability below 1, also where nothing is dropped.

    Example:
        >>> labelled(10, 0.1).asks, labelled(None, 0.1).asks
        (('label',), ())
    """
    part = dropped(dropout)
    return given(*parts) if classes is None else given("label", *parts, part)
