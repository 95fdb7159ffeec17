"""Held-out data: a share of the training examples, or a split that has to go with them."""

import numpy as np
import pytest
from PIL import Image

from diffux import data
from diffux.config.plan import plan
from diffux.errors import UserError

RNG = np.random.default_rng(0)


def folder(root, counts, shape=(4, 4, 3)):
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(RNG.integers(0, 256, shape, dtype=np.uint8)).save(root / name / f"{i}.png")
    return root


def sources(root, **config):
    system = {"name": "ddpm", "channels": 16, "multipliers": (1,), "attention": ()}
    return plan({"system": system, "data": {"name": f"folder:{root}"} | config}).data.sources()


def names(source):
    return sorted(str(source.reader.reader.paths[i]) for i in source.reader.indices)


def test_a_flat_folder_holds_out_one_in_twenty(tmp_path):
    """The most common job: a folder of one's own pictures."""
    folder(tmp_path, {"pictures": 40})
    train, test = sources(tmp_path / "pictures")
    assert (len(train), len(test)) == (38, 2) and test.split == "0.05 of train"
    assert not {*names(train)} & {*names(test)} and len({*names(train)} | {*names(test)}) == 40
    again = sources(tmp_path / "pictures")
    assert names(again[1]) == names(test) and again[0].fingerprint == train.fingerprint


def test_a_share_a_split_or_none(tmp_path):
    folder(tmp_path, {"train/cat": 6, "train/dog": 4, "test/dog": 3, "validation/cat": 2})
    train, test = sources(tmp_path)
    assert (len(train), len(test), test.split) == (10, 3, "test")
    train, test = sources(tmp_path, held_out="validation")
    assert (len(train), len(test)) == (10, 2)
    train, test = sources(tmp_path, held_out=0.3)
    assert (len(train), len(test)) == (7, 3)
    assert {int(label) for label in data.arrays(test)["label"]} <= {0, 1}
    train, test = sources(tmp_path, held_out=None)
    assert len(train) == 10 and test is None
    with pytest.raises(UserError, match="has no split 'valley'"):
        sources(tmp_path, held_out="valley")
    for wrong in (0.0, 1.0, 2, True, (1,)):
        with pytest.raises(UserError, match=r"data\.held_out is a split, a share such as 0\.05, or None"):
            sources(tmp_path, held_out=wrong)
    with pytest.raises(UserError, match="too few to hold any out"):
        sources(folder(tmp_path / "one", {"train": 1}), held_out=0.5)


def test_classes_are_numbered_by_the_training_splits_names(tmp_path):
    folder(tmp_path, {"train/ape": 2, "train/bee": 2, "train/cat": 2, "test/bee": 1, "test/cat": 2})
    _, test = sources(tmp_path)
    assert data.arrays(test)["label"].tolist() == [1, 2, 2] and test.fields["label"].names == ("ape", "bee", "cat")


def test_what_does_not_agree_is_refused(tmp_path):
    strange = folder(tmp_path / "1", {"train/ape": 2, "test/bee": 1})
    with pytest.raises(UserError, match="has the class 'bee', which the training split does not have: ape"):
        sources(strange)
    folder(tmp_path / "2", {"train": 2})
    folder(tmp_path / "2", {"test": 1}, (5, 5, 3))
    with pytest.raises(UserError, match="has images of 5x5x3, and the training split of 4x4x3: pass size="):
        sources(tmp_path / "2")
    with pytest.raises(data.DataError, match="has 3 classes, and the training split 2"):
        data.agreeing(data.of_arrays({"label": np.arange(3)}), data.of_arrays({"label": np.arange(2)}))
    with pytest.raises(data.DataError, match="has no point, of which the training split is"):
        data.agreeing(data.of_arrays({"label": np.arange(3)}), data.of_arrays({"point": np.zeros((2, 2), np.float32)}))


def test_grey_test_pictures_beside_colour_are_read_as_colour(tmp_path):
    folder(tmp_path, {"train": 2})
    folder(tmp_path, {"test": 1}, (4, 4))
    assert sources(tmp_path)[1].first.shape == (4, 4, 3)


def test_a_test_split_without_classes_is_refused_where_the_system_reads_them(tmp_path):
    from diffux import training

    folder(tmp_path / "data", {"train/ape": 2, "train/bee": 2, "test": 2}, (8, 8))
    config = {"system": {"name": "ddpm", "classes": 2, "channels": 16, "multipliers": (1,), "attention": ()},
              "data": {"name": f"folder:{tmp_path / 'data'}", "batch_size": 2}}  # fmt: skip
    with pytest.raises(UserError, match=r"the system knows 2 values of label, and folder:.* has none"):
        training.train(config, tmp_path / "run")
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_texts_of_a_test_file_take_the_training_vocabulary(tmp_path):
    for split, words in {"train": ["a red dog", "a cat"], "test": ["a dog", "cat"]}.items():
        np.savez(tmp_path / f"{split}.npz", caption=np.array(words), label=np.array([word.split()[-1] for word in words]))
    train, test = plan({"system": {"name": "ddpm", "channels": 16, "multipliers": (1,), "attention": ()},
                        "data": {"name": f"npz:{tmp_path}"}}).data.sources()  # fmt: skip
    assert test.fields == train.fields
    with pytest.raises(data.DataError, match="another vocabulary of caption"):
        data.agreeing(data.of_arrays({"caption": np.array(["b", "c"])}), data.of_arrays({"caption": np.array(["a", "c"])}))
