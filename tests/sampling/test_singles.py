"""Samples as single files: a picture each, written as they come, continued, and nothing of others' overwritten."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image as Pictures

from diffux import evaluation
from diffux.conditions import given
from diffux.errors import StorageFailed, UserError
from diffux.evaluation import runs as judging
from diffux.sampling import files, singles
from diffux.systems import Variables
from tests import drawn
from tests.evaluation.conftest import digits  # noqa: F401 - a fixture

pytestmark = pytest.mark.usefixtures("quick")

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 4, 6, 1), dtype=np.uint8)
NAMES = np.array(["cat", "a dog/3", "bird"] * 2)


def noise(key, fields):
    """A picture of a sample's own noise."""
    return jax.random.uniform(key, (4, 6, 1))


@pytest.fixture
def labelled():
    return {"model": drawn.run(drawn.Known(noise, "image", given("label")), {"image": IMAGES, "label": NAMES})}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(call, words):
    with pytest.raises(UserError, match=words) as error:
        call()
    assert "\n" not in str(error.value)


def test_a_folder_has_a_picture_for_each_sample_named_by_number_and_class(labelled, tmp_path):
    """The same values as in an array, in 8 bits; what made them stands in each and beside them."""
    asked = "cat,bird,a dog/3"
    array = files.sample(labelled, [tmp_path / "all.npz", f"{tmp_path}/singles/"], n=7, batch=3, seed=5, given={"label": asked})
    folder = tmp_path / "singles"
    names = [f"{i:06d}_{word}.png" for i, word in enumerate(["cat", "bird", "a-dog-3"] * 2 + ["cat"])]
    assert sorted(path.name for path in folder.iterdir()) == [*names, "samples.json"]
    for name, value in zip(names, array, strict=True):
        with Pictures.open(folder / name) as picture:
            np.testing.assert_array_equal(np.asarray(picture), np.round(value[..., 0] * 255))
            assert picture.text["weights"] == "raw" and picture.text["seed"] == "5" and picture.text["checkpoint"] == "1"
    said = json.loads((folder / "samples.json").read_text())
    assert said["given"] == {"label": asked} and (said["weights"], said["seed"], said["steps"]) == ("raw", 5, 4)


def test_a_label_without_names_is_a_number_and_nothing_given_is_no_word(tmp_path):
    numbered = {"model": drawn.run(drawn.Known(noise, "image", given("label")), {"image": IMAGES, "label": np.arange(6)})}
    assert files.sample(numbered, [f"{tmp_path}/n/"], n=2, given={"label": "4"}) is None
    plain = {"model": drawn.run(drawn.Known(noise, "image"), {"image": IMAGES})}
    (tmp_path / "p").mkdir()
    files.sample(plain, [tmp_path / "p"], n=2)  # a folder that exists needs no slash
    for folder, names in (("n", ["000000_4.png", "000001_4.png"]), ("p", ["000000.png", "000001.png"])):
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == [*names, "samples.json"]


def test_the_same_command_continues_and_a_larger_number_extends(labelled, tmp_path, capsys):
    """A folder that a killed process left, with one missing in the middle, ends as one that nothing happened to."""
    for folder, n in (("straight", 9), ("left", 9)):
        files.sample(labelled, [f"{tmp_path}/{folder}/"], n=n, batch=4)
    whole = contents(tmp_path / "straight")
    for name in (name for name in whole if re.match("00000[235678]", name)):
        (tmp_path / "left" / name).unlink()
    (tmp_path / "left" / ".000002_cat.png.part").write_bytes(b"half")
    kept = (tmp_path / "left" / "000004_bird.png").stat().st_mtime_ns
    capsys.readouterr()
    files.sample(labelled, [f"{tmp_path}/left/"], n=9, batch=4)
    assert "2 samples are there already" in capsys.readouterr().out
    assert contents(tmp_path / "left") == whole  # nothing hidden is left either
    assert (tmp_path / "left" / "000004_bird.png").stat().st_mtime_ns == kept
    files.sample(labelled, [f"{tmp_path}/left/"], n=11)
    files.sample(labelled, [f"{tmp_path}/left/"], n=3)
    assert len(contents(tmp_path / "left")) == 12


