"""Parts that draw: masks, strengths of a degradation and the noise in holes, a sample each by its own key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from diffux import codecs
from diffux.conditions import applied, covered, degraded, dropped, filled, given, hidden, into, made
from diffux.degradations import masks, qualities
from diffux.fields import Image, Mask
from diffux.keys import fold_in, sample_keys, uniform

pytestmark = pytest.mark.usefixtures("quick")

KEY, N = jax.random.key(0), 6
BATCH = {"image": np.random.default_rng(0).integers(0, 256, (N, 8, 8, 3)).astype(np.uint8)}
HALF = hidden("mask", "image", masks.uncropped)
HOLES = given(HALF, made("source", "image", lambda x: x), into("source", codecs.pixels()), filled("source", "mask"))


def test_a_request_is_a_batch_without_the_data():
    """Of the same keys, which a batch in training has and a request for its examples."""
    keys = sample_keys(3, 0, N)
    asked = HOLES.asked(BATCH, keys)
    assert {name: (value.shape, value.dtype) for name, value in asked.items()} == {"mask": ((N, 8, 8), np.uint8),
                                                                                   "source": ((N, 8, 8, 3), np.uint8)}  # fmt: skip
    assert set(HOLES.asks) == {"mask", "source"}
    assert HOLES.fields({"image": Image((8, 8, 3))}) == {"mask": Mask((8, 8)), "source": Image((8, 8, 3))}
    for train in (True, False):
        whole, requested = HOLES(keys, BATCH, train), HOLES(keys, asked, train)
        np.testing.assert_array_equal(whole["mask"], requested["mask"])
        np.testing.assert_allclose(whole["source"], requested["source"], atol=1e-6)


def test_rows_are_asked_the_same_each_time_unless_keys_say_otherwise():
    first, again, other = HOLES.asked(BATCH), HOLES.asked(BATCH), HOLES.asked(BATCH, sample_keys(1, 0, N))
    np.testing.assert_array_equal(first["mask"], again["mask"])
    assert not (first["mask"] == other["mask"]).all()
    one = HOLES.asked({"image": BATCH["image"][2:3]}, sample_keys(1, 2, 1))
    np.testing.assert_array_equal(one["mask"][0], other["mask"][2])  # whatever batch a row stands in


def test_a_mask_that_is_given_is_not_drawn():
    own = np.zeros((N, 8, 8), np.uint8)
    own[:, 0] = 1
    for mask in (own, own.astype(bool)):
        found = HOLES(KEY, BATCH | {"mask": mask}, True)["mask"]
        assert found.dtype == bool
        np.testing.assert_array_equal(found, own)
    np.testing.assert_array_equal(HOLES.asked(BATCH | {"mask": own})["mask"], own)


def test_holes_are_filled_with_fresh_standard_noise_and_the_rest_stays():
    """In training and in sampling, with one key or a key a sample."""
    n = 400
    fields = {"source": np.random.default_rng(1).uniform(-1, 1, (n, 4, 4, 3)).astype(np.float32),
              "mask": np.random.default_rng(2).random((n, 4, 4)) < 0.5}  # fmt: skip
    row, seen = given(filled("source", "mask")), []
    for keys in (KEY, jax.random.key(1), sample_keys(0, 0, n), sample_keys(1, 0, n)):
        for train in (True, False):
            found = np.asarray(row(keys, fields, train)["source"])
            np.testing.assert_array_equal(found[fields["mask"]], fields["source"][fields["mask"]])
            noise = found[~fields["mask"]]
            assert scipy.stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
            assert np.abs(np.corrcoef(noise.T) - np.eye(3)).max() < 0.07  # channels know nothing of each other
        seen.append(noise.ravel())
    assert np.abs(np.corrcoef(seen) - np.eye(4)).max() < 0.05
    part = row(sample_keys(0, 3, 2), jax.tree.map(lambda x: x[3:5], fields), False)["source"]
    np.testing.assert_array_equal(part, np.asarray(row(sample_keys(0, 0, n), fields, False)["source"])[3:5])


def test_every_sample_has_its_strength():
    """Of the law's distribution, with one key for all as in training."""
    n, image = 3000, np.full((3000, 1, 1, 1), 0.5, np.float32)
    row = given(degraded("source", "image", lambda x, quality: x * quality[:, None, None, None], qualities))
    drawn = 2 * np.asarray(row(KEY, {"image": image}, True)["source"]).ravel()
    law = lambda q: -np.expm1((5 - q) / 10) / -np.expm1(-2.5)  # noqa: E731  the integral of exp(-q / 10) from 5 to q, over that to 30
    assert 5 <= drawn.min() and drawn.max() <= 30 and scipy.stats.kstest(drawn, law).pvalue > 1e-3
    assert row.asks == ("source",) and row.fields({"image": Image((1, 1, 1))}) == {"source": Image((1, 1, 1))}
    own = {"source": image[:2] / 3}
    np.testing.assert_array_equal(row(KEY, own, False)["source"], own["source"])
    keys = sample_keys(0, 0, n)
    np.testing.assert_allclose(row.asked({"image": image}, keys)["source"], row(keys, {"image": image}, False)["source"], rtol=1e-6)


