"""Archives of pictures, as WebDataset has them."""

import io
import json
import pickle
import tarfile

import pytest

from diffux import data
from diffux.data.shards import expanded
from tests.data.pictured import agree, caption, damaged, picture

pytest.importorskip("tokenizers")


def _write(path, files, form=tarfile.GNU_FORMAT, mode="w"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode, format=form) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def _example(number, form="png", key=None, **options):
    key = key or f"{number:05}"
    return {f"{key}.{form}": picture(number, form), f"{key}.txt": caption(number).encode(), f"{key}.cls": str(number).encode()}


def _examples(*numbers, **options):
    return {name: content for number in numbers for name, content in _example(number, **options).items()}


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("picture_form", ["png", "webp"])
def test_files_of_one_name_are_an_example(tmp_path, form, picture_form):
    path = _write(tmp_path / "a.tar", _examples(*range(12), form=picture_form), form)
    source = data.load(f"shards:{path}")
    assert list(source.fields) == ["image", "caption", "label"] and agree(source) == list(range(12))
    assert source.fields["label"].classes == 12
    assert agree(pickle.loads(pickle.dumps(source))) == list(range(12))
    assert list(data.load(f"shards:{path}", captions=False).fields) == ["image", "label"]


def test_captions_and_classes_of_json(tmp_path):
    for entry, option in (("caption", {}), ("text", {}), ("prompt", {}), ("alt", {"caption": "alt", "label": "kind"})):
        said = {n: {entry: caption(n), option.get("label", "label"): n, "caption ": "?", "width": 4} for n in range(12)}
        files = {}
        for number in range(12):
            files |= {f"{number}.JPG": picture(number), f"{number}.json": json.dumps(said[number]).encode()}
        path = _write(tmp_path / "a.tar", files)
        source = data.load(f"shards:{path}", **option)
        assert list(source.fields) == ["image", "caption", "label"] and agree(source) == list(range(12))
    with pytest.raises(data.DataError, match=r"12 of the 12 images of .* have no caption"):
        data.load(f"shards:{path}", caption="none")


def test_the_name_ends_at_the_first_point_and_folders_are_part_of_it(tmp_path):
    files = {name: content for n in range(8) for name, content in _example(n, key=f"{n % 4}/a{n // 4}").items()}
    files |= {"0/a0.seg.png": picture(20), "0/a0.0.txt": b"other", "._0.png": b"", ".hidden/0.png": picture(19), "README": b"",
              "notes.txt": b"no picture", "__MACOSX/0/a0.png": picture(21)}  # fmt: skip
    source = data.load(f"shards:{_write(tmp_path / 'a.tar', files)}")
    assert agree(source) == list(range(8)) and len(source) == 8
    assert any("1 names in" in note and "have no image" in note for note in source.notes)


@pytest.mark.parametrize("long", ["x" * 120, "é" * 60, "a" * 90 + "/" + "b" * 90])
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names(tmp_path, long, form):
    files = {name: content for number in range(4) for name, content in _example(number, key=f"{long}{number}").items()}
    assert agree(data.load(f"shards:{_write(tmp_path / 'a.tar', files, form)}")) == list(range(4))


def test_several_archives_by_a_pattern_by_braces_or_in_a_folder(tmp_path):
    for shard in range(3):  # the same names in each
        files = {name: content for n in range(4) for name, content in _example(4 * shard + n, key=f"{n}").items()}
        _write(tmp_path / f"a-{shard:03}.tar", files)
    for form in (f"{tmp_path}/a-*.tar", f"{tmp_path}/a-{{000..002}}.tar", f"{tmp_path}/a-00{{0,1,2}}.tar", f"{tmp_path}"):
        source = data.load(f"shards:{form}")
        assert agree(source) == list(range(12)) and data.splits(f"shards:{form}") == {"train": 12}
        assert data.arrays(source)["label"].tolist() == list(range(12))  # in the order of the archives and of their files
    assert agree(data.load(f"shards:{tmp_path}/a-{{001..002}}.tar")) == list(range(4, 12))
    with pytest.raises(data.DataError, match=r"there is no archive .*a-003\.tar"):
        data.load(f"shards:{tmp_path}/a-{{000..003}}.tar")
    with pytest.raises(data.DataError, match=r"there is no archive .*b-\*\.tar"):
        data.load(f"shards:{tmp_path}/b-*.tar")
    with pytest.raises(data.NoSplit, match="has no split 'test'; it has train"):
        data.load(f"shards:{tmp_path}/a-*.tar", split="test")
    with pytest.raises(data.DataError, match="stand for 1,000,000 names, and at most 100,000"):
        expanded("{000000..999999}.tar")
    with pytest.raises(data.DataError, match="at most 100,000"):
        expanded("{0..999}-{0..999}.tar")


