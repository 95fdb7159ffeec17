"""Words into parts: literals are parsed, nothing is evaluated, and what does not fit is refused in one sentence."""

import pytest

from diffux import naming
from diffux.errors import UserError

MADE = []


def power(process, gamma: float = 1.0, over: str = "all", drop: tuple = ()):
    MADE.append(1)
    return process, gamma, over, drop


FINISHED = object()
PARTS = {"power": power, "finished": FINISHED}


def make(spec):
    return naming.make("weighting", spec, PARTS, process="the process")


@pytest.mark.parametrize("text, want", [
    ("power", ("the process", 1.0, "all", ())),
    ("power(3)", ("the process", 3, "all", ())),
    (" power(2.5, wanted) ", ("the process", 2.5, "wanted", ())),
    ("power(gamma=-1e-3, drop=('a', 'b'))", ("the process", -1e-3, "all", ("a", "b"))),
    ("power(2, drop=['a'])", ("the process", 2, "all", ("a",))),
    ({"name": "power", "gamma": 2}, ("the process", 2, "all", ())),
])  # fmt: skip
def test_a_word_a_call_of_literals_and_a_mapping_name_a_part(text, want):
    """The context fills the arguments that it knows, which a call's numbers pass over."""
    assert make(text) == want


def test_a_finished_part_and_a_part_as_it_is():
    assert make("finished") is FINISHED
    assert make(FINISHED) is FINISHED


@pytest.mark.parametrize("text", [
    "power(__import__('os'))", "power(gamma=__import__('os').getpid())", "power(open('made.txt', 'w'))", "power((lambda: 1)())",
    "power([i for i in (1, 2)])", "power(1 if 1 else 2)", "power(f'{1}')", "power(*(1, 2))", "power(**{'gamma': 2})",
    "os.system('true')", "power(1)(2)", "power[1]", "power(2); power(3)", "power(x := 3)", "power(", "1 + 1", "'power'",
    "power(" + "(" * 5000 + ")" * 5000 + ")",
])  # fmt: skip
def test_nothing_is_evaluated(text, tmp_path, monkeypatch):
    """Whatever is no name and no call of literals is refused, in one short sentence, and nothing has been made."""
    monkeypatch.chdir(tmp_path)
    before = len(MADE)
    with pytest.raises(UserError, match=r"^a weighting is a name, or a call of numbers and words") as error:
        make(text)
    assert "\n" not in str(error.value) and len(str(error.value)) < 250
    assert len(MADE) == before and not list(tmp_path.iterdir())


@pytest.mark.parametrize("spec, words", [
    ("powr(3)", "unknown weighting 'powr'; did you mean 'power'"),
    ("power(gama=3)", "unknown option of weighting power 'gama'; did you mean 'gamma'"),
    ("power(3, gamma=3)", "weighting power got gamma twice"),
    ("power('much')", "gamma of weighting power must be a number, got 'much'"),
    ("power(True)", "gamma of weighting power must be a number, got True"),
    ("power(1, 2, 3, 4)", "at most 3 arguments, got 4"),
    ("finished(2)", "the weighting finished takes no arguments, got 2"),
    ({"gamma": 3}, "a weighting given as a mapping needs its name"),
    ("", "unknown weighting ''"),
])  # fmt: skip
def test_what_does_not_fit_is_said(spec, words):
    with pytest.raises(UserError) as error:
        make(spec)
    assert words in str(error.value) and "\n" not in str(error.value)
