"""Augmented images: what is done to them, the labels that say so, and that images without labels are as they were."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux.conditions import dropped, given, made, warped
from diffux.conditions._warped import drawn, warp
from diffux.keys import sample_keys

pytestmark = pytest.mark.usefixtures("quick")

MIRROR, UPSET, SCALE, COS, SIN, ALONG_X, ALONG_Y, RIGHT, DOWN = range(9)
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(3, 8, 6, 2)).astype(np.float32)
BYTES = RNG.integers(0, 256, (3, 8, 6, 2)).astype(np.uint8)


def label(n=3, **entries):
    out = np.zeros((n, 9), np.float32)
    for name, value in entries.items():
        out[:, globals()[name]] = value
    return jnp.asarray(out)


def moved(images, down, right):
    """Whole pixels, by numpy's reflected padding."""
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)), mode="reflect")
    return padded[:, 4 - down : 4 - down + images.shape[1], 4 - right : 4 - right + images.shape[2]]


CASES = {
    "nothing": ({}, IMAGES),
    "left to right": ({"MIRROR": 1}, IMAGES[:, :, ::-1]),
    "top to bottom": ({"UPSET": 1}, IMAGES[:, ::-1]),
    "both": ({"MIRROR": 1, "UPSET": 1}, IMAGES[:, ::-1, ::-1]),
    "down": ({"DOWN": 2}, moved(IMAGES, 2, 0)),
    "right": ({"RIGHT": 4 / 3}, moved(IMAGES, 0, 1)),
    "up and left": ({"RIGHT": -8 / 3, "DOWN": -3}, moved(IMAGES, -3, -2)),
    "mirrored, then moved": ({"MIRROR": 1, "DOWN": 1, "RIGHT": 4 / 3}, moved(IMAGES[:, :, ::-1], 1, 1)),
}  # fmt: skip
WARP = jax.jit(warp)


@pytest.mark.parametrize("case", CASES)
def test_reflections_and_moves_by_whole_pixels_are_exact(case):
    """A label of 1 is a move by an eighth of the side; the image is reflected before it is moved."""
    entries, want = CASES[case]
    np.testing.assert_allclose(WARP(IMAGES, label(**entries)), want, rtol=0, atol=1e-6 if "RIGHT" in entries else 0)


def test_a_quarter_turn_is_numpys():
    square = RNG.uniform(size=(3, 8, 8, 1)).astype(np.float32)
    found = WARP(square, label(COS=-1, SIN=1))
    np.testing.assert_allclose(found, np.rot90(square, 1, (1, 2)), atol=1e-5)


def matrix(a):
    """From a pixel's place about the middle to where it is read, by the matrices of the authors' code: the inverses of scale, turn,
    stretch along an axis (of which y points up) and move, on an image of 40 pixels."""
    turned = lambda angle: np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])  # noqa: E731
    scale, angle = 2 ** (0.2 * a[SCALE]), np.arctan2(a[SIN], a[COS] + 1)
    axis, s = np.arctan2(a[ALONG_Y], a[ALONG_X]), 2 ** (0.2 * np.hypot(a[ALONG_X], a[ALONG_Y]))
    move = np.array([[1, 0, -5 * a[RIGHT]], [0, 1, -5 * a[DOWN]], [0, 0, 1]])
    stretch = turned(-axis) @ np.diag([1 / s, s, 1]) @ turned(axis)
    reflect = np.diag([1 - 2 * a[MIRROR], 1 - 2 * a[UPSET], 1])
    return reflect @ np.diag([1 / scale, 1 / scale, 1]) @ turned(angle) @ stretch @ move


def test_every_transformation_is_the_one_that_its_labels_say():
    """On a slope, which cubic interpolation follows exactly, where nothing beyond the edges is read."""
    labels = np.asarray(drawn(jax.random.key(0), 64, 0.5, 0.5))
    assert ((labels[:, [SCALE, SIN, ALONG_Y, RIGHT]] != 0).sum(1) >= 3).sum() > 10  # several at once
    place = np.stack(np.broadcast_arrays(np.arange(40) - 19.5, (np.arange(40) - 19.5)[:, None], 1.0), -1)
    for direction in range(2):
        slope = np.broadcast_to(place[..., direction, None] / 40 + 0.5, (64, 40, 40, 1)).astype(np.float32)
        found = np.asarray(WARP(slope, labels))[..., 0]
        for a, image in zip(labels.astype(np.float64), found, strict=True):
            read = place @ matrix(a).T
            inside = (np.abs(read[..., :2]) < 17).all(-1)
            assert inside.sum() > 100
            np.testing.assert_allclose(image[inside], (read[..., direction] / 40 + 0.5)[inside], atol=2e-5)


def test_labels_are_zero_where_and_only_where_the_image_is_unchanged():
    """Bit for bit, in float32."""
    part, images = warped("image", 0.1, 0.2), RNG.uniform(size=(3000, 6, 6, 1)).astype(np.float32)
    fields = jax.jit(lambda key, image: part(key, {"image": image}, True))(jax.random.key(0), images)
    unchanged, unlabelled = (np.asarray(fields["image"]) == images).all((1, 2, 3)), (np.asarray(fields["augment"]) == 0).all(1)
    assert 0.3 < unchanged.mean() < 0.7
    np.testing.assert_array_equal(unchanged, unlabelled)


