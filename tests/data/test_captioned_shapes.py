"""Captioned scenes: what is drawn is what was meant, what is said is what is drawn, and what training never sees."""

import collections
import functools
import itertools
import math
import pickle
import re

import numpy as np
import pytest
from PIL import Image as Pictures

from diffux import data, training
from diffux.data.captioned_shapes import scenes
from diffux.evaluation.captioned_shapes import attributes
from diffux.fields import Image, Label, Mask
from tests.small import config, tiny  # noqa: F401

NAME = "captioned_shapes"
SPLITS = ("train", "validation", "test", "held_out")


@functools.cache
def _source(split="train", **options):
    return data.load(NAME, split=split, **{"examples": 60} | options)


def _scenes(split, count, **options):
    return [scenes.scene(split, i, **options) for i in range(count)]


def _centre(mask):
    """(x, y), the centre of mass of a mask, in pixels."""
    y, x = np.nonzero(mask)
    return x.mean(), y.mean()


def _seen(a, b):
    """Where the centre of mass a is, seen from b."""
    if abs(a[0] - b[0]) > abs(a[1] - b[1]):
        return "left of" if a[0] < b[0] else "right of"
    return "above" if a[1] < b[1] else "below"


# --- what is drawn ---------------------------------------------------------------------------------------------------


def test_an_object_has_the_area_and_the_form_of_its_shape():
    for scene in _scenes("train", 30):
        _, mask = scenes.draw(scene, 512)
        for number, thing in enumerate(scene.things, 1):
            here = mask == number
            rows, columns = np.flatnonzero(here.any(1)), np.flatnonzero(here.any(0))
            high, wide = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
            r = 512 * thing.radius
            area, filled = {
                "circle": (math.pi * r**2, math.pi / 4),
                "square": (math.pi * r**2, 1),
                "triangle": (3 * math.sqrt(3) / 4 * (1.3 * r) ** 2, 1 / 2),  # equilateral, its corners 1.3 r from its centre
                "cross": (2 * 2.2 * 0.76 * r**2 - (0.76 * r) ** 2, (2 * 2.2 * 0.76 - 0.76**2) / 2.2**2),
            }[thing.shape]
            assert here.sum() == pytest.approx(area, rel=0.02) and here.sum() / (high * wide) == pytest.approx(filled, abs=0.03)
            assert np.allclose(_centre(here), (512 * thing.x - 0.5, 512 * thing.y - 0.5), atol=0.5)
            if thing.shape == "triangle":  # which stands on its side
                assert here[rows[-1]].sum() > 0.9 * wide and here[rows[0] : rows[0] + 5].sum(1).max() < 0.2 * wide
                assert high / wide == pytest.approx(math.sqrt(3) / 2, abs=0.02)
            else:
                assert abs(high - wide) <= 1


def test_edges_are_shares_of_pixels():
    """What an object covers adds up to its area, at any size and place, to a point of the grid."""
    for scene in _scenes("test", 20):
        for thing in scene.things:
            for side, close in ((16, 0.08), (33, 0.04), (128, 0.01)):
                covered = scenes.cover(thing, side)
                assert covered.mean() == pytest.approx(scenes.FORMS[thing.shape][1] * thing.radius**2, rel=close)
                assert np.mean((covered > 0) & (covered < 1)) < 0.2 and covered.min() == 0 and covered.max() <= 1


def test_under_a_mask_is_the_named_colour_and_elsewhere_the_ground():
    for scene in _scenes("train", 60):
        image, mask = scenes.draw(scene, 64)
        assert set(np.unique(mask)) == set(range(len(scene.things) + 1))
        assert tuple(image[0, 0]) == scenes.BACKGROUNDS[scene.background]
        for number, thing in enumerate(scene.things, 1):
            ((colour, _),) = collections.Counter(map(tuple, image[mask == number].tolist())).most_common(1)
            assert colour == scenes.COLOURS[thing.colour]
    values = [*scenes.COLOURS.values(), *scenes.BACKGROUNDS.values()]
    assert min(math.dist(a, b) for a, b in itertools.combinations(values, 2)) > 75
    red, green, blue = (np.array(scenes.COLOURS[name]) for name in ("red", "green", "blue"))
    assert (red.argmax(), green.argmax(), blue.argmax()) == (0, 1, 2)
    assert max(scenes.BACKGROUNDS["dark"]) < 60 and min(scenes.BACKGROUNDS["light"]) > 220


