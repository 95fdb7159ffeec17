"""Batches: their order, their augmentation, their shares, and the position that is saved."""

import itertools

import grain
import numpy as np
import orbax.checkpoint as ocp
import pytest

from diffux import data
from diffux.data import source as sources
from diffux.fields import Image, Label

AUGMENTED = {"flip": True, "crop": 2, "dequantize": True}


@pytest.fixture
def digits():
    return data.load("digits")


@pytest.fixture
def numbered(tmp_path):
    """A source whose pixels tell the index of the image."""

    class Numbers:
        def __init__(self, n):
            self.n = n

        def __len__(self):
            return self.n

        def read(self, i):
            return {"image": np.full((2, 2, 1), i, np.uint8), "label": i % 3}

    return data.Source(Numbers(100), name="numbers", split="train", fields={"image": Image((2, 2, 1)), "label": Label(3)})


def _indices(batches):
    return np.concatenate([b["image"][:, 0, 0, 0] for b in batches])


def _take(iterator, n):
    return list(itertools.islice(iterator, n))


def _assert_equal(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def test_a_crop_reaches_every_place():
    """Shifts of up to two pixels in either direction, all 25 of them: a pixel that tells its place tells the shift."""
    places = np.arange(81, dtype=np.uint8).reshape(1, 9, 9, 1).repeat(64, 0)
    batches = data.loader(data.of_arrays({"image": places}), batch_size=64, seed=0, crop=2)
    centres = np.concatenate([next(batches)["image"][:, 4, 4, 0] for _ in range(8)]).astype(int)
    shifts = {(int(y) - 4, int(x) - 4) for y, x in zip(*np.divmod(centres, 9), strict=True)}
    assert shifts == set(itertools.product(range(-2, 3), repeat=2))


def test_types_and_ranges(digits):
    batch = next(data.loader(digits, batch_size=64, seed=0))
    assert batch["image"].dtype == np.uint8 and batch["image"].shape == (64, 8, 8, 1)
    assert batch["label"].dtype == np.int32 and batch["label"].shape == (64,)
    x = next(data.loader(digits, batch_size=64, seed=0, dequantize=True))["image"]
    assert x.dtype == np.float32 and 0 <= x.min() and x.max() < 1
    np.testing.assert_array_equal(np.floor(x * 17), np.round(batch["image"] * (16 / 255)))


def test_every_epoch_is_another_permutation(numbered):
    seen = _indices(_take(data.loader(numbered, batch_size=20, seed=0), 15)).reshape(3, 100)
    for epoch in seen:
        assert sorted(epoch) == list(range(100))
    assert not np.array_equal(seen[0], seen[1]) and not np.array_equal(seen[1], seen[2])
    other = _indices(_take(data.loader(numbered, batch_size=20, seed=1), 5))
    assert not np.array_equal(seen[0], other)


def test_batches_run_over_the_end_of_an_epoch(numbered):
    seen = _indices(_take(data.loader(numbered, batch_size=30, seed=0), 10))
    assert np.all(np.bincount(seen, minlength=100) == 3)
    assert len(_take(data.loader(numbered, batch_size=30, seed=0, epochs=2), 99)) == 6
    assert len(_take(data.loader(numbered, batch_size=30, seed=0, epochs=2, drop_remainder=False), 99)) == 7


def test_evaluation_is_one_pass_in_order(numbered):
    batches = list(data.loader(numbered, batch_size=30, seed=0, train=False, flip=True, crop=1))
    assert [len(b["label"]) for b in batches] == [30, 30, 30, 10]
    assert _indices(batches).tolist() == list(range(100))
    assert len(list(data.loader(numbered, batch_size=30, seed=0, train=False, drop_remainder=True))) == 3


def test_labels_stay_with_their_images(digits):
    known = {}
    for image, label in zip(*data.arrays(digits).values(), strict=True):
        known[image.tobytes()] = known[image[:, ::-1].tobytes()] = label
    mirrored, plain = 0, {image.tobytes() for image in data.arrays(digits)["image"]}
    for batch in _take(data.loader(digits, batch_size=128, seed=3, flip=True), 8):
        for image, label in zip(batch["image"], batch["label"], strict=True):
            assert known[image.tobytes()] == label
            mirrored += image.tobytes() not in plain
    assert 0.4 < mirrored / 1024 < 0.6


def test_augmentations_differ_between_epochs(digits):
    one = digits.take(np.arange(1))["image"][0]

    class Same:
        def __len__(self):
            return 1

        def read(self, _):
            return {"image": one}

    source = data.Source(Same(), name="one", split="train", fields={"image": Image(one.shape)})
    for options in ({"flip": True}, {"crop": 2}, {"dequantize": True}):
        batches = _take(data.loader(source, batch_size=1, seed=0, **options), 20)
        assert len({b["image"].tobytes() for b in batches}) > 1


@pytest.mark.parametrize("memory", [sources.MEMORY, 0], ids=["in memory", "streamed by threads"])
def test_state_continues_bit_for_bit(monkeypatch, memory):
    reference = _take(data.loader(data.load("digits"), batch_size=64, seed=5, **AUGMENTED), 40)
    monkeypatch.setattr(sources, "MEMORY", memory)
    digits = data.load("digits")
    assert digits.in_memory == bool(memory)
    iterator = data.loader(digits, batch_size=64, seed=5, **AUGMENTED)
    _assert_equal(_take(iterator, 27), reference[:27])  # in the second epoch
    state = iterator.get_state()
    _take(iterator, 4)  # what was read after the state was taken does not count
    fresh = data.loader(data.load("digits"), batch_size=64, seed=5, **AUGMENTED)
    fresh.set_state(state)
    _assert_equal(_take(fresh, 13), reference[27:])


@pytest.mark.full(but=("0",))
@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_that_starts_later_continues_an_earlier_one(digits, workers):
    reference = _take(data.loader(digits, batch_size=64, seed=5, **AUGMENTED), 30)
    for start in (1, 26):  # within an epoch, and in the second
        later = data.loader(digits, batch_size=64, seed=5, start=start, workers=workers, **AUGMENTED)
        _assert_equal(_take(later, 4), reference[start : start + 4])
        later.close()
    shares = [data.loader(digits, batch_size=64, seed=5, start=26, process_index=p, process_count=2, **AUGMENTED) for p in (0, 1)]
    rows = [next(share) for share in shares]
    _assert_equal([{key: np.concatenate([b[key] for b in rows]) for key in rows[0]}], reference[26:27])


def test_orbax_keeps_the_position(digits, tmp_path):
    iterator = data.loader(digits, batch_size=64, seed=5, **AUGMENTED)
    _take(iterator, 3)
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(3, args=ocp.args.Composite(data=grain.checkpoint.CheckpointSave(iterator)))
    fresh = data.loader(digits, batch_size=64, seed=5, **AUGMENTED)
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.restore(3, args=ocp.args.Composite(data=grain.checkpoint.CheckpointRestore(fresh)))
    _assert_equal(_take(fresh, 3), _take(iterator, 3))


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_the_same_global_batches(digits, count):
    whole = _take(data.loader(digits, batch_size=64, seed=2, process_index=0, process_count=1, **AUGMENTED), 25)
    parts = [
        _take(data.loader(digits, batch_size=64, seed=2, process_index=p, process_count=count, **AUGMENTED), 25)
        for p in range(count)
    ]
    joined = [{key: np.concatenate([b[key] for b in rows]) for key in rows[0]} for rows in zip(*parts, strict=True)]
    _assert_equal(joined, whole)


@pytest.mark.parametrize("train", [True, False])
def test_shards_are_disjoint_and_cover(numbered, train):
    options = {"batch_size": 8, "seed": 0, "train": train, "epochs": 1, "drop_remainder": False, "process_count": 4}
    shards = [list(data.loader(numbered, process_index=p, **options)) for p in range(4)]
    assert len({len(s) for s in shards}) == 1, "every process takes the same number of steps"
    seen = [_indices(s).tolist() for s in shards]
    assert sorted(itertools.chain(*seen)) == list(range(100))


@pytest.mark.full
def test_worker_processes_give_the_same_batches(digits):
    reference = _take(data.loader(digits, batch_size=64, seed=1, **AUGMENTED), 8)
    iterator = data.loader(digits, batch_size=64, seed=1, workers=2, **AUGMENTED)
    _assert_equal(_take(iterator, 5), reference[:5])
    state = iterator.get_state()
    iterator.close()
    fresh = data.loader(digits, batch_size=64, seed=1, workers=2, **AUGMENTED)
    fresh.set_state(state)
    _assert_equal(_take(fresh, 3), reference[5:])
    fresh.close()


def test_without_labels(numbered):
    plain = data.Source(numbered.reader, name="numbers", split="train", fields={"image": Image((2, 2, 1))})
    assert plain[3].keys() == {"image"}
    assert next(data.loader(plain, batch_size=4, seed=0)).keys() == {"image"}
    assert data.arrays(plain).keys() == {"image"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is for all"),
        ({"batch_size": 1, "start": -1}, "start is the number of batches to skip"),
        ({"batch_size": 9, "process_index": 0, "process_count": 2}, "batch_size is for all 2 processes"),
        ({"batch_size": 8, "process_index": 2, "process_count": 2}, "process_index counts from 0"),
        ({"batch_size": 8, "crop": 8}, "crop=8 pixels does not fit images of 8x8"),
        ({"batch_size": 8, "epochs": 0}, "epochs is a whole number"),
        ({"batch_size": 2000, "epochs": 1}, "does not fill one batch of 2000: choose at most 1437"),
    ],
)
def test_errors(digits, options, message):
    with pytest.raises(data.DataError, match=message):
        data.loader(digits, seed=0, **options)


@pytest.mark.parametrize("seed", [-1, 2**40])
def test_any_integer_is_a_seed(digits, seed):
    _assert_equal(*(_take(data.loader(digits, batch_size=8, seed=seed, **AUGMENTED), 2) for _ in range(2)))
