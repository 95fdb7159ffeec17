"""The one error of this package."""


class EvaluationError(ValueError):
    """Images or a data set that cannot be evaluated, in one sentence: what came and what would fit."""
