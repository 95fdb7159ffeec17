"""Rows of conditions: what they make in training, and that a request for samples is a batch without the data."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from scipy import ndimage

from diffux import codecs, schedules, systems
from diffux.conditions import applied, augmented, blurred, dropped, encoded, given, into, made
from diffux.keys import sample_keys
from diffux.operators import average_pool, rescale, shrink
from diffux.processes import Gaussian
from diffux.systems.trainable import Variables
from diffux.types import Learned, Net

pytestmark = pytest.mark.usefixtures("quick")

KEY, PROCESS = jax.random.key(0), Gaussian(schedules.linear())
N = 6
BATCH = {"image": np.random.default_rng(0).integers(0, 256, (N, 4, 4, 1), np.uint8), "label": np.arange(N) % 3,
         "text": np.random.default_rng(1).normal(size=(N, 5)).astype(np.float32)}  # fmt: skip
KERNEL = np.random.default_rng(2).normal(size=(5, 2)).astype(np.float32)
POOL = made("low", "image", average_pool(2))
ENCODER = Net(nn.Dense(2, use_bias=False), {"kernel": KERNEL})


class Pair(nn.Module):
    """Two outputs of one network."""

    def __call__(self, x):
        return x.sum(-1), 2 * x


ROWS = {
    "as it is": given("label"),
    "made": given("label", POOL),
    "into": given(POOL, into("low", codecs.pixels())),
    "augmented": given(POOL, into("low", codecs.pixels()), augmented("low", PROCESS, level=0.3)),
    "encoded": given("label", encoded("text", ENCODER), dropped(0.3)),
    "two outputs": given(encoded("text", Net(Pair(), {}), ("pooled", "tokens")), dropped(pooled=0.3)),
}


@jax.jit
def sampling(row, keys, fields):
    return row(keys, fields, False)


@pytest.mark.parametrize("name", ROWS)
def test_a_request_is_a_batch_without_the_data(name):
    """The conditions of what a batch's examples would be asked with are those of the batch, outside training."""
    row = ROWS[name]
    asked = row.asked(BATCH)
    assert set(asked) == set(row.asks) and "image" not in asked
    whole, requested = (sampling(row, KEY, fields) for fields in (BATCH, asked))
    assert set(whole) == set(requested) == set(row.gives)
    for entry in whole:
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), whole[entry], requested[entry])


def test_the_row_is_made_in_the_written_order():
    """Small 8-bit images, rounded to 8 bits as a request's are, then brought to [-1, 1]."""
    pooled = np.round(BATCH["image"].reshape(N, 2, 2, 2, 2, 1).astype(float).mean((2, 4)))
    found = given(POOL, into("low", codecs.pixels()))(KEY, BATCH, True)["low"]
    np.testing.assert_allclose(found, 2 * pooled / 255 - 1, atol=1e-6)
    asked = ROWS["made"].asked(BATCH)["low"]
    assert asked.dtype == jnp.uint8
    np.testing.assert_array_equal(asked, pooled)
    assert given(POOL, made("still", "video", lambda x: x)).asked({"image": BATCH["image"]}).keys() == {"low"}  # of what there is
    own = np.full((N, 2, 2, 1), 7, np.uint8)  # what is given is not made
    np.testing.assert_array_equal(ROWS["made"](KEY, BATCH | {"low": own}, True)["low"], own)
    np.testing.assert_array_equal(ROWS["made"].asked(BATCH | {"low": own})["low"], own)
    bright = {"image": np.full((1, 2, 2, 1), 200, np.uint8)}  # 200 + 200 is no 8-bit number, their mean is one
    np.testing.assert_array_equal(given(made("mean", "image", lambda x: (x + x) / 2))(KEY, bright, True)["mean"], bright["image"])


def test_what_leaves_the_range_of_8_bits_is_cut_off():
    """A cubic kernel overshoots at edges; an 8-bit image does not wrap around there."""
    edge = np.zeros((1, 8, 8, 1), np.uint8)
    edge[:, :, 4:] = 255
    low = np.asarray(given(made("low", "image", shrink(2)))(KEY, {"image": edge}, True)["low"])[0, 2, :, 0]
    assert low[0] == 0 and low[1] < 20 and low[2] > 235 and low[3] == 255


def test_what_a_part_has_made_is_not_asked_for():
    assert given(encoded("text", ENCODER, ("words",)), into("words", codecs.pixels())).asks == ("text",)


def test_parts_draw_independently():
    row = given(augmented("first", PROCESS), augmented("second", PROCESS))
    clean = np.zeros((4000, 1), np.float32)
    found = row(KEY, {"first": clean, "second": clean}, True)
    for one, other in (("first", "second"), ("first_level", "second_level")):
        together = np.corrcoef(np.ravel(found[one]), np.ravel(found[other]))[0, 1]
        assert abs(together) < 0.08  # five deviations of that of independent ones


