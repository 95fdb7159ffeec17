"""Emoji and their names: of a font and names in small, and of the packages where they are there."""

import hashlib
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from diffux import data
from diffux.cli import _config
from diffux.config.plan import plan
from diffux.data import emoji
from diffux.fields import Image as Picture

pytest.importorskip("tokenizers")
tiny_font = pytest.importorskip("tests.data.tiny_font", exc_type=ImportError)

TONES = "\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"
SAID = ("light", "medium-light", "medium", "medium-dark", "dark")
FLAG, ENGLAND = "\U0001f1e9\U0001f1ea", "\U0001f3f4" + "".join(chr(0xE0000 + ord(sign)) for sign in "gbeng") + "\U000e007f"
PLAIN = [chr(code) for code in range(0x1F400, 0x1F440)]


def _held_out(sign):
    return int.from_bytes(hashlib.sha256(sign.encode()).digest(), "big") % 10 == 0


# by their own code points they would be in different splits
TWINS = tuple(next(chr(code) for code in range(0x1F980, 0x1FA00) if _held_out(chr(code)) == held) for held in (True, False))


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """64 plain emoji, five of which also in all tones, two flags, and twins that are drawn alike."""
    made = {sign: (f"animal {number}", tiny_font.disc((number, 2 * number, 100))) for number, sign in enumerate(PLAIN)}
    for number, sign in enumerate(PLAIN[:5]):
        for place, (tone, said) in enumerate(zip(TONES, SAID, strict=True)):
            made[sign + tone] = (f"animal {number}: {said} skin tone", tiny_font.disc((number, place, 200)))
    made[FLAG] = ("flag: Germany", tiny_font.disc((255, 0, 0)))
    made[ENGLAND] = ("flag: England", tiny_font.disc((255, 0, 1)))
    made[TWINS[0]], made[TWINS[1]] = (("twin: elder", tiny_font.disc((7, 7, 7))), ("twin: younger", tiny_font.disc((7, 7, 7))))
    words = {PLAIN[3]: "animal 3 | beast | tail &amp; ears"}
    return tiny_font.write(tmp_path_factory.mktemp("font"), made, words)


def _captions(source):
    return source.fields["caption"].words(data.arrays(source)["caption"])


def _whole(there, **options):
    return [data.load("emoji", split=split, **there | options) for split in ("train", "test")]


def test_pictures_have_their_own_names(there):
    for source in _whole(there):
        assert source.fields["image"] == Picture((32, 32, 3)) and source.sided
        assert agree(source) and agree(pickle.loads(pickle.dumps(source)))


def agree(source):
    """The colours of the animals, at the middle of each, are those of the numbers in their names."""
    rows = data.arrays(source)
    found = [(int(name.split()[1]), image[16, 16].tolist()) for name, image in zip(_captions(source), rows["image"], strict=True)
             if name.startswith("animal")]  # fmt: skip
    return found and all(middle == [number, 2 * number, 100] for number, middle in found)


def test_the_picture_is_whole_in_the_middle_of_the_ground(there):
    """17 x 13 pixels with an edge of 4: on a square of 17, two rows below its upper side, an opaque 9 x 5."""
    image = data.load("emoji", size=17, ground="#0a141e", **there)[0]["image"]
    ground = (image == [10, 20, 30]).all(-1)
    assert np.argwhere(~ground).min(0).tolist() == [6, 4] and np.argwhere(~ground).max(0).tolist() == [10, 12]
    assert ground.sum() == 17 * 17 - 9 * 5
    white = data.load("emoji", size=17, **there)[0]["image"]
    assert (white[ground] == 255).all() and (white[~ground] == image[~ground]).all()
    assert data.load("emoji", size=(8, 4), channels=1, **there).fields["image"] == Picture((8, 4, 1))
    with pytest.raises(data.DataError, match="ground is a colour by its name or as '#rrggbb', got 'greyish'"):
        data.load("emoji", ground="greyish", **there)


def test_tones_and_flags_are_asked_for(there):
    count = lambda **options: sum(map(len, _whole(there, **options)))  # noqa: E731
    assert count() == 66 and count(tones=True) == 66 + 25 and count(flags=True) == 66 + 2
    said = [name for source in _whole(there, tones=True, flags=True) for name in source.reader.captions]
    assert len(said) == len({*said}) == 93 and {"flag: Germany", "flag: England", "animal 4: medium-dark skin tone"} <= {*said}


def test_all_tones_and_all_that_is_drawn_alike_are_in_one_split(there):
    train, test = (set(source.reader.captions) for source in _whole(there, tones=True))
    assert not train & test and test
    for mine, others in ((train, test), (test, train)):
        assert not {name.partition(":")[0] for name in mine} & {name.partition(":")[0] for name in others}


def test_the_split_is_a_hash_of_the_code_points(there):
    """So that an emoji stays where it is whatever else there is."""
    held_out = [sign for sign in PLAIN if _held_out(sign)]
    test = data.load("emoji", split="test", **there)
    assert [f"animal {PLAIN.index(sign)}" for sign in held_out] == [name for name in test.reader.captions if "animal" in name]


def test_couples_of_two_tones_are_with_the_couple():
    """🤝 and 🫱🏻‍🫲🏼 have no code point in common, and one name."""
    pair = "\U0001faf1\U0001f3fb\u200d\U0001faf2\U0001f3fc"
    kiss = "\U0001f9d1\U0001f3fb\u200d❤\u200d\U0001f9d1\U0001f3fc"
    red = "\U0001f468\U0001f3fd\u200d\U0001f9b0"
    names = {"\U0001f91d": "handshake", pair: "handshake: light skin tone, medium-light skin tone", "\U0001f48f": "kiss",
             kiss: "kiss: person, person, light skin tone, medium-light skin tone", red: "man: medium skin tone, red hair",
             red.replace("\U0001f3fd", ""): "man: red hair", "\U0001f468": "man"}  # fmt: skip
    by_name = {name: sign for sign, name in names.items()}
    base = {sign: emoji._base(sign, names, by_name) for sign in names}
    assert base[pair] == "\U0001f91d" and base[kiss] == "\U0001f48f" and base[red] == red.replace("\U0001f3fd", "")