def test_no_object_touches_another():
    """A pixel that one covers is never beside one that another covers, from 32 pixels on."""
    for scene in _scenes("train", 100):
        grown = []
        for thing in scene.things:
            y, x = np.nonzero(scenes.cover(thing, 32))
            assert min(x.min(), y.min()) > 0 and max(x.max(), y.max()) < 31
            grown.append({(a, b) for a, b in zip(x.tolist(), y.tolist(), strict=True)})
        assert not any(a & b for a, b in itertools.combinations(grown, 2))


def test_another_size_is_the_same_scene():
    """Averaged over squares, a larger picture is the smaller one to the rounding of its colours and of its points."""
    small, large = _source(), _source(size=64)
    assert large.fields["image"] == Image((64, 64, 3)) and large.fields["mask"].shape == (64, 64)
    for name, values in data.arrays(small).items():
        other = data.arrays(large)[name]
        if name == "image":
            apart = abs(other.astype(float).reshape(-1, 32, 2, 32, 2, 3).mean((2, 4)) - values)
            assert apart.mean() < 0.2 and apart.max() < 25
        elif name == "mask":
            assert np.mean(other[:, ::2, ::2] == values) > 0.97
        else:
            np.testing.assert_array_equal(other, values)
    named = data.load(f"{NAME}:64", examples=60)
    np.testing.assert_array_equal(named[7]["image"], large[7]["image"])
    assert data.load(f"{NAME}/64", examples=60, size=(32, 32)).fields == small.fields
    grey = _source(channels=1)
    assert grey.first == Image((32, 32, 1)) and grey[0]["image"].shape == (32, 32, 1)


# --- what is said ----------------------------------------------------------------------------------------------------

THING = r"(?:an?|one) (?:(small|large) )?(\w+) (circle|square|triangle|cross)"
WHERE = r"(left of|to the left of|right of|to the right of|above|over|below|under)"
MEANT = {"to the left of": "left of", "to the right of": "right of", "over": "above", "under": "below"}


def parsed(caption):
    """(number of objects or None, the objects named (size, colour, shape), relations (which, what, to which), place, ground)."""
    found = re.fullmatch(r"(.*?)(?: on a (dark|light) background)?", caption)
    text, ground = found.groups()
    if found := re.fullmatch(r"(two|three)(?: (small|large))? (\w+) (circles|squares|triangles|crosses)", text):
        count = {"two": 2, "three": 3}[found[1]]
        shape = {"crosses": "cross"}.get(found[4], found[4][:-1])
        return count, [(found[2], found[3], shape)] * count, [], None, ground
    count = None
    if found := re.fullmatch(r"(two|three) shapes with (.*)", text):
        count, text = {"two": 2, "three": 3}[found[1]], found[2]
    if found := re.fullmatch(rf"{THING} at the ([a-z ]+)", text):
        return 1, [found.groups()[:3]], [], found[4], ground
    if found := re.fullmatch(rf"{THING} {WHERE} {THING} and {WHERE} {THING}", text):
        one, (first, *two, second), three = found.groups()[:3], found.groups()[3:8], found.groups()[8:]
        return 3, [one, tuple(two), three], [(0, MEANT.get(first, first), 1), (0, MEANT.get(second, second), 2)], None, ground
    if found := re.fullmatch(rf"{THING} {WHERE} {THING}", text):
        one, where, two = found.groups()[:3], found[4], found.groups()[4:]
        return count or 2, [one, two], [(0, MEANT.get(where, where), 1)], None, ground
    things = text.split(" and ")
    assert all(re.fullmatch(THING, thing) for thing in things), caption
    return len(things), [re.fullmatch(THING, thing).groups() for thing in things], [], None, ground


def place(centre, side):
    rows, columns = ("top", "", "bottom"), ("left", "", "right")
    words = f"{rows[int(3 * centre[1] / side)]} {columns[int(3 * centre[0] / side)]}".strip()
    return words or "center"


def holds(caption, things, centres, background, side):
    """Whether some choice of the objects for those that are named makes all of a caption true."""
    count, named, related, where, ground = parsed(caption)
    if count != len(things) or ground not in (None, background):
        return False
    for chosen in itertools.permutations(range(len(things)), len(named)):
        same = all(size in (None, thing[0]) and (colour, shape) == thing[1:]
                   for (size, colour, shape), thing in zip(named, (things[i] for i in chosen), strict=True))  # fmt: skip
        right = all(_seen(centres[chosen[a]], centres[chosen[b]]) == what for a, what, b in related)
        if same and right and where in (None, place(centres[chosen[0]], side)):
            return True
    return False


