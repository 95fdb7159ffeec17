"""The data sets that are drawn from a formula: what is in them, that it stays, and that they are no images."""

import hashlib
import itertools
import pickle

import numpy as np
import pytest
from sklearn.datasets import make_swiss_roll

from diffux import data
from diffux.data import _records, swiss_roll
from diffux.data import source as sources
from diffux.fields import Bits, Point

NAMES = {
    "swiss_roll": ("point", Point((2,), dtype="float32"), "points"),
    "heartbeats": ("bits", Bits((20,), dtype="uint8", levels=2), "sequences"),
}


def _arrays(name, split="train"):
    return data.arrays(data.load(name, split=split))


def _take(iterator, n):
    return list(itertools.islice(iterator, n))


def _assert_equal(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


@pytest.mark.parametrize("name", NAMES)
def test_fields_shapes_and_types(name):
    field, wanted, things = NAMES[name]
    for split, count in data.splits(name).items():
        source = data.load(name, split=split)
        assert len(source) == count == 10_000
        assert source.fields == {field: wanted} and source.first == wanted and source.things == things
        arrays = data.arrays(source)
        assert arrays.keys() == {field} and arrays[field].shape == (count, *wanted.shape) and arrays[field].dtype == wanted.dtype
        last = source[-1]
        np.testing.assert_array_equal(last[field], arrays[field][-1])
        last[field][:] = 7  # what is handed out is the caller's own
        assert not np.all(source[-1][field] == 7) and not np.all(_arrays(name, split)[field][-1] == 7)
    assert f"10000 {things} of shape {wanted.shape}" in repr(source)
    with pytest.raises(IndexError, match=f"has 10000 {things}, asked for number 10000"):
        source[10_000]
    with pytest.raises(data.DataError, match=f"10000 {things}, asked for 10001"):
        data.arrays(source, 10_001)
    assert name in data.names()


def test_the_roll_is_that_of_scikit_learn_seen_from_its_axis():
    points = _arrays("swiss_roll")["point"].astype(np.float64)
    theirs = make_swiss_roll(10_000, noise=0.25, random_state=0)[0][:, [0, 2]]
    # one shift and one scale, so that the roll stays a roll
    scale = np.sqrt(theirs.var(0).sum() / points.var(0).sum())
    np.testing.assert_allclose((points - points.mean(0)) * scale, theirs - theirs.mean(0), atol=1e-5)


def test_the_roll_has_no_mean_and_unit_variance():
    """By a quadrature of the noiseless roll over its angle, plus the noise's variance."""
    u = 1.5 * np.pi * (1 + 2 * (np.arange(200_000) + 0.5) / 200_000)
    roll = np.stack([u * np.cos(u), u * np.sin(u)])
    np.testing.assert_allclose(swiss_roll.ROLL_MEAN, roll.mean(1), rtol=1e-6)
    assert np.sqrt(roll.var(1).sum() / 2 + 0.25**2) == pytest.approx(swiss_roll.ROLL_SCALE, rel=1e-6)
    for split in ("train", "test"):
        points = _arrays("swiss_roll", split)["point"]
        # five standard errors of 10,000 draws
        assert np.abs(points.mean(0)).max() < 0.05 and abs(points.var(0).sum() / 2 - 1) < 0.05


def test_every_point_is_near_the_roll():
    u = np.linspace(1.5 * np.pi, 4.5 * np.pi, 2000)
    roll = (np.stack([u * np.cos(u), u * np.sin(u)], 1) - swiss_roll.ROLL_MEAN) / swiss_roll.ROLL_SCALE
    points = _arrays("swiss_roll")["point"][:2000]
    off = np.sqrt(((points[:, None] - roll[None]) ** 2).sum(-1)).min(1)
    noise = 0.25 / swiss_roll.ROLL_SCALE
    assert off.max() < 5 * noise
    # across a nearly straight line the distance is a normal's absolute value
    assert off.mean() == pytest.approx(noise * np.sqrt(2 / np.pi), rel=0.1)


def test_heartbeats_are_five_sequences_as_likely_as_each_other():
    for split in ("train", "test"):
        values = _arrays("heartbeats", split)["bits"]
        found, counts = np.unique(values, axis=0, return_counts=True)
        wanted = np.zeros((5, 20), np.uint8)
        for phase in range(5):
            wanted[phase, phase::5] = 1
        np.testing.assert_array_equal(found, wanted[::-1])
        assert np.abs(counts - 2000).max() < 5 * np.sqrt(10_000 * 0.2 * 0.8)


@pytest.mark.full(but=("heartbeats",))
@pytest.mark.parametrize("name", NAMES)
def test_splits_differ_and_stay_what_they_are(name, python):
    field = NAMES[name][0]
    assert not np.array_equal(_arrays(name)[field], _arrays(name, "test")[field])
    code = f"""
import hashlib
from diffux import data
for split in ("train", "test"):
    print(hashlib.sha256(data.arrays(data.load("{name}", split=split))["{field}"].tobytes()).hexdigest())
"""
    out, wrong = python(code).communicate(timeout=120)
    assert out.split() == [hashlib.sha256(_arrays(name, s)[field].tobytes()).hexdigest() for s in ("train", "test")], wrong


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("memory", [sources.MEMORY, 0], ids=["in memory", "streamed by threads"])
def test_state_continues_bit_for_bit(monkeypatch, name, memory):
    reference = _take(data.loader(data.load(name), batch_size=384, seed=5), 30)
    assert reference[0].keys() == {NAMES[name][0]}
    monkeypatch.setattr(sources, "MEMORY", memory)
    source = data.load(name)
    assert source.in_memory == bool(memory)
    iterator = data.loader(source, batch_size=384, seed=5)
    _assert_equal(_take(iterator, 27), reference[:27])  # in the second epoch
    state = iterator.get_state()
    next(iterator)  # what was read after the state was taken does not count
    fresh = data.loader(data.load(name), batch_size=384, seed=5)
    fresh.set_state(state)
    _assert_equal(_take(fresh, 3), reference[27:])


def test_an_epoch_is_a_permutation_and_processes_share_it():
    source = data.load("swiss_roll")
    whole = _take(data.loader(source, batch_size=1000, seed=2, process_index=0, process_count=1), 10)
    seen = np.concatenate([batch["point"] for batch in whole])
    np.testing.assert_array_equal(np.unique(seen, axis=0), np.unique(data.arrays(source)["point"], axis=0))
    parts = [_take(data.loader(source, batch_size=1000, seed=2, process_index=p, process_count=2), 10) for p in range(2)]
    _assert_equal([{"point": np.concatenate([a["point"], b["point"]])} for a, b in zip(*parts, strict=True)], whole)


def test_sources_travel_as_a_name():
    for name, (field, *_) in NAMES.items():
        source = data.load(name, split="test")
        source.take(np.arange(5))
        sent = pickle.dumps(source)
        assert len(sent) < 1000
        copy = pickle.loads(sent)
        assert repr(copy) == repr(source) and copy.fields == source.fields
        np.testing.assert_array_equal(copy.take(np.arange(50))[field], source.take(np.arange(50))[field])


@pytest.mark.full
def test_worker_processes_give_the_same_batches():
    source = data.load("swiss_roll")
    reference = _take(data.loader(source, batch_size=64, seed=1), 3)
    iterator = data.loader(source, batch_size=64, seed=1, workers=1)
    _assert_equal(_take(iterator, 3), reference)
    iterator.close()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: data.load("swiss_roll", size=8), "size=8 is for images that are cut as they are read, and swiss_roll has none"),
        (
            lambda: data.load("heartbeats", channels=1),
            "channels=1 is for images that are cut as they are read, and heartbeats has none",
        ),
        (lambda: data.load("heartbeats", split="valid"), "heartbeats has no split 'valid'; it has train, test"),
        (lambda: data.load("swiss_roll/3"), "swiss_roll has no configs, ask for 'swiss_roll'"),
        (lambda: data.load("swissroll"), "did you mean swiss_roll"),
        (lambda: data.load("heartbeat"), "did you mean heartbeats"),
        (lambda: data.load("qqqqq"), "captioned_shapes, digits, heartbeats, mnist_5k, patches/16, patches/32, "
         "patches/16_photographs, patches/32_photographs, swiss_roll"),
        (lambda: data.loader(data.load("swiss_roll"), batch_size=4, seed=0, flip=True), "flip=True is for images"),
        (lambda: data.loader(data.load("heartbeats"), batch_size=4, seed=0, crop=1), "crop=1 is for images"),
        (lambda: data.loader(data.load("heartbeats"), batch_size=4, seed=0, dequantize=True), "heartbeats holds sequences"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(data.DataError) as raised:
        call()
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_nothing_is_prepared(monkeypatch, tmp_path):
    for name in ("prepared", "source_of"):
        monkeypatch.setattr(_records, name, lambda *_, **__: pytest.fail("a builder was asked for"))
    monkeypatch.setenv("DIFFUX_CACHE", str(tmp_path))
    for name in NAMES:
        assert len(data.load(name)) == 10_000 and data.splits(name) == {"train": 10_000, "test": 10_000}
    assert list(tmp_path.iterdir()) == []
