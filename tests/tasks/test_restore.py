"""Restoration of pictures of any size: with tiles it is what the model makes of the whole, and its files go by their names."""

import dataclasses
import json
import re

import numpy as np
import pytest
import skimage
from PIL import Image as Pictures

from diffux import cli, keys, tasks
from diffux.conditions import given
from diffux.errors import UserError
from diffux.fields import Image, Mask
from diffux.sampling import draw, files, one_by_one
from diffux.types import Learned, Net, part
from tests import drawn
from tests.probes import enlarging as probe

pytestmark = pytest.mark.usefixtures("quick")

RNG = np.random.default_rng(0)
ENOUGH = "restore(overlap=12)"  # the network sees three pixels in each direction, and the margin is a quarter of that


def enlarging(factor=2, sides=(16, 20), channels=3, steps=2):
    """A run that enlarges, with weights that are not trained."""
    system = probe.build(steps, channels=4, mask=False, factor=factor)
    return drawn.untrained(system, {"image": np.zeros((2, *sides, channels), np.uint8)})


@pytest.fixture(scope="module")
def model():
    return enlarging()


def pictures(*sides, channels=3, batch=1):
    return RNG.integers(0, 256, (batch, *sides, channels), dtype=np.uint8)


def whole(model, low, factor=2, seed=0):
    """What the model makes of all of a picture at once."""
    field = dataclasses.replace(model.field, shape=(*(factor * side for side in low.shape[1:3]), low.shape[3]))
    own = keys.sample_keys(seed, 0, len(low))
    return np.asarray(dataclasses.replace(model, fields={**model.fields, "image": field}).generate(own, {"low": low}).x)


def restored(model, low, start=0, seed=0, progress=lambda *_: None, **others):
    own, fields = keys.sample_keys(seed, start, len(low)), {"low": low, **others}
    return np.asarray(tasks.task(ENOUGH, {"model": model})(own, fields, progress=progress)["image"])


# --- the task -----------------------------------------------------------------------------------------------------------


@pytest.mark.full(but=("2-sides1",))
@pytest.mark.parametrize(("factor", "sides"), [(2, (8, 10)), (2, (13, 27)), (1, (16, 33)), (4, (4, 5))])
def test_a_picture_of_any_size_becomes_what_the_model_makes_of_all_of_it(factor, sides):
    """Of a network that sees less far than the margin; at the model's own size it is the model."""
    model, low = enlarging(factor), pictures(*sides, batch=2)
    found = restored(model, low)
    assert found.shape == (2, *(factor * side for side in sides), 3) and 0 <= found.min() < found.max() <= 1
    np.testing.assert_allclose(found, whole(model, low, factor), atol=2e-5)
    assert np.abs(found - restored(model, low, seed=1)).max() > 0.1


@pytest.mark.full(but=("sides0",))
@pytest.mark.parametrize("sides", [(1, 4), (7, 25), (30, 2), (1, 1)])
def test_a_picture_smaller_than_a_tile_is_reflected_and_cut_back(model, sides):
    low = pictures(*sides)
    lacks = [(0, max(least - side, 0)) for side, least in zip(sides, (8, 10), strict=True)]
    padded = np.pad(low, [(0, 0), *lacks, (0, 0)], mode="reflect")
    wanted = whole(model, padded)[:, : 2 * sides[0], : 2 * sides[1]]
    np.testing.assert_allclose(restored(model, low), wanted, atol=2e-5)


def test_the_walk_is_the_models_own_with_its_guidance(model):
    """The system's transforms, or those that were asked for; nothing compiles again for another seed, and every step is told."""
    from diffux import guidance
    from diffux.config import parts

    low, said = pictures(12, 16), []
    clipped = dataclasses.replace(model, walk=parts.walk(model.system, solver="ddim", steps=2, guidance="static_threshold(0.2)"))
    own = dataclasses.replace(model, system=model.system.replace(guidance=(guidance.static_threshold(0.2),)))
    for each in (clipped, own):
        found = restored(each, low, progress=lambda *step: said.append(step))
        assert 0.39 < found.min() and found.max() < 0.61
    assert said == [(1, 2), (2, 2)] * 2
    np.testing.assert_allclose(restored(clipped, low), whole(clipped, low), atol=2e-5)


def test_the_network_and_its_guidance_see_tiles_alone(model):
    seen = []

    @part
    def watching(denoise):
        def watched(x, level, cond):
            seen.append((x.shape, cond["low"].shape))
            return denoise(x, level, cond)

        return watched

    watched = dataclasses.replace(model, walk={"guidance": (watching,)})
    restored(watched, pictures(12, 16))
    assert set(seen) == {((1, 16, 20, 3), (1, 8, 10, 3))}


