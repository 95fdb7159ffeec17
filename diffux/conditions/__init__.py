"""Conditions: pure functions (frozen, key, batch, train) -> (x, cond) that say what of a batch is data and what is given."""

from diffux.conditions.fields import of
from diffux.conditions.labels import Labelled, labelled, unconditional

__all__ = ["Labelled", "labelled", "of", "unconditional"]