def test_splits_are_folders_or_begin_the_names(tmp_path):
    _write(tmp_path / "folders/train/0.tar", _examples(0, 1, 2))
    _write(tmp_path / "folders/val/0.tar", _examples(3))
    _write(tmp_path / "names/train-0.tar", _examples(0, 1))
    _write(tmp_path / "names/train_1.tar", _examples(2))
    _write(tmp_path / "names/validation.tar", _examples(3))
    for place in ("folders", "names"):
        name = f"shards:{tmp_path}/{place}"
        assert data.splits(name) == {"train": 3, "validation": 1}
        train = data.load(name)
        held_out = data.load(name, split="validation", like=train.fields)
        assert agree(train) == [0, 1, 2] and held_out.fields["caption"] == train.fields["caption"]
        assert data.arrays(held_out)["caption"].tolist() == [[1]]  # "three" was never seen
        with pytest.raises(data.NoSplit, match="has no split 'test'; it has train, validation"):
            data.load(name, split="test")
    _write(tmp_path / "names/trainer.tar", _examples(4))  # which begins with no split
    assert data.splits(f"shards:{tmp_path}/names") == {"train": 5}
    (tmp_path / "empty").mkdir()
    with pytest.raises(data.DataError, match="has no archives"):
        data.load(f"shards:{tmp_path}/empty")


def test_damage(tmp_path):
    files = _examples(*range(12))
    path = _write(tmp_path / "a.tar", files)
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        last = archive.getmember("00011.cls")
    first = last.offset - 36 * 1024 + 1024  # each file has a block for its name and one for itself
    for cut in (whole[: last.offset_data + 1], whole[: last.offset], whole[: last.offset - 1], whole[: last.offset + 100],
                whole + whole, whole[:first] + b"x" * 512 + whole[first + 512 :], b"no archive", b"", whole[:600]):  # fmt: skip
        path.write_bytes(cut)
        with pytest.raises(data.DataError, match=r"a\.tar cannot be read as a plain \.tar, one that is whole and not compressed"):
            data.load(f"shards:{path}")
    _write(path, files, mode="w:gz")
    with pytest.raises(data.DataError, match=r"cannot be read as a plain \.tar, one that is whole and not compressed"):
        data.load(f"shards:{path}")
    _write(path, files | {"00011.cls": b"eleven"})
    with pytest.raises(data.DataError, match=r"1 of 12 .*: 00011\.cls in .*a\.tar is no number of a class, got 'eleven'"):
        data.load(f"shards:{path}")
    _write(path, files | {"00003.txt": b"gr\xf6\xdfe"})
    with pytest.raises(data.DataError, match=r"00003\.txt in .*a\.tar is not in UTF-8 \(byte 2, 0xf6\)"):
        data.load(f"shards:{path}")
    _write(path, files | {"00003.json": b"{"})
    with pytest.raises(data.DataError, match=r"00003\.json in .*a\.tar cannot be read as JSON"):
        data.load(f"shards:{path}")
    _write(path, {name: content for name, content in files.items() if name != "00003.txt"})
    with pytest.raises(data.DataError, match=r"1 of the 12 images .* no caption, .* the first is 00003\.png in .*a\.tar"):
        data.load(f"shards:{path}")
    _write(path, {name: content for name, content in files.items() if name != "00003.cls"})
    with pytest.raises(data.DataError, match=r"00003\.png in .*a\.tar has no class, and others of"):
        data.load(f"shards:{path}")
    _write(path, {"1.txt": b"alone"})
    with pytest.raises(data.DataError, match="have no images"):
        data.load(f"shards:{path}")
    with pytest.raises(data.DataError, match="named with their path, as shards:"):
        data.load("shards:")


def test_up_to_one_per_cent_of_the_pictures_may_be_unreadable(tmp_path):
    files = {}
    for number in range(200):
        files |= _example(number % 20, key=f"{number:03}")
    path = _write(tmp_path / "a.tar", files | {"005.png": damaged(5), "006.png": b"no picture"})
    source = data.load(f"shards:{path}")
    assert len(source) == 199 and any("1 of the 200 images are left out, the first as 006.png in" in note for note in source.notes)
    with pytest.warns(UserWarning, match=r"005\.png in .*a\.tar cannot be read as an image"):
        assert agree(source) == list(range(20))
    source = data.load(f"shards:{_write(tmp_path / 'b.tar', files)}")
    (tmp_path / "b.tar").write_bytes(b"")  # by another, while it is read
    with pytest.warns(UserWarning), pytest.raises(data.DataError, match=r"3 of 200 .* \(the archive has been cut short\)"):
        data.arrays(source)


def test_links_and_folders_in_an_archive_are_no_examples(tmp_path):
    path = _write(tmp_path / "a.tar", _examples(*range(4)))
    with tarfile.open(path, "a") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
            entry = tarfile.TarInfo(f"9{kind.decode()}.png")
            entry.type, entry.linkname = kind, "00000.png"
            archive.addfile(entry)
    assert agree(data.load(f"shards:{path}")) == list(range(4))