class Labelled(probe.Enlarging):
    """Brighter for larger labels."""

    @property
    def reads(self):
        return {"low": None, "label": 3}

    def __call__(self, x, noise, cond=None, train=False):
        return super().__call__(x, noise, cond, train) - cond["label"][:, None, None, None]


@pytest.fixture(scope="module")
def labelled():
    plain = probe.build(2, channels=4, mask=False)
    system = plain.replace(network=Net(Labelled(4), Learned("network")), given=plain.given.replace(names=("label",)))
    return drawn.untrained(system, {"image": np.zeros((3, 16, 20, 3), np.uint8), "label": np.arange(3)})


def test_what_else_is_given_is_the_same_for_all_tiles_of_a_picture(labelled):
    low, label = pictures(8, 14), np.array([0, 2])
    found = restored(labelled, low.repeat(2, 0), label=label)
    for i in range(2):
        np.testing.assert_allclose(found[i], restored(labelled, low, i, label=label[i : i + 1])[0], atol=1e-5)
    assert found[0].mean() < found[1].mean()


def test_without_a_word_for_the_picture_it_draws_as_once_does(model):
    """In a request for samples the pictures have the model's own sides: held-out ones, or arrays."""
    low = pictures(8, 10, batch=3)
    for asked in ({}, {"low": low}):
        first, second = (next(draw.draw(model, 3, task=task, given=asked))["image"] for task in ("once", "restore"))
        np.testing.assert_allclose(first, second, atol=2e-5)
    with pytest.raises(UserError, match=r"the task restore takes files of low one by one, each at its own size, "):
        draw.request({"model": model}, 3, {"low": "photo.png"}, task="restore")


# --- refusals -----------------------------------------------------------------------------------------------------------


def given_fields(run, **others):
    """The run, whose model is given these fields as they are; the images' own may be another."""
    system = run.system.replace(given=given(*(name for name in others if name != "image")))
    return dataclasses.replace(run, system=system, fields={**run.fields, **others})


def point(system, **more):
    return drawn.run(system, {"point": np.zeros((3, 2), np.float32), "label": np.arange(3)}, **more)


IMAGE = Image((8, 10, 3))


@pytest.mark.parametrize(("make", "task", "words"), [
    (given_fields, "restore", "of a model that is given one picture and draws another, and this one is given nothing and draws im"),
    (lambda run: given_fields(run, low=IMAGE, source=IMAGE), "restore", "and this one is given low and source and draws images"),
    (lambda run: given_fields(run, low=Mask((8, 10))), "restore", "and this one is given low and draws images"),
    (lambda run: point(drawn.Known(None, "point", given("label"))), "restore", "is given label and draws points"),
    (lambda run: given_fields(run, low=IMAGE, image=Image((16, 24, 3))), "restore",
     "enlarges both sides by one whole number, and this model makes 16x24 of 8x10"),
    (lambda run: given_fields(run, low=IMAGE, image=Image((12, 15, 3))), "restore", "and this model makes 12x15 of 8x10"),
    (lambda run: point(drawn.Judge("point"), name="judging"), "restore", r"this run is a Judge \(judging\), which is not sampled"),
    (lambda run: run, "restore(overlap=16)", "tiles of 16x20 overlap by 0 to 15 pixels, got 16"),
    (lambda run: run, "restore(overlap=15)", "tiles of 16x20 that begin at multiples of 2 overlap by 14 at most, got 15"),
    (lambda run: run, "restore(overlap=wide)", "tiles of 16x20 overlap by 0 to 15 pixels, got wide"),
    (lambda run: run, "restore(at_once=0)", "a number of tiles at once from 1 on, got 0"),
    (lambda run: run, "restore(tiles=3)", r"the task restore takes overlap=\.\.\., at_once=\.\.\., got restore\(tiles=3\)"),
])  # fmt: skip
@pytest.mark.usefixtures("untyped")
def test_what_does_not_fit_is_refused_in_one_sentence(model, make, task, words):
    with pytest.raises(UserError, match=words) as error:
        tasks.task(task, {"model": make(model)})
    assert "\n" not in str(error.value)


def test_arrays_that_are_no_pictures_of_the_field_are_refused(model):
    for low, words in ((pictures(8, 9, channels=1), r"given low, images \(n, h, w, 3\), got the shape \(1, 8, 9, 1\)"),
                       (pictures(8, 9)[0], r"got the shape \(8, 9, 3\)")):  # fmt: skip
        with pytest.raises(UserError, match=words):
            restored(model, low)
    with pytest.raises(UserError, match=r"given low, images \(n, h, w, 3\), got the shape \(\)"):
        tasks.task("restore", {"model": model})(keys.sample_keys(0, 0, 1), {})


