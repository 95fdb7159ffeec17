"""The same samples at several scales of guidance."""

import ast

import pytest

from diffux.errors import UserError
from diffux.sampling import sweep


@pytest.mark.parametrize(("guidance", "want"), [
    (None, {}), ([3.0], {}), (["classifier_free(3)"], {}), (["not a call"], {}), (["classifier_free(3, drop=('text',))"], {}),
    (["classifier_free([0,1,2.5])"], {number: [f"classifier_free({number})"] for number in ("0", "1", "2.5")}),
    (["between(classifier_free([1, 2]), 0.3)", "temperature(0.9)"],
     {number: [f"between(classifier_free({number}), 0.3)", "temperature(0.9)"] for number in ("1", "2")}),
    (["classifier_free(2)", "temperature(temperature=[0.9, 1])"],
     {number: ["classifier_free(2)", f"temperature(temperature={number})"] for number in ("0.9", "1")}),
])  # fmt: skip
def test_a_list_stands_for_each_of_its_numbers(guidance, want):
    assert sweep.variants(guidance) == want
    assert all(ast.parse(word) for chain in want.values() for word in chain if isinstance(word, str))


@pytest.mark.parametrize(("guidance", "said"), [
    (["between(classifier_free([1, 2]), [0.3, 1])"], "one number of the guidance can be a list, got 2 lists"),
    (["classifier_free([1])"], "two or more different numbers, got [1]"),
    (["classifier_free([1, 1])"], "two or more different numbers, got [1, 1]"),
    (["classifier_free(3, drop=['text', 'label'])"], "two or more different numbers, got ['text', 'label']"),
])  # fmt: skip
def test_other_lists_are_refused(guidance, said):
    with pytest.raises(UserError) as raised:
        sweep.variants(guidance)
    assert said in str(raised.value)
