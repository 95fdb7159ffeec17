"""The one kind of error a user should read: a single sentence saying what came, what was wanted and what would fit."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator

# What parts raise for what does not fit, and numpy and jax for a number that is too large to begin with.
REFUSALS = (ValueError, TypeError, OverflowError, MemoryError)


class UserError(ValueError):
    """A mistake of the user's, told in one sentence; scripts print it after `error:` and exit with `status`."""

    status = 2


class Diverged(UserError):
    """The loss or the gradient stopped being finite."""

    status = 3


class Lost(UserError):
    """Another process of the run is missing or gone; the same command, started again on all hosts, may well work."""

    status = 75  # EX_TEMPFAIL of sysexits.h


class StorageFailed(UserError):
    """The system refused to write something of a run that was going on: the disk is full, say."""

    status = 4


class DoesNotFit(UserError):
    """The training step needs more memory than a device has."""

    status = 5


class DataError(UserError):
    """A data set that cannot be had: what was asked, what was found, what would fit."""


class NoSplit(DataError):
    """A data set without the split that was asked for."""


class EvaluationError(UserError):
    """Samples or a data set that cannot be evaluated: what came and what would fit."""


def unknown(what: str, name: object, known: Iterable[str]) -> UserError:
    """The error for a name that is not among `known`, with the near matches first.

    Example:
        >>> raise unknown("solver", "ddmi", ["ddim", "heun"])
        Traceback (most recent call last):
        diffux.errors.UserError: unknown solver 'ddmi'; did you mean 'ddim'? Known: ddim, heun
    """
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else "."
    return UserError(f"unknown {what} {str(name)!r}{hint} Known: {', '.join(known)}")


def one_sentence(error: BaseException) -> str:
    """The message of an error on one line, or its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


@contextlib.contextmanager
def explained(what: str = "") -> Iterator[None]:
    """Turn the errors by which every part refuses what does not fit into UserErrors."""
    try:
        yield
    except UserError:
        raise
    except REFUSALS as error:
        raise UserError(what + one_sentence(error)) from error
