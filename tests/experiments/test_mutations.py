"""The cases of the stress test meet every key and flag, and its own rules tell nonsense from sense."""

import math
import pathlib
import sys

import pytest

sys.path.append(str(pathlib.Path(__file__).parents[2] / "experiments"))

from stress import cases, mutations, rules

from diffux.config.schema import FLAGS, KEYS


def test_every_key_and_flag_has_its_turn():
    subjects = [*cases.keys(), *cases.flags()]
    met = {(one.of, one.name) for case in cases.cases(len(subjects), 5) for one, _ in case.changes}
    assert met == {(one.of, one.name) for one in subjects}
    assert {one.name for one in subjects} >= {*KEYS} - {"system"} and len(cases.cases(3, 1)) == 3


def test_every_key_has_a_rule_of_its_own_and_its_default_keeps_it():
    for one in cases.keys():
        assert rules.of(one.name)(one.key.default), (one.of, one.name)
    for name, key in FLAGS.items():
        assert key.default is None or rules.of("--n" if name == "judged" else f"--{name}")(key.default), name


@pytest.mark.parametrize(("name", "value"), [
    ("training.steps", 0), ("training.steps", True), ("training.steps", 2.0), ("seed", 2**32), ("system.dropout", 1.0),
    ("optimizer.learning_rate", math.nan), ("ema.decay", [0.9, 1.0]), ("data.size", [8]), ("data.flip", 1), ("--n", "0"),
    ("--tolerance", "inf"), ("--dtype", "float64"), ("--eta", "nan"),
])  # fmt: skip
def test_nonsense_that_was_taken_is_wrong(name, value):
    subject = next(one for one in [*cases.keys(), *cases.flags()] if one.name == name)
    flags = name.startswith("--")
    case = cases.Case("x", ["x"] if flags else None, None if flags else {}, [(subject, value)])
    (said,) = mutations.wrongs(case, {})
    assert said.startswith(f"{name} may not be")


def test_what_is_recorded_otherwise_is_wrong():
    steps = next(one for one in cases.keys() if one.name == "training.steps")
    case = cases.Case("x", None, {}, [(steps, 7)])
    assert not mutations.wrongs(case, {"config": {"training": {"steps": 7}}})
    assert "is recorded as 8" in mutations.wrongs(case, {"config": {"training": {"steps": 8}}})[0]