def test_what_a_network_makes_of_a_field():
    found = ROWS["encoded"](KEY, BATCH, True)
    np.testing.assert_allclose(found["text"], BATCH["text"] @ KERNEL, rtol=1e-5)
    two = ROWS["two outputs"](KEY, BATCH, False)
    np.testing.assert_allclose(two["pooled"], BATCH["text"].sum(-1), rtol=1e-5)
    np.testing.assert_array_equal(two["tokens"], 2 * BATCH["text"])


def test_augmentation_is_noise_of_the_level_that_is_told():
    """In training t is uniform on [0, most], and the noise has the process's deviation there; in sampling it is as asked."""
    n, most = 4000, 0.4
    low = np.full((n, 2), 0.5, np.float32)
    row = given(augmented("low", PROCESS, most=most, level=0.0))
    found = row(KEY, {"low": low}, True)
    t = np.asarray(found["low_level"])
    assert 0 <= t.min() and t.max() <= most
    np.testing.assert_allclose([t.mean(), t.std()], [most / 2, most / 12**0.5], rtol=0.05)
    level = PROCESS.schedule(t)
    noise = (np.asarray(found["low"]) - np.asarray(level.alpha)[:, None] * low) / np.asarray(level.sigma)[:, None]
    np.testing.assert_allclose([noise.mean(), noise.std()], [0, 1], atol=0.04)
    drawn = row(KEY, {"low": low}, False)
    np.testing.assert_array_equal(drawn["low"], low)  # level 0 of this schedule is clean
    assert not drawn["low_level"].any()
    asked = row(KEY, {"low": low, "low_level": 0.25}, False)
    np.testing.assert_allclose(asked["low_level"], 0.25)
    np.testing.assert_allclose(np.asarray(asked["low"]).std(), PROCESS.schedule(0.25).sigma, rtol=0.05)


def test_which_samples_are_blurred_has_nothing_to_do_with_what_the_next_part_draws():
    n = 2000
    low = np.zeros((n, 3, 3, 1), np.float32)
    low[:, 1, 1] = 1
    found = given("low", blurred("low", share=0.5), dropped(0.5))(sample_keys(0, 0, n), {"low": low}, True)
    assert abs(np.corrcoef(found["low"][:, 1, 1, 0] < 1, found["null"])[0, 1]) < 0.1


@pytest.mark.parametrize("first", [augmented("low", PROCESS), dropped(a=0.5, low=0.5)], ids=["augmented", "dropped"])
def test_what_a_part_draws_has_nothing_to_do_with_what_the_next_draws(first):
    """A first part's second draw, beside the second part's first one, with a key a sample."""
    n = 2000
    keys, fields = sample_keys(0, 0, n), {"low": jnp.zeros((n, 1)), "other": jnp.zeros((n, 1)), "a": jnp.zeros(n)}
    own, after = given(first)(keys, fields, True), given(first, dropped(0.5))(keys, fields, True)["null"]
    own = own["null"]["low"] if "null" in own else own["low"][:, 0]
    assert abs(np.corrcoef(own, after)[0, 1]) < 0.1


def test_conditions_of_a_sample_do_not_depend_on_its_batch():
    """With a key a sample, as a request has them."""
    row = ROWS["augmented"]
    whole = sampling(row, sample_keys(3, 0, N), {"low": BATCH["image"]})["low"]
    part = sampling(row, sample_keys(3, 2, N - 2), {"low": BATCH["image"][2:]})["low"]
    np.testing.assert_allclose(whole[2:], part, atol=1e-6)


def test_each_entry_is_dropped_with_its_own_probability():
    """Together 0.2, the text 0.5 besides: 1 - 0.8 * 0.5 of the texts, independently of the label's own 0.25."""
    n = 8000
    row, fields = given("label", "text", dropped(0.2, text=0.5, label=0.25)), {"label": np.zeros(n), "text": np.zeros(n)}
    null = row(KEY, fields, True)["null"]
    text, label = (np.asarray(null[name]) for name in ("text", "label"))
    np.testing.assert_allclose([text.mean(), label.mean()], [0.6, 0.4], atol=0.02)
    np.testing.assert_allclose((text & label).mean(), 0.2 + 0.8 * 0.5 * 0.25, atol=0.02)  # together, or each by itself
    alone = given("label", dropped(label=0.25))(KEY, {"label": np.zeros(n)}, False)["null"]
    assert not alone["label"].any()


@pytest.mark.parametrize("make", [lambda: dropped(), lambda: dropped(1.0), lambda: dropped(text=-0.1)])
def test_what_is_no_probability_is_refused(make):
    with pytest.raises(ValueError, match="probability"):
        make()


