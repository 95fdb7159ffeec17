"""Where prepared data lives, and that it is whole whatever happened while it was written."""

import functools
import hashlib
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from diffux import data
from diffux.data import cache as caching


def test_cache_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("DIFFUX_CACHE", str(tmp_path / "here"))
    assert data.cache_dir() == tmp_path / "here"
    monkeypatch.delenv("DIFFUX_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data.cache_dir() == tmp_path / ".cache" / "diffux"


@pytest.mark.full
def test_two_processes_prepare_one_set_at_once(python, tmp_path):
    code = """
import hashlib, pathlib, sys, time
from diffux import data
from diffux.data import cache
me, other, root = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
install = cache.install
def at_once(make, *arguments, **options):
    def build(scratch):
        made = make(scratch)
        (root / me).touch()
        while not (root / other).exists(): time.sleep(0.001)  # both have built a copy before either is renamed
        return made
    install(build, *arguments, **options)
cache.install = at_once
images = data.arrays(data.load("digits", data_dir=root / "data"))["image"]
print(hashlib.sha256(images.tobytes()).hexdigest())
"""
    processes = [python(code, a, b, tmp_path) for a, b in (("a", "b"), ("b", "a"))]
    results = [p.communicate(timeout=120) for p in processes]
    assert [p.returncode for p in processes] == [0, 0], results
    assert (tmp_path / "a").exists() and (tmp_path / "b").exists(), "one of them did not prepare"
    images = data.arrays(data.load("digits"))["image"]
    assert {out.strip() for out, _ in results} == {hashlib.sha256(images.tobytes()).hexdigest()}
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == ["digits"], "leftovers"


@pytest.fixture
def copy(cache, tmp_path):
    """A prepared copy of digits to be damaged."""
    data.load("digits")
    shutil.copytree(cache / "data" / "digits", tmp_path / "digits")
    return tmp_path / "digits" / "1.0.0"


def _train_file(directory: Path) -> Path:
    return next(directory.glob("*train.array_record*"))


@pytest.mark.full(but=1)
@pytest.mark.parametrize("damage", ["nothing written", "no description", "missing file", "empty file", "truncated file"])
def test_damaged_copy_is_prepared_anew(copy, tmp_path, damage):
    file = _train_file(copy)
    if damage == "nothing written":
        shutil.rmtree(copy)
        copy.mkdir()
    elif damage == "no description":
        (copy / "dataset_info.json").unlink()
    elif damage == "missing file":
        file.unlink()
    elif damage == "empty file":
        file.write_bytes(b"")
    else:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    mended = data.arrays(data.load("digits", data_dir=tmp_path))["image"]
    np.testing.assert_array_equal(mended, data.arrays(data.load("digits"))["image"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["digits"]


def test_whole_copy_is_only_read(copy, tmp_path, monkeypatch):
    monkeypatch.setattr(caching, "install", lambda *_, **__: pytest.fail("prepared again"))
    assert len(data.load("digits", data_dir=tmp_path)) == 1437


def test_preparation_that_fails_leaves_nothing(tmp_path, monkeypatch):
    from diffux.data.digits import digits_dataset_builder

    def fail(*_):
        raise RuntimeError("killed")
        yield

    monkeypatch.setattr(digits_dataset_builder.Builder, "_generate_examples", fail)
    with pytest.raises(RuntimeError, match="killed"):
        data.load("digits", data_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_process_are_cleared_when_stale(tmp_path):
    stale, young = tmp_path / ".incomplete-stale", tmp_path / ".incomplete-young"
    for path in (stale, young):
        (path / "digits").mkdir(parents=True)
    os.utime(stale, (0, time.time() - 2 * 3600))
    data.load("digits", data_dir=tmp_path)
    assert not stale.exists() and young.exists()


def test_unwritable_cache(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a directory")
    monkeypatch.setenv("DIFFUX_CACHE", str(tmp_path / "file"))
    with pytest.raises(data.DataError, match=r"cannot be written .*set DIFFUX_CACHE, or pass data_dir") as error:
        data.load("digits")
    assert "\n" not in str(error.value)


@pytest.mark.full
def test_embedded_builders_are_real_tfds_builders():
    import tensorflow_datasets as tfds

    from diffux.data.digits.digits_dataset_builder import Builder as Digits
    from diffux.data.patches.patches_dataset_builder import Builder as Patches

    for name, make in (("digits", Digits), ("patches/32", functools.partial(Patches, config="32"))):
        data.load(name)
        builder = make(data_dir=caching.data_root())
        assert isinstance(builder, tfds.core.GeneratorBasedBuilder)
        assert builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD
        assert len(tfds.builder_from_directory(builder.data_dir).as_data_source("test")) == len(data.load(name, split="test"))
