"""A trained model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from jax.sharding import Mesh

from diffux.conditions import Given
from diffux.config.plan import Plan
from diffux.errors import UserError, explained
from diffux.fields import Field, Label
from diffux.solvers import Sampled
from diffux.systems.system import generate
from diffux.systems.trainable import Variables, resolved
from diffux.types import pictures, reads


@dataclasses.dataclass(frozen=True)
class Run:
    """A run as it was saved.

    - system, variables: as `systems.generate` takes them; `variables.ema` is None where raw weights were wanted.
    - fields: of the data, as the loader hands them out. step, weights: which these are, "raw" or "ema 0.999".
    - mesh: the devices that samples are split over. parts: what it is built on, see `runs.folder.parts`.
    - walk: how `generate` draws, arguments of `systems.generate`; by default as the system does.
    """

    plan: Plan
    system: Any
    variables: Variables
    fields: Mapping[str, Field]
    step: int
    weights: str = "raw"
    mesh: Mesh | None = None
    parts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    walk: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def field(self) -> Field:
        """The field that is diffused, of the data or what a part makes of them."""
        known = self.fields if self.system.data in self.fields else self.system.given.known(self.fields)
        return known[self.system.data]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an example, (H, W, C) of an image."""
        return tuple(self.field.shape)

    @property
    def asks(self) -> dict[str, Field | None]:
        """What a request for samples may hold, {name: its field where that is known}: for the conditions, and for the guidance."""
        given = getattr(self.system, "given", Given())  # what can be trained need not be given anything
        known = given.fields(self.fields)
        spare = getattr(self.system, "only_trained", ())
        asked = {name: known.get(name) for name in given.asks if name not in spare}
        for part in self.walk.get("guidance") or getattr(self.system, "guidance", ()):
            for name, size in (reads(part) or {}).items():
                if name not in given.gives and name not in asked:
                    other = self.field if name in pictures(part) else None if size is None else Label(size)
                    asked[name] = self.fields.get(name) or other
        return asked

    @property
    def takes(self) -> tuple[str, ...]:
        """What a request may say besides, such as "low_level", how noisy a picture is."""
        return getattr(getattr(self.system, "given", None), "takes", ())

    @property
    def spares(self) -> tuple[str, ...]:
        """What of `asks` a request may leave out."""
        return tuple(getattr(getattr(self.system, "given", None), "spares", ()))

    def share(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What is for this model of fields that are given to several."""
        known = (*self.asks, *self.takes)
        return {name: value for name, value in given.items() if name in known}

    @property
    def frozen(self) -> Any:
        """The system with these weights, frozen: its parts may become parts of another."""
        return resolved(self.system, self.variables)

    @property
    def steps(self) -> int:
        """The steps of `generate`'s walk."""
        return self.walk.get("steps") or self.system.steps

    def generate(self, keys: Any, given: Mapping[str, Any] = {}, *, save: int | None = None,
                 progress: Callable[[int, int], None] | None = None, until: float | None = None,
                 start: tuple[Any, float] | None = None) -> Sampled:  # fmt: skip
        """A sample for each of `keys` (B,), of fields (B, ...) that are `given`; see `systems.generate`.

        Raises UserError for a run that is not sampled, and for fields that are missing or that nothing reads.
        """
        if not hasattr(self.system, "generate"):
            raise UserError(f"this run is a {type(self.system).__name__} ({self.plan.name}), which is not sampled")
        with explained():
            shape = (len(keys), *self.shape)
            return generate(keys, self.system, self.variables, shape, given, save=save, progress=progress, until=until,
                            start=start, **self.walk)  # fmt: skip
