"""TFDS's own data sets: prepared copies are read without TensorFlow, all else is one sentence, at once."""

import io
import json
import shutil
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core import registered

from diffux import data
from diffux.data import source as sources
from diffux.data.cache import quiet
from diffux.data.images import encode
from diffux.fields import Image as Picture
from diffux.fields import Label

RNG = np.random.default_rng(0)


def _picture(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def _jpeg(*shape):
    buffer = io.BytesIO()
    Image.fromarray(_picture(*shape)).save(buffer, "jpeg")
    return buffer.getvalue()


def _prepare(name, splits, data_dir, config=None):
    """What a user's prepared copy looks like: the real builder's features and files, with examples of our own."""
    real = tfds.builder_cls(name)  # imports the module, which must register its builders
    with registered.skip_registration():

        class Copy(real):
            def _split_generators(self, dl_manager):
                return {split: self._generate_examples(rows) for split, rows in splits.items()}

            def _generate_examples(self, rows):
                yield from enumerate(rows)

    Copy.name = name
    builder = Copy(data_dir=data_dir, **({"config": config} if config else {}))
    with quiet():
        builder.download_and_prepare(file_format="array_record")
    return builder


@pytest.fixture(scope="module")
def mnist(tmp_path_factory):
    root = tmp_path_factory.mktemp("stock")
    images = [_picture(28, 28, 1) for _ in range(24)]
    rows = [{"image": encode(image), "label": i % 10} for i, image in enumerate(images)]
    builder = _prepare("mnist", {"train": rows[:20], "test": rows[20:]}, root)
    return root, images, builder.data_dir


def test_prepared_copy(mnist):
    root, images, _ = mnist
    source = data.load("mnist", data_dir=root)
    assert len(source) == 20 and source.fields == {"image": Picture((28, 28, 1), levels=256), "label": Label(10)}
    expected = {(image.tobytes(), i % 10) for i, image in enumerate(images[:20])}
    assert {(source[i]["image"].tobytes(), source[i]["label"]) for i in range(20)} == expected
    assert data.splits("mnist", data_dir=root) == {"train": 20, "test": 4}
    assert data.load("mnist", data_dir=root, size=32, channels=3)[0]["image"].shape == (32, 32, 3)


def test_streamed_when_larger_than_memory(mnist, monkeypatch):
    in_memory = list(data.loader(data.load("mnist", data_dir=mnist[0]), batch_size=6, seed=0, epochs=2))
    monkeypatch.setattr(sources, "MEMORY", 0)
    streamed = list(data.loader(data.load("mnist", data_dir=mnist[0]), batch_size=6, seed=0, epochs=2))
    for a, b in zip(in_memory, streamed, strict=True):
        np.testing.assert_array_equal(a["image"], b["image"])
        np.testing.assert_array_equal(a["label"], b["label"])


def test_tfds_own_directory_without_tensorflow(mnist, python):
    code = """
import sys
from diffux import data
assert next(data.loader(data.load("mnist"), batch_size=5, seed=0))["image"].shape == (5, 28, 28, 1)
try:
    data.load("celeb_a")
except data.DataError as error:
    print(error)
assert "tensorflow" not in sys.modules
"""
    process = python(code, TFDS_DATA_DIR=str(mnist[0]))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0 and err == "", err
    assert f"celeb_a is not prepared in {mnist[0]}" in out and "up to 1.4 GiB" in out and "data_dir='" not in out


def test_attributes_instead_of_a_label(tmp_path):
    features = tfds.builder_cls("celeb_a")(data_dir=tmp_path).info.features
    row = {key: dict.fromkeys(features[key], 0) for key in ("attributes", "identity", "landmarks")}
    row["attributes"] = dict.fromkeys(features["attributes"], False)
    _prepare("celeb_a", {"train": [{"image": _jpeg(218, 178, 3), **row} for _ in range(3)]}, tmp_path)
    source = data.load("celeb_a", data_dir=tmp_path)
    assert source.fields == {"image": Picture((218, 178, 3))} and source[0].keys() == {"image"}
    assert next(data.loader(data.load("celeb_a", data_dir=tmp_path, size=64), batch_size=2, seed=0))["image"].shape == (
        2,
        64,
        64,
        3,
    )


def test_configs(tmp_path):
    rows = [{"image": encode(_picture(32, 32, 3)), "label": 7}]
    _prepare("imagenet_resized", {"train": rows}, tmp_path, config="32x32")
    source = data.load("imagenet_resized/32x32", data_dir=tmp_path)
    assert source.first.shape == (32, 32, 3) and source.fields["label"].classes == 1000 and source[0]["label"] == 7
    with pytest.raises(data.DataError, match="imagenet_resized/64x64 is not prepared"):
        data.load("imagenet_resized/64x64", data_dir=tmp_path)


def test_images_of_different_shapes_name_size(tmp_path):
    rows = [{"image": _jpeg(20 + i, 30, 3), "image/filename": f"{i}.jpg", "label": 0} for i in range(3)]
    _prepare("imagenette", {"train": [{k: row[k] for k in ("image", "label")} for row in rows]}, tmp_path)
    with pytest.raises(data.DataError, match=r"images of different shapes .*pass size="):
        data.arrays(data.load("imagenette", data_dir=tmp_path))
    assert data.arrays(data.load("imagenette", data_dir=tmp_path, size=16))["image"].shape == (3, 16, 16, 3)


def test_unprepared_says_what_to_do_at_once(tmp_path):
    began = time.monotonic()
    with pytest.raises(data.DataError) as error:
        data.load("cifar10", data_dir=tmp_path)
    assert time.monotonic() - began < 2
    message = str(error.value)
    for part in ("not prepared", "pip install diffux[tfds]", "array_record", "162 MiB", str(tmp_path)):
        assert part in message
    command = message.split("`")[1]
    code = command.removeprefix('python -c "').removesuffix('"')
    compile(code, "command", "exec")
    assert list(tmp_path.iterdir()) == [] and "\n" not in message


def test_tfrecord_copy_says_how_to_prepare_again(mnist, tmp_path):
    shutil.copytree(mnist[0] / "mnist", tmp_path / "mnist")
    info = tmp_path / "mnist" / "3.0.1" / "dataset_info.json"
    text = json.loads(info.read_text())
    text["fileFormat"] = "tfrecord"
    info.write_text(json.dumps(text))
    with pytest.raises(data.DataError, match=r"stored as tfrecord, which has no random access: delete .*array_record"):
        data.load("mnist", data_dir=tmp_path)


def test_damaged_copy(mnist, tmp_path):
    shutil.copytree(mnist[0] / "mnist", tmp_path / "mnist")
    next((tmp_path / "mnist" / "3.0.1").glob("*train*")).unlink()
    with pytest.raises(data.DataError, match=r"mnist in .* cannot be read .*prepare it again"):
        data.load("mnist", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("digit", "digits"),
        ("pathces", "patches"),
        ("cifar11", "cifar10"),
        ("CIFAR-10", "cifar10"),
        ("celeba", "celeb_a"),
        ("fashionmnist", "fashion_mnist"),
        ("patches/64", "patches/16, patches/32"),
        ("digits/8", "comes as digits"),
        ("imagenet_resized/63x63", "imagenet_resized/64x64"),
        ("mnist/big", "ask for 'mnist'"),
        ("", "captioned_shapes, digits, heartbeats, mnist_5k, patches/16"),
        ("xyzzy", "captioned_shapes, digits, heartbeats, mnist_5k, patches/16"),
        ("a/b/c", "captioned_shapes, digits, heartbeats, mnist_5k, patches/16"),
    ],
)
def test_unknown_names_are_answered_by_near_ones(name, near):
    with pytest.raises(data.DataError, match="unknown data set") as error:
        data.load(name)
    message = str(error.value)
    assert near in message and len(message) < 250 and "\n" not in message


def test_sets_without_images():
    with pytest.raises(data.DataError, match="imdb_reviews is not an image data set: its features are text, label"):
        data.load("imdb_reviews")


def test_unknown_split(mnist):
    with pytest.raises(data.DataError, match="mnist has no split 'valid'; it has train, test"):
        data.load("mnist", split="valid", data_dir=mnist[0])
