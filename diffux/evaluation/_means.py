"""Means over examples with their standard errors, ready for JSON."""

from __future__ import annotations

from typing import Any

import numpy as np


def mean(values: np.ndarray) -> dict[str, Any]:
    """Of (draws, N, ...): the mean over N examples of each one's mean over draws."""
    each = values.mean(0)
    return {"value": each.mean(0).tolist(), "standard_error": np.asarray(_error(each)).tolist()}


def ratio(values: np.ndarray, of: np.ndarray) -> dict[str, float]:
    """The mean of (draws, N) over that of (1, N), with the error of a quotient of means, to first order."""
    each, of = values.mean(0), of.mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = each.mean() / of.mean()
        return {"value": float(value), "standard_error": float(_error(each - value * of) / of.mean())}


def excess(variances: np.ndarray, over: np.ndarray) -> dict[str, float]:
    """The root of the mean of variances (draws, N) less that of others (1, N), negative where that is, with half of what it changes
    by when the difference does by its error, either way."""
    each = variances.mean(0) - over.mean(0)
    middle, error = each.mean(), _error(each)
    return {"value": _root(middle), "standard_error": (_root(middle + error) - _root(middle - error)) / 2}


def _root(variance: float) -> float:
    return float(np.sign(variance) * np.sqrt(abs(variance)))


def _error(each: np.ndarray) -> Any:
    """The standard error of the mean of (N, ...); 0 of one."""
    if len(each) == 1:
        return np.zeros(each.shape[1:])
    with np.errstate(invalid="ignore"):  # of infinite ones, such as the PSNR of equal images
        return each.std(0, ddof=1) / np.sqrt(len(each))
