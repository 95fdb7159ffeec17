"""Evaluation: what samples are worth, beside held-out real data and data that are surely wrong.

One file per evaluation, with `evaluate(sets, real)` that yields `Figure`s; a field or a data set names those that suit it.

Example:
    >>> from diffux import evaluation
    >>> result = evaluation.evaluate(images, "digits")   # doctest: +SKIP
    >>> rich.print(evaluation.table(result))             # doctest: +SKIP
"""

from diffux.errors import EvaluationError
from diffux.evaluation import bound, likelihood, pairs, perceptual
from diffux.evaluation._evaluate import Result, evaluate, evaluations
from diffux.evaluation._table import table
from diffux.evaluation.figure import Figure, Real, share
from diffux.evaluation.frechet import Moments, feature_distance, frechet_distance, moments
from diffux.evaluation.judges import Features, Judge, judge
from diffux.evaluation.neighbours import nearest_distances
from diffux.evaluation.points import sliced_wasserstein

__all__ = [
    "EvaluationError", "Features", "Figure", "Judge", "Moments", "Real", "Result", "bound", "evaluate", "evaluations",
    "feature_distance", "frechet_distance", "judge", "likelihood", "moments", "nearest_distances", "pairs", "perceptual", "share",
    "sliced_wasserstein", "table",
]  # fmt: skip
