"""What a run does between steps, and when."""

import pytest

from diffux.training.due import Due, due


def judge(step, state):
    """The held-out loss."""


def save(step, state):
    """A checkpoint."""


def store(step, state):
    """The averages."""


def draw(step, state):
    """A picture."""


WORK = [Due((4, 6), judge, leaving=False), Due((6,), save, leaving=True), Due((5,), store), Due((0,), draw, leaving=False)]


@pytest.mark.parametrize(
    ("step", "last", "leaving", "wanted"),
    [
        (1, False, False, []),
        (4, False, False, [judge]),
        (5, False, False, [store]),
        (6, False, False, [judge, save]),
        (30, False, False, [judge, save, store]),
        (7, True, False, [judge, save, store, draw]),  # the last step does all, what is never due otherwise as well
        (7, False, True, [save]),
        (5, False, True, [save, store]),
        (30, False, True, [save, store]),
    ],
)
def test_what_is_due_comes_in_the_order_of_the_work(step, last, leaving, wanted):
    """Never after 0 steps but at the end; a run that is leaving saves, and spends no time on what can be had later."""
    assert due(WORK, step, last, leaving) == wanted