def test_eight_bits_stay_eight_bits():
    darker = degraded("source", "image", lambda x, share: x * share[0], lambda keys: jnp.full(keys.shape, 0.3))
    found = given(darker)(KEY, BATCH, True)["source"]
    assert found.dtype == jnp.uint8
    np.testing.assert_allclose(found, 0.3 * BATCH["image"], atol=0.5001)
    brighter = degraded("source", "image", lambda x, more: x + more[0], lambda keys: jnp.full(keys.shape, 0.5))
    assert given(brighter)(KEY, BATCH, True)["source"].max() == 255  # and does not wrap around


def test_a_field_of_the_data_that_is_no_mask_of_the_pictures_is_refused():
    image = Image((8, 8, 3))
    assert HALF.fields({"image": image, "mask": Mask((8, 8), names=("made", "known"))}) == {"mask": Mask((8, 8))}
    for other in (Mask((8, 8), classes=4), Mask((4, 4)), Image((8, 8, 1))):
        with pytest.raises(ValueError, match=r"mask says which pixels of image are known, .* another field of this name"):
            HALF.fields({"image": image, "mask": other})


@pytest.mark.parametrize("first", [
    hidden("mask", "image", lambda keys, sides: (uniform(fold_in(keys, 1), keys.shape) < 0.5)[:, None, None, None]),
    degraded("mask", "image", lambda x, coin: coin, lambda keys: uniform(fold_in(keys, 1), keys.shape) < 0.5),
    filled("image", "known"),
], ids=["hidden", "degraded", "filled"])  # fmt: skip
def test_what_a_part_draws_has_nothing_to_do_with_what_the_next_draws(first):
    """With a key a sample: a law that draws of its key folded with 1, beside the second part of a row, whose keys are so folded."""
    n = 2000
    fields = {"image": jnp.zeros((n, 1, 1, 1)), "known": jnp.zeros((n, 1, 1), bool)}
    found, _ = given(first, dropped(0.5)).run(sample_keys(0, 0, n), fields, True)
    own = np.asarray(found["mask"] if "mask" in found else found["image"] > 0).ravel()
    assert abs(np.corrcoef(own, found["null"])[0, 1]) < 0.1


def test_an_entry_beside_its_field():
    row = given(applied("image", lambda x: x // 2, to="dark"))
    assert row.asks == ("image",) and row.gives == ("dark",)
    fields, cond = row.run(KEY, BATCH, True)
    assert set(cond) == {"dark"} and fields["image"] is BATCH["image"]
    np.testing.assert_array_equal(cond["dark"], BATCH["image"] // 2)


@pytest.mark.parametrize("mask, words", [
    (np.ones((2, 8, 8), np.uint8), "leaves nothing to be made"),
    (np.stack([np.eye(8), np.zeros((8, 8))]).astype(np.uint8), "one that knows nothing"),
    (255 * np.eye(8, dtype=np.uint8)[None], "is 1 where a pixel is known and 0 where it is to be made, and got other values"),
])  # fmt: skip
def test_masks_that_ask_for_nothing_are_refused(mask, words):
    with pytest.raises(ValueError, match=words):
        HOLES.check({"mask": mask})
    HOLES.check({"mask": np.eye(8, dtype=np.uint8)[None]})
    jax.jit(lambda mask: HOLES.check({"mask": mask}))(mask)  # numbers under jit are not looked at


@pytest.mark.parametrize("shape", [(N, 8, 7), (N, 8, 8, 1), (N, 8)])
def test_a_mask_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"mask has an entry for each pixel of source, \(6, 8, 8\), got the shape") as error:
        HOLES(KEY, BATCH | {"mask": np.zeros(shape, bool)}, True)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="6 per-sample keys draw for a batch of 6, got 2 rows"):
        HALF(sample_keys(0, 0, N), {"image": BATCH["image"][:2]}, True)


def test_what_is_covered_is_grey_and_shows_nothing():
    """8 bits and floats; a mask of a request, of zeros and ones, serves as one of booleans does; what is given stays."""
    mask = np.arange(16).reshape(1, 4, 4) % 3 == 0
    image = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3)).astype(np.uint8)
    part = covered("source", "image")
    for x, grey in ((image, 128), (image / np.float32(255), 0.5)):
        for known in (mask, mask.astype(np.uint8)):
            found = np.asarray(part(KEY, {"image": x, "mask": known}, True)["source"])
            assert found.dtype == x.dtype and (found[~mask] == grey).all()
            np.testing.assert_array_equal(found[mask], x[mask])
    np.testing.assert_array_equal(part(KEY, {"image": image, "mask": mask, "source": image}, True)["source"], image)
    with pytest.raises(ValueError, match=r"mask has an entry for each pixel of image, \(1, 4, 4\), got the shape \(1, 4, 3\)"):
        part(KEY, {"image": image, "mask": mask[..., :3]}, True)