# --- files --------------------------------------------------------------------------------------------------------------


def save(path, picture, **more):
    path.parent.mkdir(exist_ok=True)
    Pictures.fromarray(picture.squeeze()).save(path, **more)
    return picture


def read(path):
    with Pictures.open(path) as picture:
        return np.asarray(picture)


@pytest.fixture
def photos(tmp_path):
    """Pictures of three sizes and kinds, two of them smaller than a tile: {name: what the model is given}."""
    with Pictures.open(f"{skimage.__path__[0]}/data/chelsea.png") as cat:
        cat = np.asarray(cat.resize((41, 30)))
    made = {"cat": save(tmp_path / "photos" / "cat.png", cat)}
    grey = save(tmp_path / "photos" / "grey.bmp", pictures(7, 10, channels=1)[0])
    made["grey"] = grey.repeat(3, 2)
    lying = Pictures.Exif()
    lying[0x0112] = 6  # to be turned by a quarter, clockwise
    side = save(tmp_path / "photos" / "turned.png", pictures(9, 8)[0], exif=lying)
    made["turned"] = np.rot90(side, -1)
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    (tmp_path / "photos" / ".hidden.png").write_text("no picture")
    return made


@pytest.fixture
def sample(model, monkeypatch, tmp_path):
    """`diffux sample` of the model in a folder of one's own: (what it printed, its status)."""
    monkeypatch.setattr(files, "models", lambda *_, **__: {"model": model})
    monkeypatch.chdir(tmp_path)
    return lambda *words: cli.main(["sample", "--task", ENOUGH, "--model", "model=runs/sr", *map(str, words)])


def test_a_folder_of_pictures_is_restored_each_at_its_own_size(model, photos, sample, tmp_path, capsys):
    """Named as they are; picture i is sample i of the seed, to 8 bits, and says how it was drawn."""
    assert sample("--given", "low=photos", "--seed", 3, "--out", "out/") == 0
    said = capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cat.png", "grey.png", "samples.json", "turned.png"]
    count = 12 * 9 + 1 + 1  # 60 of tiles of 16 every 4 by 82 of tiles of 20 every 8, and one for each of the small ones
    assert f"3 of 3 pictures: {count} tiles x 2 steps = {2 * count} evaluations of a tile" in said.splitlines()[0]
    assert f"restoring 108/{2 * count}" in said and f"restoring {2 * count}/{2 * count}" in said
    for i, (name, low) in enumerate(photos.items()):
        wanted = restored(model, low[None], i, seed=3)[0]
        found = read(tmp_path / "out" / f"{name}.png")
        assert found.shape == (2 * low.shape[0], 2 * low.shape[1], 3)
        np.testing.assert_allclose(found, 255 * wanted, atol=0.51)
    with Pictures.open(tmp_path / "out" / "cat.png") as picture:
        assert picture.text["seed"] == "3" and picture.text["task"] == ENOUGH and picture.text["weights"] == "raw"
    assert json.loads((tmp_path / "out" / "samples.json").read_text())["given"] == {"low": "photos"}


def test_a_folder_that_was_left_half_way_is_continued(photos, sample, tmp_path, capsys):
    words = ("--given", "low=photos", "--out", "out/")
    assert sample(*words) == 0
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    sheet = (tmp_path / "out_side_by_side.png").read_bytes()
    (tmp_path / "out" / "grey.png").unlink()
    kept = (tmp_path / "out" / "cat.png").stat().st_mtime_ns
    capsys.readouterr()
    assert sample(*words) == 0
    assert "1 of 3 pictures: " in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == first
    assert (tmp_path / "out" / "cat.png").stat().st_mtime_ns == kept
    assert (tmp_path / "out_side_by_side.png").read_bytes() == sheet
    assert sample(*words, "--seed", 1) == 2
    assert "out holds samples that were drawn in another way: seed (0, now 1); name another folder" in capsys.readouterr().err


def test_one_picture_becomes_one_file_and_a_sheet_shows_both_and_the_truth(photos, sample, tmp_path):
    """Side by side at the size of the result: the source enlarged, what was made of it, and what it should have been."""
    truth = save(tmp_path / "truths" / "cat.webp", np.full((60, 82, 3), 30, np.uint8), lossless=True)
    assert sample("--given", "low=photos/cat.png", "--given", "image=truths/cat.webp", "--out", "one.png") == 0
    found, sheet = read(tmp_path / "one.png"), read(tmp_path / "one_side_by_side.png")
    assert found.shape == (60, 82, 3)
    gap, columns = 8, []
    for i in range(3):
        columns.append(sheet[gap : gap + 60, gap + i * (82 + gap) :][:, :82])
    small = np.asarray(Pictures.fromarray(photos["cat"]).resize((82, 60), Pictures.Resampling.BICUBIC))
    for column, wanted in zip(columns, (small, found, truth), strict=True):
        np.testing.assert_array_equal(column, wanted)
    assert (sheet[gap + 60 :] != 96).any()  # words below


