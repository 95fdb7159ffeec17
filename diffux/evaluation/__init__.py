"""Evaluation: what samples are worth, beside held-out real data and data that are surely wrong.

Example:
    >>> from diffux import evaluation
    >>> result = evaluation.evaluate(images, "digits")   # doctest: +SKIP
    >>> rich.print(evaluation.table(result))             # doctest: +SKIP
"""

from diffux.errors import EvaluationError
from diffux.evaluation.frechet import Moments, feature_distance, frechet_distance, moments
from diffux.evaluation.judges import Judge, judge
from diffux.evaluation.kinds import evaluate
from diffux.evaluation.neighbours import nearest_distances
from diffux.evaluation.points import sliced_wasserstein
from diffux.evaluation.tables import table

__all__ = [
    "EvaluationError",
    "Judge",
    "Moments",
    "evaluate",
    "feature_distance",
    "frechet_distance",
    "judge",
    "moments",
    "nearest_distances",
    "sliced_wasserstein",
    "table",
]
