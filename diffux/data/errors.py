"""The one error of this package."""


class DataError(ValueError):
    """A data set that cannot be had, in one sentence: what was asked, what was found, what would fit."""