def test_nothing_in_a_folder_of_other_things_is_touched(labelled, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "000000_cat.png").write_bytes(b"a photograph")
    refused(lambda: files.sample(labelled, [folder], n=2), r"photos holds other files, such as 000000_cat.png: samples")
    assert contents(folder) == {"000000_cat.png": b"a photograph"}
    files.sample(labelled, [f"{tmp_path}/mine/"], n=2)
    before = contents(tmp_path / "mine")
    for change, words in (({"seed": 1}, r"another way: seed \(0, now 1\); name another"), ({"given": {"label": 1}}, "given"),
                          ({"about": {"solver": "heun"}}, r"solver \('\w+', now 'heun'\)")):  # fmt: skip
        refused(lambda change=change: files.sample(labelled, [tmp_path / "mine"], n=2, **change), words)
    other = {"model": dataclasses.replace(labelled["model"], variables=Variables({"x": jnp.ones(3)}))}
    refused(lambda: files.sample(other, [tmp_path / "mine"], n=2), "models")
    assert contents(tmp_path / "mine") == before
    (tmp_path / "file").touch()
    refused(lambda: files.sample(labelled, [f"{tmp_path}/file/"], n=2), "file cannot be a folder of samples: (File e|Not a d)")
    refused(lambda: files.sample(labelled, [tmp_path / "x.bmp"], n=2), r"x.bmp must end in .png or .npz, or in a slash, for a")


def test_they_are_written_as_they_are_drawn_and_kept_where_the_disk_is_full(labelled, tmp_path, monkeypatch):
    field, count = type(labelled["model"].field), []
    save = field.save_one

    def full(self, path, value, **about):
        count.append(path)
        if len(count) > 5:
            raise OSError(28, "No space left on device")
        save(self, path, value, **about)

    with monkeypatch.context() as patch:
        patch.setattr(field, "save_one", full)
        with pytest.raises(StorageFailed, match=r"any more \(No space left on device\); 5 samples are in it, and the same command"):
            files.sample(labelled, [f"{tmp_path}/out/"], n=100, batch=3)
    assert len(contents(tmp_path / "out")) == 6  # although the third batch and those after it were never drawn
    files.sample(labelled, [f"{tmp_path}/out/"], n=8, batch=3)
    assert len(contents(tmp_path / "out")) == 9


def test_a_picture_that_cannot_be_written_is_one_sentence_and_the_old_one_stays(labelled, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    out = tmp_path / "x.png"
    files.sample(labelled, [out], n=2)
    before = out.read_bytes()
    monkeypatch.setattr("PIL.Image.Image.save", full)
    with pytest.raises(StorageFailed, match=r"x.png could not be written \(No space left on device\), and what was there is kept"):
        files.sample(labelled, [out], n=2, seed=1)
    assert out.read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["x.png"]


def test_room_is_needed_for_a_batch_alone(labelled, tmp_path, monkeypatch):
    """Of more samples than the memory holds a folder can be filled, and no array be made."""
    asked = []
    monkeypatch.setattr(files, "check_room", lambda n, field: asked.append(n))
    files.sample(labelled, [f"{tmp_path}/out/"], n=5, batch=2)
    files.sample(labelled, [f"{tmp_path}/out/", tmp_path / "x.npz"], n=5, batch=2)
    assert asked == [2, 5]


def test_a_folder_is_judged_as_the_array_is(tmp_path, digits):  # noqa: F811
    """Digits as pictures: every figure is that of the array, which is rounded to 8 bits too; pictures of others are as good."""
    test = digits[1]["image"][:60]
    rows = {"image": np.zeros((2, 8, 8, 1), np.uint8), "image_of": np.zeros((2, 8, 8, 1), np.float32)}
    run = {"model": drawn.run(drawn.Known(lambda key, fields: fields["image_of"], "image", given("image_of")), rows)}
    files.sample(run, [tmp_path / "all.npz", f"{tmp_path}/singles/"], n=60, given={"image_of": test})
    field = run["model"].field
    (array, _), (read, how) = judging.read(tmp_path / "all.npz", field), judging.read(tmp_path / "singles", field)
    assert how["weights"] == "raw" and how["folder"] == str(tmp_path / "singles") and read.dtype == np.float32
    one, other = (evaluation.evaluate(values, "digits", controls=False, judge="random").rows for values in (array, read))
    assert one == other and one["generated"]["frechet"] > 0
    (tmp_path / "singles" / "samples.json").unlink()
    found, how = judging.read(tmp_path / "singles", field)
    np.testing.assert_array_equal(found, read)
    assert list(how) == ["folder"]
    (tmp_path / "empty").mkdir()
    refused(lambda: judging.read(tmp_path / "empty", field), r"empty holds no images \(.bmp, .gif, .jpeg")
    assert singles.is_folder("samples/") and singles.is_folder(tmp_path) and not singles.is_folder(tmp_path / "samples.png")
