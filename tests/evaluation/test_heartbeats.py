"""The share of periodic sequences, on sequences made to be so and not to be so."""

import io
import itertools
import json

import numpy as np
import pytest
from rich.console import Console

from diffux import data, evaluation
from diffux.errors import EvaluationError
from diffux.evaluation import heartbeats


def beats(*phases):
    values = np.zeros((len(phases), 20), np.float32)
    for row, phase in zip(values, phases, strict=True):
        row[phase::5] = 1
    return values


def test_a_made_up_set_gets_the_figures_that_it_has():
    values = beats(0, 0, 1, 4, 2, 2, 2, 3)
    values[4, 0] = 1  # one too many
    values[5, [2, 7]] = 0  # two too few
    values[6] = 0  # all four gone
    figures = evaluation.evaluate(values, "heartbeats", controls=False).rows["generated"]
    assert figures["count"] == 8 and figures["periodic"] == 5 / 8
    assert figures["phases"] == [2 / 8, 1 / 8, 0, 1 / 8, 1 / 8]
    assert figures["off_by"] == [5 / 8, 1 / 8, 1 / 8, 0, 1 / 8]
    assert figures["ones"] == pytest.approx((5 * 4 + 5 + 2) / 160)


def test_distances_are_counted_bit_by_bit():
    values = np.random.default_rng(0).integers(0, 2, (30, 20))
    wanted = [[sum(a != b for a, b in zip(row, beat, strict=True)) for beat in beats(*range(5))] for row in values]
    assert heartbeats.distances(values).tolist() == wanted


@pytest.mark.parametrize(("length", "period"), [(6, 3), (7, 3), (5, 4)])
def test_chance_is_the_sum_over_all_sequences(length, period):
    total = 0.0
    for bits in itertools.product((0, 1), repeat=length):
        if heartbeats.distances([bits], period).min() == 0:
            total += np.prod([0.3 if bit else 0.7 for bit in bits])
    assert heartbeats.by_chance(0.3, length, period) == pytest.approx(total, rel=1e-12)


def test_chance_of_heartbeats():
    assert heartbeats.by_chance(0.2) == pytest.approx(5 * 0.2**4 * 0.8**16, rel=1e-12)


@pytest.fixture(scope="module")
def evaluated():
    return evaluation.evaluate(data.arrays(data.load("heartbeats"), 1000)["bits"], "heartbeats")


def test_real_sequences_are_all_periodic_and_independent_bits_are_not(evaluated):
    rows = evaluated.rows
    assert list(rows) == ["generated", "held_out", "independent"]
    for name in ("generated", "held_out"):
        assert rows[name]["periodic"] == 1 and rows[name]["off_by"] == [1.0] and rows[name]["ones"] == 0.2
        assert 0.15 < min(rows[name]["phases"]) and sum(rows[name]["phases"]) == pytest.approx(1)
    independent = rows["independent"]
    assert independent["count"] == 1000 and independent["ones"] == pytest.approx(0.2, abs=5 * np.sqrt(0.16 / 20_000))
    assert evaluated.about["independent_share"] == pytest.approx(5 * 0.2**4 * 0.8**16)
    assert independent["periodic"] < evaluated.about["independent_share"] + 5 * np.sqrt(evaluated.about["independent_share"] / 1000)


def test_the_control_has_the_share_that_is_expected():
    rows = evaluation.evaluate(np.resize(beats(0, 1), (300_000, 20)), "heartbeats").rows
    expected = 5 * 0.2**4 * 0.8**16
    assert rows["independent"]["periodic"] == pytest.approx(expected, abs=5 * np.sqrt(expected / 300_000))


def test_everything_is_told(evaluated):
    said = evaluated.as_json()
    assert json.loads(json.dumps(said)) == said and said["period"] == 5
    console = Console(width=110, record=True, file=io.StringIO())
    console.print(evaluation.table(evaluated))
    text = " ".join(console.export_text().split())
    for words in ("heartbeats", "generated samples", "held-out real data", "independent bits", "100.00%", "2.25e-04"):
        assert words in text


def test_a_codec_may_turn_what_is_compared_with():
    samples = 1 - beats(0, 1, 2)
    rows = evaluation.evaluate(samples, "heartbeats", controls=False, through=lambda values: 1.0 - values).rows
    assert list(rows) == ["generated", "held_out"]
    assert rows["held_out"]["periodic"] == 0 and rows["held_out"]["ones"] == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((4, 21)), r"heartbeats is evaluated on sequences \(N, 20\): .*got \(4, 21\)"),
        (np.zeros((1, 20)), "at least 2 sequences, got 1"),
        (np.full((4, 20), 0.5), r"zeros and ones, got values such as \[0.5\]"),
        (np.full((4, 20), np.nan), "finite numbers, got some that are infinite or not a number"),
        (np.full((4, 20), "a"), "are numbers, got <U1"),
    ],
)
def test_sequences_that_cannot_be_judged_are_refused(samples, message):
    with pytest.raises(EvaluationError, match=message):
        evaluation.evaluate(samples, "heartbeats")