def test_the_parser_tells_false_captions():
    """Its own control: a square left of a circle."""
    things, centres = [("small", "red", "square"), ("large", "blue", "circle")], [(10, 32), (50, 30)]
    true = ("a red square left of a blue circle", "a blue circle to the right of a red square",
            "a large blue circle and a red square", "two shapes with a red square left of a blue circle",
            "a red square and a blue circle on a dark background")  # fmt: skip
    false = ("a red square right of a blue circle", "a blue circle left of a red square", "a small blue circle and a red square",
             "three shapes with a red square left of a blue circle", "a red square above a blue circle", "two red squares",
             "a red square and a blue circle on a light background", "a blue square and a red circle", "a red square")  # fmt: skip
    assert all(holds(caption, things, centres, "dark", 64) for caption in true)
    assert not any(holds(caption, things, centres, "dark", 64) for caption in false)


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_every_wording_says_what_the_masks_show(split):
    said = set()
    for scene in _scenes(split, 250):
        image, mask = scenes.draw(scene, 64)
        centres = [_centre(mask == k + 1) for k in range(len(scene.things))]
        things = []
        for number, thing in enumerate(scene.things, 1):
            ((colour, _),) = collections.Counter(map(tuple, image[mask == number].tolist())).most_common(1)
            name = next(name for name, value in scenes.COLOURS.items() if value == colour)
            wide = np.ptp(np.nonzero(mask == number)[1]) + 1
            small, large = (2 * 64 * np.array(scenes.SIZES[size]) * scenes.FORMS[thing.shape][2] for size in ("small", "large"))
            assert small[0] - 1.5 < wide < small[1] + 1.5 or large[0] - 1.5 < wide < large[1] + 1.5
            things.append(("small" if wide < (small[1] + large[0]) / 2 else "large", name, thing.shape))
        ground = "dark" if image[0, 0].mean() < 128 else "light"
        wordings = scenes.wordings(scene)
        assert len(set(wordings)) == len(wordings) > 1
        for caption in wordings:
            assert holds(caption, things, centres, ground, 64), (caption, scene)
            said.add((len(things), re.sub("|".join((*scenes.COLOURS, *scenes.SHAPES, *scenes.SIZES)), "_", caption)))
        labels = scenes.labels(scene)
        alike = len({thing[1:] for thing in things}) == 1
        assert labels == {
            "label": " ".join(things[0][1:]), "shape": things[0][2], "colour": things[0][1], "size": things[0][0],
            "position": place(centres[0], 64), "relation": "none" if alike else _seen(*centres[:2]),
            "other": " ".join(things[1][1:]) if len(things) > 1 else "none", "count": ("one", "two", "three")[len(things) - 1],
            "background": ground, "novelty": labels["novelty"],
        }  # fmt: skip
    assert len(said) > 50


def test_a_caption_goes_through_its_field_and_back():
    field = _source().fields["caption"]
    said = sorted({words for split in SPLITS for scene in _scenes(split, 100) for words in scenes.wordings(scene)})
    numbers = field.encode(said)
    assert field.words(numbers) == said and not np.any(numbers == 1)  # 1 is an unknown word
    assert max(len(words.split()) for words in said) < field.length
    assert field.read("A red circle")[0].tolist()[:4] == [*field.encode(["a red circle"])[0][:3], 0]
    for split in SPLITS:
        stored = field.words(data.arrays(_source(split))["caption"])
        for i, caption in enumerate(stored):
            assert caption in scenes.wordings(scenes.scene(split, i))
    assert len({*field.words(data.arrays(_source())["caption"])}) > 40


def test_the_fields_keep_the_names_of_their_classes():
    source = _source()
    assert source.first == Image((32, 32, 3)) and source.fields["mask"] == Mask((32, 32), 4, source.fields["mask"].names)
    assert source.fields["label"] == Label(24, scenes.KINDS) and source.fields["label"].read("red circle").tolist() == [0]
    assert source.fields["relation"].names == ("none", "left of", "right of", "above", "below")
    for i, example in ((i, source[i]) for i in range(20)):
        scene = scenes.scene("train", i)
        image, mask = scenes.draw(scene, 32)
        np.testing.assert_array_equal(example["image"], image)
        np.testing.assert_array_equal(example["mask"], mask)
        assert {name: source.fields[name].words([example[name]])[0] for name in scenes.CLASSES} == scenes.labels(scene)
    arrays = data.arrays(source)
    for name, field in source.fields.items():
        np.testing.assert_array_equal(field.check(arrays[name]), arrays[name])


