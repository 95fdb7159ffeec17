"""Emoji with their names: the pictures of Noto Color Emoji, captioned by the short names of Unicode's CLDR.

Both are packages of Debian and Ubuntu, and neither is imported or downloaded: `apt-get install fonts-noto-color-emoji
unicode-cldr-core`. The font is under the SIL Open Font License, the names under the Unicode licence.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from PIL import Image as Pictures
from PIL import ImageColor

from diffux.data import _captions, _pictures
from diffux.data.images import decode, sides
from diffux.data.source import Source
from diffux.errors import DataError, NoSplit, one_sentence
from diffux.fields import Field, Image
from diffux.files import path_of

FORMS = ()  # needs two packages that pip does not bring
FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
ANNOTATIONS = "/usr/share/unicode/cldr/common"
SPLITS = ("train", "test")
TONES = frozenset(map(chr, range(0x1F3FB, 0x1F400)))
_FLAGS = frozenset(map(chr, [*range(0x1F1E6, 0x1F200), *range(0xE0020, 0xE0080)]))  # letters of countries, and tags of regions
_SIDE = 32
_TEST = 10  # one in so many is held out


class Emoji:
    """`read(i)` -> {"image": uint8 (H, W, channels), "caption": string}: a picture in the middle of a square of the ground."""

    def __init__(self, files: list[bytes], captions: list[str], channels: int, size: Any, ground: tuple[int, int, int]):
        self.files, self.captions, self.channels, self.size, self.ground = files, captions, channels, size, ground

    def __len__(self):
        return len(self.files)

    def read(self, index):
        drawn = Pictures.open(io.BytesIO(self.files[index])).convert("RGBA")
        side = max(drawn.size)
        square = Pictures.new("RGBA", (side, side), self.ground)
        square.alpha_composite(drawn, ((side - drawn.width) // 2, (side - drawn.height) // 2))
        image = decode(square.convert("RGB"), channels=self.channels, size=self.size)
        return {"image": image, "caption": self.captions[index]}


def load(rest: str, *, split: str = "train", size=None, channels: int | None = None, ground: str = "white", tones: bool = False,
         flags: bool = False, keywords: bool = False, length: int | None = None, vocabulary: int | None = None,
         tokenizer: str | None = None, font: str = FONT, annotations: str = ANNOTATIONS,
         like: Mapping[str, Field] | None = None) -> Source:  # fmt: skip
    """One split, "train" or "test", of emoji and their English names, at 32x32 pixels unless `size` says otherwise.

    One in ten is held out, by a hash of its code points. Those that differ by the tone of a skin alone, and those that the font
    draws alike, are in one split.

    - ground: the colour behind them, by name or as "#rrggbb".
    - tones, flags: whether those with a tone of skin, and the flags of countries and regions, are among them.
    - keywords: whether the caption goes on with the further words that CLDR has for an emoji.
    - length, vocabulary, tokenizer: of captions, as of a `folder`.
    - font, annotations: a font with coloured bitmaps (CBDT), and the folder "common" of CLDR, where they lie elsewhere.
    - like: the fields of the split that these go with, whose vocabulary they take.

    Raises:
        NoSplit: another split.
        DataError: the packages are not there, or are of another kind, and a ground that is no colour.
    """
    _only(rest, split)
    colour = _colour(ground)
    names, words = _names(annotations)
    drawn = _drawn(font, names)
    if not drawn:
        raise DataError(f"the font {font} has no picture of what {annotations} names.")
    homes = _homes(drawn, names)
    mine = [emoji for emoji in sorted(drawn) if homes[emoji] == split and (tones or not TONES & set(emoji))
            and (flags or not _FLAGS & set(emoji))]  # fmt: skip
    if not mine:
        raise DataError(f"the split {split!r} of emoji in {font} is empty.")
    captions = [", ".join([names[emoji], *(words.get(emoji, ()) if keywords else ())]) for emoji in mine]
    field = _captions.field(captions, length=length, vocabulary=vocabulary, tokenizer=tokenizer, like=like)
    reader = Emoji([drawn[emoji] for emoji in mine], captions, channels or 3, size or _SIDE, colour)
    fields = {"image": Image((*sides(size or _SIDE), channels or 3)), "caption": field}
    return Source(reader, name="emoji", split=split, fields=fields, sided=True)


def describe(rest: str, *, split: str = "train", size=None, channels: int | None = None, ground: str = "white", tones: bool = False,
             flags: bool = False, keywords: bool = False, length: int | None = None, vocabulary: int | None = None,
             tokenizer: str | None = None, font: str = FONT, annotations: str = ANNOTATIONS) -> dict[str, Field]:  # fmt: skip
    """The fields; where the packages are not there, with captions as `length` and `vocabulary`, or `tokenizer`, say."""
    _only(rest, split)
    _colour(ground)
    known = _pictures.described(size or _SIDE, channels, True, length, vocabulary, tokenizer)
    there = all(path_of(word).is_file() for word in (font, *_files(annotations))) and importlib.util.find_spec("fontTools")
    if "caption" in known and not there:
        return known
    return load(rest, split=split, size=size, channels=channels, tones=tones, flags=flags, keywords=keywords, length=length,
                vocabulary=vocabulary, tokenizer=tokenizer, font=font, annotations=annotations).fields  # fmt: skip


def splits(rest: str) -> dict[str, int]:
    """The splits and their numbers of examples, without tones and flags."""
    return {split: len(load(rest, split=split)) for split in SPLITS}


def _only(rest: str, split: str) -> None:
    if rest:
        raise DataError(f"unknown data set 'emoji/{rest}'; emoji comes as emoji.")
    if split not in SPLITS:
        raise NoSplit(f"emoji has no split {split!r}; it has {', '.join(SPLITS)}.")


def _colour(ground: str) -> tuple[int, int, int]:
    try:
        return ImageColor.getrgb(ground)[:3]
    except ValueError as error:
        raise DataError(f"ground is a colour by its name or as '#rrggbb', got {ground!r}.") from error


def _files(annotations: str) -> list[str]:
    return [f"{annotations}/{folder}/en.xml" for folder in ("annotations", "annotationsDerived")]


def _there(word: str) -> Path:
    path = path_of(word)
    if not path.is_file():
        raise DataError(f"emoji need {path}, which is not there: apt-get install fonts-noto-color-emoji unicode-cldr-core, or say "
                        "where they lie by font= and annotations=.")  # fmt: skip
    return path


def _names(annotations: str) -> tuple[dict[str, str], dict[str, list[str]]]:
    """({emoji: short name}, {emoji: further words}) by CLDR, whose emoji are without variation selectors."""
    names, words = {}, {}
    for file in _files(annotations):
        path = _there(file)
        try:
            tree = ElementTree.parse(path)
        except (OSError, ElementTree.ParseError) as error:
            raise DataError(f"{path} cannot be read as annotations of CLDR: {one_sentence(error)}") from error
        for entry in tree.iter("annotation"):
            emoji, said = entry.get("cp", "").replace("\ufe0f", ""), " ".join((entry.text or "").split())
            if entry.get("type") == "tts":
                names[emoji] = said
            else:
                words[emoji] = said.split(" | ")
    return names, {emoji: [word for word in said if word != names.get(emoji)] for emoji, said in words.items()}


def _drawn(font: str, names: Mapping[str, str]) -> dict[str, bytes]:
    """{emoji: PNG} of what a font has a coloured bitmap for, those of several code points by its ligatures."""
    path = _there(font)
    try:
        from fontTools.ttLib import TTFont, TTLibError
    except ImportError as error:
        raise DataError('emoji need the package fontTools: pip install "diffux[emoji]"') from error
    try:
        with TTFont(path, lazy=True) as found:
            if "CBDT" not in found:
                raise DataError(f"the font {path} has no coloured bitmaps (CBDT), as that of fonts-noto-color-emoji has.")
            glyphs, joined = found.getBestCmap() or {}, _ligatures(found)
            pictures = {name: glyph.imageData for strike in found["CBDT"].strikeData for name, glyph in strike.items()
                        if hasattr(glyph, "imageData")}  # fmt: skip
    except (OSError, TTLibError) as error:
        raise DataError(f"{path} cannot be read as a font: {one_sentence(error)}") from error
    drawn = {}
    for emoji in names:
        parts = tuple(glyphs.get(ord(sign)) for sign in emoji)
        glyph = parts[0] if len(parts) == 1 else joined.get(parts)
        if glyph in pictures:
            drawn[emoji] = pictures[glyph]
    return drawn


def _ligatures(font: Any) -> dict[tuple[str, ...], str]:
    """{glyphs: the one that stands for them}."""
    found = {}
    for lookup in font["GSUB"].table.LookupList.Lookup if "GSUB" in font else ():
        for table in lookup.SubTable:
            for first, sets in getattr(getattr(table, "ExtSubTable", table), "ligatures", {}).items():
                found |= {(first, *one.Component): one.LigGlyph for one in sets}
    return found


def _homes(drawn: Mapping[str, bytes], names: Mapping[str, str]) -> dict[str, str]:
    """{emoji: its split}: one for all tones of a base, and for all that are drawn alike."""
    by_name = {name: emoji for emoji, name in names.items()}
    bases = {emoji: _base(emoji, names, by_name) for emoji in drawn}
    groups: dict[str, str] = {}

    def top(base):
        while groups.setdefault(base, base) != base:
            base = groups[base]
        return base

    alike: dict[bytes, str] = {}
    for emoji in sorted(drawn):
        one, other = sorted((top(bases[emoji]), top(alike.setdefault(drawn[emoji], bases[emoji]))))
        groups[other] = one  # the smaller code points stand for both
    number = {base: int(hashlib.sha256(base.encode()).hexdigest(), 16) for base in {top(base) for base in bases.values()}}
    return {emoji: SPLITS[number[top(base)] % _TEST == 0] for emoji, base in bases.items()}


def _base(emoji: str, names: Mapping[str, str], by_name: Mapping[str, str]) -> str:
    """The emoji without tones of skin; of couples with two, whose code points say each person, the one of that name."""
    if not TONES & set(emoji):
        return emoji
    bare = "".join(sign for sign in emoji if sign not in TONES)
    if bare in names or not bare:
        return bare or emoji
    head, _, tail = names[emoji].partition(": ")
    kept = [word for word in tail.split(", ") if not word.endswith("skin tone")]
    return by_name.get(": ".join([head, ", ".join(kept)] if kept else [head])) or by_name.get(head, bare)
