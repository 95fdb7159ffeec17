"""Conditions: what a network is given, made from the fields of a batch in training and of a request in sampling alike."""

from diffux.conditions._alike import Alike, alike
from diffux.conditions._drawn import Hidden, covered, degraded, filled, hidden
from diffux.conditions._given import Given, given, labelled
from diffux.conditions._warped import warped
from diffux.conditions.parts import Part, applied, augmented, blurred, dropped, embedded, encoded, into, made, worded

__all__ = [
    "Alike", "Given", "Hidden", "Part", "alike", "applied", "augmented", "blurred", "covered", "degraded", "dropped", "embedded",
    "encoded", "filled", "given", "hidden", "into", "labelled", "made", "warped", "worded",
]  # fmt: skip