# --- what training never sees ----------------------------------------------------------------------------------------


@pytest.mark.full
def test_what_is_held_out_is_in_no_other_split_and_in_every_scene_of_its_own():
    counts = {"train": 2000, "validation": 500, "test": 500, "held_out": 500}
    apart, together = collections.Counter(), collections.Counter()
    for split, count in counts.items():
        for scene in _scenes(split, count):
            kinds = {thing.kind for thing in scene.things} & set(scenes.NOVEL_KINDS)
            seen = {(a.kind, _seen((a.x, a.y), (b.x, b.y)), b.kind) for a, b in itertools.permutations(scene.things, 2)}
            relations = seen & set(scenes.NOVEL_RELATIONS)
            assert bool(kinds or relations) == (split == "held_out")
            assert scenes.labels(scene)["novelty"] == ("pair" if kinds else "relation" if relations else "nothing")
            if split == "train":
                apart.update(word for thing in scene.things for word in (thing.colour, thing.shape))
                together.update((a, b) for a, _, b in seen)
            else:
                apart.update(["pair"] * bool(kinds) + ["relation"] * bool(relations))
    assert all(apart[word] > 100 for kind in scenes.NOVEL_KINDS for word in kind.split())
    assert all(together[a, b] > 2 for a, _, b in scenes.NOVEL_RELATIONS)  # in other relations
    assert 200 < apart["pair"] < 300 and 200 < apart["relation"] < 300
    usual = {thing.kind for scene in _scenes("train", 500) for thing in scene.things}
    assert usual == set(scenes.KINDS) - set(scenes.NOVEL_KINDS)


def test_every_wording_is_drawn():
    """Of a single object there are six, each as often: five standard errors of 300 draws."""
    single = _scenes("train", 300, objects=1)
    drawn = [scenes.wordings(scene).index(scenes.caption(scene, "train", i)) for i, scene in enumerate(single)]
    assert len(np.unique(drawn)) == 6 and abs(np.bincount(drawn) - 50).max() < 5 * math.sqrt(300 * 5 / 36)


def test_a_relation_that_is_held_out_is_said():
    for i, scene in enumerate(_scenes("held_out", 200)):
        if scenes.novelty(scene) == "relation":
            assert parsed(scenes.caption(scene, "held_out", i))[2]


def test_the_splits_and_their_labels():
    assert data.splits(NAME) == {"train": 20_000, "validation": 2_000, "test": 2_000, "held_out": 2_000}
    for split in SPLITS:
        source = _source(split)
        assert len(source) == (60 if split == "train" else 6) and source.split == split
        novel = {source.fields["novelty"].names[i] for i in data.arrays(source)["novelty"]}
        assert novel <= {"pair", "relation"} if split == "held_out" else novel == {"nothing"}
    assert data.agreeing(_source("held_out"), _source()) is _source("held_out")
    single = _source("held_out", objects=1)
    assert {*data.arrays(single)["count"]} == {0} and {*data.arrays(single)["novelty"]} == {1}
    assert data.arrays(_source(objects=2))["count"].max() == 1


# --- always the same -------------------------------------------------------------------------------------------------


def test_a_scene_depends_on_its_seed_split_and_number_alone():
    everything = _scenes("train", 50)
    assert [scenes.scene("train", i) for i in (31, 7)] == [everything[31], everything[7]]
    assert len({*everything}) == 50
    assert all(a != b for a, b in zip(everything, _scenes("train", 50, seed=1), strict=True))
    assert all(a != b for a, b in zip(everything, _scenes("test", 50), strict=True))
    fewer = data.arrays(_source(examples=20))
    for name, values in data.arrays(_source(), 20).items():
        np.testing.assert_array_equal(fewer[name], values)
    other = data.arrays(_source(seed=1))
    assert not np.array_equal(other["image"], data.arrays(_source())["image"])


@pytest.mark.full
def test_worker_processes_give_the_same_batches():
    source = pickle.loads(pickle.dumps(_source()))
    reference = list(itertools.islice(data.loader(source, batch_size=16, seed=1), 2))
    iterator = data.loader(source, batch_size=16, seed=1, workers=1)
    for batch, other in zip(reference, itertools.islice(iterator, 2), strict=True):
        for name in reference[0]:
            np.testing.assert_array_equal(batch[name], other[name])
    iterator.close()