def test_a_large_picture_is_smaller_on_the_sheet(model, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(one_by_one, "_SIDE", 60)
    one_by_one.sample({"model": model}, [f"{tmp_path}/out/"], task=ENOUGH, given={"low": str(tmp_path / "photos")})
    sheet = read(tmp_path / "out_side_by_side.png")
    assert sheet.shape[1] == 3 * 8 + 2 * 60 and sheet.shape[0] > 3 * (44 + 8)


@pytest.mark.parametrize(("words", "message"), [
    ("--out x.png", r"the task restore\(overlap=12\) takes a picture, or a folder of them: --given low=photo.png"),
    ("--given low=photos/notes.txt --out x.png", "photos/notes.txt cannot be read as an image"),
    ("--given low=nowhere.png --out x.png", r"nowhere.png cannot be read as an image \(.*No such file"),
    ("--given low=empty --out out/", "empty holds no images of 3 channels"),
    ("--given low=broken --out out/", "broken/b.png cannot be read as an image"),
    ("--given low=twice --out out/", "twice holds cat.bmp and cat.png, of which both would become cat.png"),
    ("--given low=photos --out x.png", "3 pictures do not go into the one file x.png: end it in a slash, for a folder"),
    ("--given low=photos/cat.png --out x.npz", "x.npz must end in .png, or in a slash, for a folder of single files"),
    ("--given low=photos --out photos/", "photos holds other files, such as cat.png"),
    ("--given low=photos --given image=twice --out out/", "twice holds no picture of the name grey, which photos does"),
    ("--given low=photos/cat.png --given image=photos/cat.png --out x.png",
     "photos/cat.png is 30x41, and what is made of photos/cat.png is 60x82"),
    ("--given low=photos --given label=3 --out out/", "label was given, and nothing reads it: this model is given low"),
    ("--given low=photos --n 3 --out out/", "--n is of samples, and the task .* makes one of each picture"),
    ("--given low=photos --batch 3 --out out/", "--batch is of samples"),
    ("--given low=photos --trajectory x.gif --out out/", "--trajectory is of samples"),
    ("--given low=photos --guidance classifier_free([1,2]) --out x.png", "takes files of low one by one, each at its own size"),
])  # fmt: skip
def test_what_files_cannot_be_is_said_in_one_sentence_before_anything_is_drawn(photos, sample, tmp_path, capsys, words, message):
    (tmp_path / "empty").mkdir()
    save(tmp_path / "broken" / "a.png", pictures(9, 9)[0])
    (tmp_path / "broken" / "b.png").write_bytes(b"no picture")
    save(tmp_path / "twice" / "cat.png", pictures(60, 82)[0])
    save(tmp_path / "twice" / "cat.bmp", pictures(60, 82)[0])
    assert sample(*words.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and re.search(message, error), error
    assert not list(tmp_path.glob("x*")) and not list(tmp_path.glob("out/*.png"))


def test_what_else_is_asked_is_said_for_each_picture_in_turn(labelled, tmp_path):
    """Every class in turn, or what was asked for."""
    low = {name: save(tmp_path / "photos" / f"{name}.png", pictures(8, 10)[0]) for name in "abc"}
    for asked, labels in (({}, [0, 1, 2]), ({"label": "2,1"}, [2, 1, 2])):
        out = tmp_path / "".join(map(str, labels))
        one_by_one.sample({"model": labelled}, [f"{out}/"], task=ENOUGH, given={"low": str(tmp_path / "photos"), **asked})
        for i, name in enumerate(low):
            wanted = restored(labelled, low[name][None], i, label=np.array(labels[i : i + 1]))[0]
            np.testing.assert_allclose(read(out / f"{name}.png"), 255 * wanted, atol=0.51)


@pytest.mark.full
def test_a_grey_model_takes_colours_by_their_luma(tmp_path):
    model, photo = enlarging(channels=1), save(tmp_path / "photo.png", pictures(9, 30)[0])
    one_by_one.sample({"model": model}, [tmp_path / "out.png"], task=ENOUGH, given={"low": str(tmp_path / "photo.png")})
    luma = np.asarray(Pictures.fromarray(photo).convert("L"))[None, ..., None]
    np.testing.assert_allclose(read(tmp_path / "out.png"), 255 * restored(model, luma)[0, ..., 0], atol=0.51)
