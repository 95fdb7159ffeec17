"""Schedules: t in [0, 1] -> noise level, continuous ones, tables of discrete chains, and transforms of either."""

from diffux.schedules.continuous import cosine, edm, falling, geometric, linear, rectified, sigmoid, sub_vp
from diffux.schedules.tables import (
    BETAS,
    cosine_betas,
    from_betas,
    learned_betas,
    linear_betas,
    quadratic_betas,
    scaled_linear_betas,
    warmup_betas,
)
from diffux.schedules.transforms import (
    OTHER,
    RECTIFIED,
    VARIANCE_EXPLODING,
    VARIANCE_PRESERVING,
    family,
    shifted,
    transformed,
    zero_terminal,
)

__all__ = [
    "BETAS", "OTHER", "RECTIFIED", "VARIANCE_EXPLODING", "VARIANCE_PRESERVING", "cosine", "cosine_betas", "edm", "falling",
    "family", "from_betas", "geometric", "learned_betas", "linear", "linear_betas", "quadratic_betas", "rectified",
    "scaled_linear_betas", "shifted", "sigmoid", "sub_vp", "transformed", "warmup_betas", "zero_terminal",
]  # fmt: skip