# --- a run, and its judge --------------------------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.usefixtures("tiny", "quick")
def test_a_run_is_trained_on_it_by_a_config(config, tmp_path):  # noqa: F811
    changes = {"data.name": NAME, "data.options": {"examples": 60}, "data.held_out": "held_out", "training.sample_every": 6,
               "training.eval_examples": 6}  # fmt: skip
    result = training.train(config(**changes), tmp_path / "run")
    with Pictures.open(result.workdir / "samples.png") as picture:
        assert picture.size[0] > 2 * 32 and len(picture.getcolors(10**6)) > 10
    assert training.load(result.workdir).fields == data.handed_out(_source().fields, dequantize=True)


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_a_single_shape_is_read_off_its_picture(split):
    single = _scenes(split, 300, objects=1)
    images = np.stack([scenes.draw(scene, 32)[0] for scene in single])
    truth = {name: np.array([names.index(scenes.labels(scene)[name]) for scene in single])
             for name, names in scenes.CLASSES.items()}  # fmt: skip
    noisy = np.clip(images / 255 + 0.05 * np.random.default_rng(0).standard_normal(images.shape), 0, 1).astype(np.float32)
    for values in (images, noisy):
        found = attributes(values)
        for name in ("shape", "colour", "size", "position", "background"):
            assert np.mean(found[name] == truth[name]) >= 0.99, name
    assert attributes(images)["agreement"].min() > 0.85
    several = np.stack([scenes.draw(scene, 32)[0] for scene in _scenes(split, 100) if len(scene.things) > 1])
    assert attributes(several)["agreement"].max() < 0.85


def test_nothing_is_read_off_an_empty_picture():
    found = attributes(np.full((1, 32, 32, 3), 250, np.uint8))
    assert {name: values.tolist() for name, values in found.items()} == {
        "shape": [-1], "colour": [-1], "size": [-1], "position": [-1], "background": [1], "agreement": [0.0]}  # fmt: skip
    for shape in ((32, 32, 3), (1, 32, 16, 3), (1, 32, 32, 1)):
        with pytest.raises(ValueError, match="square colour pictures"):
            attributes(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="1 of 2 pictures have numbers that are not finite"):
        attributes(np.stack([np.full((32, 32, 3), np.nan), np.zeros((32, 32, 3))]))


# --- what is refused, and what needs no files ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (NAME, {"size": 8}, "squares with a side of 16 to 1024 pixels, got 8"),
        (NAME, {"size": (32, 64)}, r"squares with a side of 16 to 1024 pixels, got \(32, 64\)"),
        (f"{NAME}:2000", {}, "squares with a side of 16 to 1024 pixels, got 2000"),
        (f"{NAME}:big", {}, "unknown data set 'captioned_shapes/big'; captioned_shapes comes as"),
        (NAME, {"split": "valid"}, "has no split 'valid'; it has .*held_out"),
        (NAME, {"objects": 4}, "objects of captioned_shapes is a whole number from 1 to 3, got 4"),
        (NAME, {"examples": 0}, "examples of captioned_shapes is a whole number from 1 to"),
        (NAME, {"seed": -1}, "seed of captioned_shapes is a whole number from 0 to"),
        (NAME, {"examples": 2.5}, "examples"),
        (NAME, {"channels": 2}, "channels is 1"),
        (NAME, {"object": 1}, "did you mean 'objects'"),
        ("captioned_shape", {}, "did you mean captioned_shapes"),
    ],
)
def test_what_is_refused(name, options, message):
    with pytest.raises(data.DataError, match=message) as error:
        data.load(name, **{"examples": 60} | options if name.startswith(NAME) and "examples" not in options else options)
    assert "\n" not in str(error.value)


def test_pictures_whose_captions_say_left_and_right_are_not_mirrored():
    with pytest.raises(data.DataError, match="captioned_shapes/32 says what is left and right"):
        data.loader(_source(), batch_size=4, seed=0, flip=True)
    data.loader(_source(), batch_size=4, seed=0, flip=True, train=False)


def test_what_it_is_is_known_before_it_is_drawn(tmp_path):
    for form in ({}, {"size": 48}, {"channels": 1}, {"size": (16, 16), "channels": 3}):
        assert data.describe(NAME, data_dir=tmp_path, **form) == _source(**form).fields
    assert not list(tmp_path.iterdir()) and NAME in data.names()
    with pytest.raises(data.DataError, match="squares"):
        data.describe(NAME, size=8)
