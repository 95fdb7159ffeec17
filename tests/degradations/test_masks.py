"""Random masks: as much of the image as is asked for, of the forms that are named, sample by sample."""

import jax
import numpy as np
import pytest
from scipy import ndimage

from diffux.degradations import masks
from diffux.keys import fold_in, sample_keys

KINDS = {"rectangles": masks.rectangles, "free_form": masks.free_form, "inpainted": masks.inpainted,
         "uncropped": masks.uncropped}  # fmt: skip
SIDES = (24, 32)


def drawn(name, n=64, **options):
    return np.asarray(jax.jit(lambda keys: KINDS[name](keys, SIDES, **options))(sample_keys(0, 0, n)))


@pytest.mark.full
@pytest.mark.parametrize("name", ["rectangles", "free_form"])
def test_the_share_that_is_unknown_is_as_asked(name):
    found = drawn(name, 200)
    assert found.shape == (200, *SIDES, 1) and found.dtype == bool
    shares = 1 - found.mean((1, 2, 3))
    assert 0.099 < shares.min() < 0.13 and 0.37 < shares.max() < 0.401
    np.testing.assert_allclose(shares.mean(), 0.25, atol=0.02)
    np.testing.assert_allclose(1 - drawn(name, share=(0.3, 0.3)).mean((1, 2, 3)), 0.3, atol=1 / 24 / 32)


@pytest.mark.full
@pytest.mark.parametrize("name", KINDS)
def test_a_mask_depends_on_its_key_alone(name):
    found = drawn(name)
    np.testing.assert_array_equal(found[5:9], KINDS[name](sample_keys(0, 5, 4), SIDES))
    assert len({one.tobytes() for one in found}) > 5 * (name != "uncropped") + 4


@pytest.mark.full
def test_rectangles_are_rectangles():
    """One fills the box around it but for its last row or column; of up to five, no more parts than that, and often several."""
    for one in ~drawn("rectangles", most=1)[..., 0]:
        (box,) = ndimage.find_objects(one.astype(int))
        rows, columns = (place.stop - place.start for place in box)
        assert rows * columns - one.sum() <= max(rows, columns)
    parts = [ndimage.label(one)[1] for one in ~drawn("rectangles", share=(0.1, 0.1))[..., 0]]
    assert max(parts) > 1
    assert max(ndimage.label(one)[1] for one in ~drawn("rectangles", share=(0.1, 0.1), most=2)[..., 0]) == 2


@pytest.mark.usefixtures("quick")
def test_six_masks_of_ten_for_inpainting_are_strokes():
    """And the others rectangles: a sample's mask is one or the other of its key."""
    def each(keys):
        own = fold_in(keys, 1)
        return masks.inpainted(keys, (12, 12)), masks.free_form(own, (12, 12)), masks.rectangles(own, (12, 12))

    found, strokes, boxes = map(np.asarray, jax.jit(each)(sample_keys(0, 0, 1000)))
    as_strokes, as_boxes = ((found == kind).all((1, 2, 3)) for kind in (strokes, boxes))
    assert (as_strokes ^ as_boxes).all()
    np.testing.assert_allclose(as_strokes.mean(), 0.6, atol=0.06)  # four deviations
    shares = 1 - found.mean((1, 2, 3))
    assert 0.095 < shares.min() and shares.max() < 0.405
    ragged = [float(np.abs(np.diff(kind[..., 0].astype(int), axis=1)).sum() / (~kind).sum()) for kind in (strokes, boxes)]
    assert ragged[0] > 1.3 * ragged[1]  # a stroke of the same area has the longer outline


def test_a_stroke_is_one_part_and_no_rectangle():
    fills = []
    for one in ~drawn("free_form", most=1, share=(0.15, 0.25))[..., 0]:
        labels, count = ndimage.label(one, np.ones((3, 3)))
        assert count == 1
        (box,) = ndimage.find_objects(labels)
        fills.append(one.sum() / one[box].size)
    assert np.median(fills) < 0.75


def test_half_is_uncropped_at_one_side_or_at_all():
    found = ~drawn("uncropped", 400)[..., 0]
    assert (found.sum((1, 2)) == 24 * 16).all()
    touched = np.stack([found[:, 0].all(1), found[:, -1].all(1), found[:, :, 0].all(1), found[:, :, -1].all(1)], 1)
    number = touched.sum(1)
    assert set(number) == {1, 4}
    np.testing.assert_allclose((number == 4).mean(), 0.5, atol=0.08)
    np.testing.assert_allclose(touched[number == 1].mean(0), 0.25, atol=0.1)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: masks.rectangles(sample_keys(0, 0, 1), (8, 8), share=(0.4, 0.1)), "0 < low <= high < 1"),
        (lambda: masks.free_form(sample_keys(0, 0, 1), (8,)), r"of sides \(H, W\), got \(8,\)"),
        (lambda: masks.rectangles(sample_keys(0, 0, 1), (8, 8), most=0), "at least 1, got 0"),
        (lambda: masks.free_form(sample_keys(0, 0, 1), (8, 8), most=0), "at least 1, got 0"),
        (lambda: masks.inpainted(sample_keys(0, 0, 1), (8, 8), strokes=60), "from 0 to 1, got 60"),
        (lambda: masks.uncropped(sample_keys(0, 0, 1), (8, 8), share=1.0), "0 < low <= high < 1"),
        (lambda: masks.uncropped(jax.random.PRNGKey(0), (8, 8)), "keys are made by"),
    ],
)
def test_what_is_refused(ask, said):
    with pytest.raises(ValueError, match=said):
        ask()