def test_what_is_missing_is_said_in_one_sentence():
    with pytest.raises(ValueError, match=r"^this model is given label and low, got text$"):
        given("label", POOL)(KEY, {"text": BATCH["text"]}, False)
    with pytest.raises(ValueError, match=r"^this model is given text and label, got text$"):  # "words" came of a part
        given(encoded("text", ENCODER, ("words",)), into("label", codecs.bits()))(KEY, {"text": BATCH["text"]}, False)
    left_out = given("label", dropped(0.1))(KEY, {}, False, optional=("label",))
    assert not left_out  # the network has a null for it


class Low(nn.Module):
    """A network that adds what it is told of "text" to a learned constant."""

    @property
    def reads(self):
        return {"text": 2}

    @nn.compact
    def __call__(self, x, noise, cond=None, train=False):
        return self.param("constant", nn.initializers.ones, (1,)) + cond["text"].sum(-1)[:, None, None, None] + 0 * x


def test_an_encoder_that_is_learned_is_trained_with_the_system():
    """Its parameters stand beside the network's, and the loss has a gradient in them."""
    system = systems.build("ddpm", steps=50, channels=4, multipliers=(1,), attention=())
    row = given(encoded("text", Net(nn.Dense(2), Learned("encoder"))))
    system = system.replace(network=Net(Low(), Learned("network")), given=row)
    params = systems.init(KEY, system, BATCH).params
    assert set(params) == {"network", "encoder"}
    grads = jax.jit(jax.grad(lambda p: systems.loss(KEY, system, Variables(p), BATCH, ())[0]))(params)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads["encoder"]))


def test_a_blur_is_of_a_share_of_the_samples_and_of_training():
    """As scipy's, of a random width each; the widths and which ones are as often as was asked."""
    n, low, high = 1500, 0.4, 0.6
    x = np.zeros((n, 5, 7, 2), np.float32)
    x[:, 2, 3], x[:, 0, 0] = 1, 5
    row = given("low", blurred("low", low, high, share=0.3, side=3))
    found = np.asarray(row(KEY, {"low": x}, True)["low"], np.float64)
    soft = found[:, 2, 3, 0] < 1
    np.testing.assert_allclose(soft.mean(), 0.3, atol=0.06)
    np.testing.assert_array_equal(found[~soft], x[~soft])
    beside = found[soft, 2, 4, 0] / found[soft, 2, 3, 0]  # exp(-1 / (2 std^2))
    std = np.sqrt(-0.5 / np.log(beside))
    assert scipy.stats.kstest(std, scipy.stats.uniform(low, high - low).cdf).pvalue > 0.01
    for i in np.flatnonzero(soft)[:3]:
        line = np.exp(-0.5 * (np.array([-1, 0, 1]) / np.sqrt(-0.5 / np.log(found[i, 2, 4, 0] / found[i, 2, 3, 0]))) ** 2)
        wanted = ndimage.correlate(x[i, ..., 1].astype(float), np.outer(line, line) / line.sum() ** 2, mode="nearest")
        np.testing.assert_allclose(found[i, ..., 1], wanted, atol=1e-5)
    np.testing.assert_array_equal(row(KEY, {"low": x}, False)["low"], x)
    for refused in (lambda: blurred("low", 0.5, 0.4), lambda: blurred("low", share=1.5), lambda: blurred("low", side=4)):
        with pytest.raises(ValueError, match=r"blurred needs|odd number"):
            refused()


def test_an_operator_is_applied_in_training_and_in_sampling():
    row = given("low", applied("low", rescale(2, "area")))
    low = np.arange(4, dtype=np.float32).reshape(1, 2, 2, 1)
    for train in (True, False):
        np.testing.assert_array_equal(row(KEY, {"low": low}, train)["low"], low.repeat(2, 1).repeat(2, 2))


def test_noise_that_is_there_already_is_not_added_again():
    low, noised = np.zeros((N, 2, 2, 1), np.float32), np.ones((N, 2, 2, 1), np.float32)
    row = given("low", augmented("low", PROCESS, level=0.3))
    assert row.takes == ("low_level", "low_noised")
    found = row(KEY, {"low": low, "low_noised": noised, "low_level": np.full(N, 0.2)}, False)
    np.testing.assert_array_equal(found["low"], noised)
    np.testing.assert_allclose(found["low_level"], 0.2)
    for wrong in ({"low_noised": noised}, {"low_noised": noised[:, :1], "low_level": np.full(N, 0.2)}):
        with pytest.raises(ValueError, match=r"low_noised has the shape of low where its noise is added, .* goes with"):
            row(KEY, {"low": low, **wrong}, False)