def test_keywords_follow_the_name(there):
    source = data.load("emoji", keywords=True, **there)
    test = data.load("emoji", split="test", keywords=True, **there)
    assert "animal 3, beast, tail & ears" in source.reader.captions + test.reader.captions


def test_the_held_out_split_has_the_vocabulary_of_training(there):
    config = {"system": {"name": "ddpm"}, "data": {"name": "emoji", "batch_size": 4, "options": {"vocabulary": 90, **there}}}
    train, test = plan(config).data.sources()
    assert test.split == "test" and test.fields["caption"] == train.fields["caption"] and train.fields["caption"].size == 90
    assert all(name.split()[0] in ("animal", "twin") for name in _captions(test))
    with pytest.raises(data.DataError, match="says what is left and right"):  # of arrows
        data.loader(train, batch_size=4, seed=0, flip=True)


def test_without_the_packages_the_command_is_said(there, tmp_path, monkeypatch):
    install = r"apt-get install fonts-noto-color-emoji unicode-cldr-core"
    for missing in ({"font": str(tmp_path / "none.ttf")}, {"annotations": str(tmp_path)}):
        with pytest.raises(data.DataError, match=rf"^emoji need .*, which is not there: {install}, or say where"):
            data.load("emoji", **there | missing)
        with pytest.raises(data.DataError, match=install):
            data.describe("emoji", **there | missing)
        found = data.describe("emoji", vocabulary=50, length=7, **there | missing)
        assert found["image"] == Picture((32, 32, 3)) and (found["caption"].size, found["caption"].shape) == (50, (7,))
    assert data.describe("emoji", **there) == data.load("emoji", **there).fields
    monkeypatch.setitem(sys.modules, "fontTools.ttLib", None)
    with pytest.raises(data.DataError, match=r'emoji need the package fontTools: pip install "diffux\[emoji\]"'):
        data.load("emoji", **there)


def test_files_of_another_kind_are_refused(there, tmp_path):
    from fontTools.ttLib import TTFont

    (tmp_path / "a.ttf").write_bytes(b"no font")
    with pytest.raises(data.DataError, match=r"a\.ttf cannot be read as a font"):
        data.load("emoji", **there | {"font": str(tmp_path / "a.ttf")})
    with TTFont(there["font"]) as font:
        del font["CBDT"], font["CBLC"]
        font.save(tmp_path / "a.ttf")
    with pytest.raises(data.DataError, match=r"a\.ttf has no coloured bitmaps \(CBDT\)"):
        data.load("emoji", **there | {"font": str(tmp_path / "a.ttf")})
    for folder in ("annotations", "annotationsDerived"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "en.xml").write_text("<ldml><annotations/></ldml>")
    with pytest.raises(data.DataError, match="has no picture of what"):
        data.load("emoji", **there | {"annotations": str(tmp_path)})
    (tmp_path / "annotations/en.xml").write_text("<ldml>")
    with pytest.raises(data.DataError, match=r"en\.xml cannot be read as annotations of CLDR"):
        data.load("emoji", **there | {"annotations": str(tmp_path)})
    with pytest.raises(data.NoSplit, match="emoji has no split 'validation'; it has train, test"):
        data.load("emoji", split="validation")
    with pytest.raises(data.DataError, match="unknown data set 'emoji/64'; emoji comes as emoji"):
        data.load("emoji:64")


def test_the_config_knows_the_words():
    """Where the packages are not there as well."""
    config = _config.read(str(Path(__file__).parents[2] / "experiments" / "configs" / "glide_emoji.py"), [])
    for place in ({}, {"font": "/nowhere"}):
        made = plan(config | {"data": config["data"] | {"options": config["data"]["options"] | place}})
        found = made.data.fields()["caption"]
        made.check_data(made.data.fields())
        assert (found.size, found.length) == (config["system"]["tokens"], config["system"]["length"])


@pytest.mark.skipif(not Path(emoji.FONT).is_file() or not Path(emoji.ANNOTATIONS).is_dir(), reason="the packages are not there")
def test_of_the_packages():
    """What anybody knows of emoji; there are some more with every version of Unicode."""
    train, test = data.load("emoji"), data.load("emoji", split="test")
    said = {*train.reader.captions} | {*test.reader.captions}
    assert {"grinning face", "pizza", "red apple", "woman astronaut", "keycap: 3"} <= said
    assert not any("skin tone" in name or name.startswith("flag: ") for name in said)
    assert 1500 < len(train) + len(test) < 1700 and 0.08 < len(test) / (len(train) + len(test)) < 0.12
    assert train.fields["caption"].size <= 2048 and not {*train.reader.files} & {*test.reader.files}
    tones = [data.load("emoji", split=split, tones=True, flags=True) for split in ("train", "test")]
    assert sum(map(len, tones)) > 3300 and max(one.fields["caption"].length for one in tones) <= 20
    assert not {*tones[0].reader.files} & {*tones[1].reader.files}
    home = train if "red heart" in train.reader.captions else test
    heart = home[home.reader.captions.index("red heart")]["image"]
    assert heart[16, 16, 0] > 150 > 100 > heart[16, 16, 1] and heart[0].min() == 255  # red, on white