@pytest.mark.parametrize("keys", [jax.random.key(1), sample_keys(1, 0, 20_000)], ids=["a key", "a key a sample"])
def test_how_often_and_how_much(keys):
    """Each with its probability and by itself, and of the sizes of the paper's table 6."""
    labels = np.asarray(jax.jit(lambda keys: drawn(keys, 20_000, 0.12, 0.5))(keys)).astype(np.float64)
    columns = {"mirror": MIRROR, "upset": UPSET, "scale": SCALE, "turn": SIN, "move": RIGHT}
    done = {name: labels[:, column] != 0 for name, column in columns.items()}
    done["stretch"] = labels[:, ALONG_X : ALONG_Y + 1].any(1)
    for name, share in {"mirror": 0.5, "upset": 0.06}.items():
        np.testing.assert_allclose(done[name].mean(), share, atol=0.015, err_msg=name)
        assert set(labels[done[name], columns[name]]) == {1}
    for name in ("scale", "turn", "stretch", "move"):
        np.testing.assert_allclose(done[name].mean(), 0.12, atol=0.01, err_msg=name)
    correlated = np.corrcoef(np.stack(list(done.values()))) - np.eye(len(done))
    assert np.abs(correlated).max() < 0.03
    turned, stretched = labels[done["turn"]], labels[done["stretch"], ALONG_X : ALONG_Y + 1]
    np.testing.assert_allclose(np.hypot(turned[:, COS] + 1, turned[:, SIN]), 1, atol=1e-6)
    np.testing.assert_allclose(np.arctan2(turned[:, SIN], turned[:, COS] + 1).std(), np.pi / 3**0.5, rtol=0.05)
    for column in (SCALE, RIGHT, DOWN):
        np.testing.assert_allclose(labels[labels[:, column] != 0, column].std(), 1, atol=0.06)
    np.testing.assert_allclose(np.sqrt((stretched**2).sum(1).mean()), 1, atol=0.06)
    along_a_side = (stretched == 0).any(1)
    np.testing.assert_allclose(along_a_side.mean(), 0.5, atol=0.05)
    np.testing.assert_allclose((stretched[along_a_side, 0] > 0).mean(), 0.5, atol=0.08)


def test_what_is_done_says_nothing_of_what_is_drawn_beside_it():
    """Of what is dropped: no two parts draw with one key, where each sample has its own."""
    row = given("label", warped("image", 1.0), dropped(0.5))
    batch = {"image": np.zeros((20_000, 1, 1, 1), np.float32), "label": np.zeros(20_000, int)}
    cond = jax.jit(lambda keys: row(keys, batch, True))(sample_keys(0, 0, 20_000))
    both = np.corrcoef(np.column_stack([cond["null"], cond["augment"], np.asarray(cond["augment"]) ** 2]).T)
    assert np.nanmax(np.abs(both[0, 1:])) < 0.03


@pytest.mark.full
def test_with_probability_0_and_outside_training_nothing_is_done():
    fields = warped("image", 0.0, 0.0)(jax.random.key(0), {"image": BYTES}, True)
    np.testing.assert_allclose(fields["image"], BYTES / 255, atol=1e-7)
    np.testing.assert_array_equal(fields["augment"], np.zeros((3, 9)))
    held_out = {"image": IMAGES}
    assert warped("image", 1.0)(jax.random.key(0), held_out, False) == held_out
    assert warped("image", 1.0)(jax.random.key(0), {"label": [3]}, True) == {"label": [3]}


@pytest.mark.full
def test_in_a_row_of_parts():
    """A request needs nothing for it; what is made of the image afterwards is made of the augmented one."""
    row = given("label", warped("image", 1.0), made("low", "image", lambda x: 2 * x))
    assert row.asks == ("label", "low") and row.gives == ("label", "augment", "low")
    batch = {"image": IMAGES, "label": np.arange(3)}
    fields, cond = row.run(jax.random.key(0), batch, True)
    assert np.abs(np.asarray(fields["image"]) - IMAGES).max() > 0.1 and cond["augment"].shape == (3, warped().width)
    np.testing.assert_array_equal(cond["low"], 2 * fields["image"])
    assert set(row(jax.random.key(0), {"label": np.arange(3), "low": IMAGES}, False)) == {"label", "low"}


@pytest.mark.parametrize(("call", "said"), [
    (lambda: warped(share=1.2), "share of warped is a probability 0 <= p <= 1, got 1.2"),
    (lambda: warped(mirrored=-0.1), "mirrored of warped is a probability"),
    (lambda: warp(jnp.zeros((2, 8)), jnp.zeros((2, 9))), r"images \(B, H, W, C\), got the shape \(2, 8\)"),
])  # fmt: skip
def test_what_cannot_be_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()
