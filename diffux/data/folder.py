"""A folder of images: every picture below it, in the order of their paths; subfolders are classes, and files of text captions."""

from __future__ import annotations

import collections
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from diffux.data import _captions, _pictures
from diffux.data._pictures import Row, splits_in
from diffux.data.source import Source
from diffux.errors import DataError, NoSplit
from diffux.fields import Field
from diffux.fields.image import SUFFIXES
from diffux.files import path_of

FORMS = ()  # a folder of one's own comes as folder:/path
_STRAY = 0.05  # pictures beside folders of classes, as a share of all, that are left out rather than end the classes


def load(rest: str, *, split: str = "train", size=None, channels: int | None = None, pixels: int | None = None,
         captions: bool = True, length: int | None = None, vocabulary: int | None = None, tokenizer: str | None = None,
         like: Mapping[str, Field] | None = None) -> Source:  # fmt: skip
    """The images below the folder `rest`/`split` where the folder holds splits and nothing else, else below `rest`, all "train".

    PNG, JPEG, WebP, BMP, TIFF and GIF (its first frame) are read, links are followed, hidden names are not looked at. Where the
    images are in subfolders, the first level of these gives the classes, in sorted order; the source's `notes` say how many images
    each has, and what was left out. Up to 1 % of the files may be unreadable.

    Where a picture has a text in UTF-8 beside it, 7.txt of 7.png, there is a field "caption": of several lines one, always the same
    of a picture. Up to 5 % of the pictures may have none and are left out.

    - pixels: the most that a picture may have; more than about 180 million are refused unless this says so.
    - captions: whether texts beside pictures are read.
    - length, vocabulary: the number of tokens of a caption, and of the different ones; by default what the captions have.
    - tokenizer: a tokenizer.json, or a folder as transformers writes it, in the place of the captions' own words.
    - like: the fields of the split that these images go with: they are made grey or colour as it is, and take its vocabulary.

    Raises:
        NoSplit: no such split.
        DataError: no such folder, no images in it, too many that cannot be read or have no caption, or different shapes without
            `size`.
    """
    root = _root(rest, split)
    found, texts, odd = _found(root, captions)
    if not found:
        hint = f"; it has {_counted(odd)}, which are not read" if odd else ""
        raise DataError(f"the folder {root} has no images ({', '.join(sorted(SUFFIXES))}){hint}.")
    notes = [f"{_counted(odd)} in {root} are no images and left out"] if odd else []
    found, classes = _classes(root, found, notes)
    rows, bad = [], []
    for path in found:
        text, label = texts.get(path.with_suffix("")), path.relative_to(root).parts[0] if classes else None
        try:
            rows.append(Row(path, () if text is None else _captions.read(text), label))
        except DataError as error:
            bad.append(error)
    return _pictures.source_of(rows, bad, root, name=f"folder:{rest}", split=split, captioned=bool(texts), size=size,
                               channels=channels, pixels=pixels, length=length, vocabulary=vocabulary, tokenizer=tokenizer,
                               like=like, notes=notes)  # fmt: skip


def describe(rest: str, *, split: str = "train", size=None, channels: int | None = None, pixels: int | None = None,
             captions: bool = True, length: int | None = None, vocabulary: int | None = None,
             tokenizer: str | None = None) -> dict[str, Field]:  # fmt: skip
    """The fields; of a folder that is not there they take `size`, colour, no classes, and captions where `length` and
    `vocabulary`, or `tokenizer`, say of what kind."""
    if size is not None and not path_of(rest).is_dir():
        return _pictures.described(size, channels, captions, length, vocabulary, tokenizer)
    return load(rest, split=split, size=size, channels=channels, pixels=pixels, captions=captions, length=length,
                vocabulary=vocabulary, tokenizer=tokenizer).fields  # fmt: skip


def splits(rest: str) -> dict[str, int]:
    """The splits of a folder: its subfolders train, validation and test where it has nothing else, else all is train."""
    top = path_of(rest)
    return {split: len(load(rest, split=split, size=1)) for split in (splits_in(top) if top.is_dir() else {}) or ["train"]}


def _root(rest: str, split: str) -> Path:
    """The folder of a split."""
    if not rest:
        raise DataError("a folder of images is named with its path, as folder:/path/to/images.")
    top = path_of(rest)
    if not top.is_dir():
        raise DataError(f"there is no folder {top}.")
    found = splits_in(top)
    if split in found:
        return found[split]
    if found or split != "train":
        said = f"it has {', '.join(found)}" if found else f"put its images into {top / split}, and the others into {top / 'train'}"
        raise NoSplit(f"the folder {top} has no split {split!r}: {said}.")
    return top


def _found(root: Path, captions: bool) -> tuple[list[Path], dict[Path, Path], collections.Counter[str]]:
    """(the pictures below a folder by their paths, the texts of pictures by their paths without ending, how many other files have
    which suffix); no hidden names, no circles."""
    paths, texts, odd = [], {}, collections.Counter()
    for path in _files(root, ()):
        suffix = path.suffix.lower()
        if suffix in SUFFIXES:
            paths.append(path)
        elif captions and suffix == ".txt":
            texts[path.with_suffix("")] = path
        else:
            odd[suffix or path.name] += 1
    alone = texts.keys() - {path.with_suffix("") for path in paths}
    odd.update(texts.pop(stem).suffix.lower() for stem in alone)
    return sorted(paths), texts, odd


def _files(folder: Path, above: tuple[str, ...]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in above:  # a link that leads back
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            if entry.is_dir():
                yield from _files(folder / entry.name, (*above, real))
            elif entry.is_file():
                yield folder / entry.name


def _classes(root: Path, paths: list[Path], notes: list[str]) -> tuple[list[Path], bool]:
    """(the pictures that are kept, whether their folders are classes); a few stray pictures do not end the classes."""
    inside = [path for path in paths if path.parent != root]
    stray = len(paths) - len(inside)
    if not inside or stray > _STRAY * len(paths):
        if inside:
            notes.append(f"{stray:,} images stand beside the folders of {root}, so that these are no classes")
        return paths, False
    if stray:
        notes.append(f"{stray:,} images that stand beside the folders of classes are left out")
    return inside, True


def _counted(odd: collections.Counter[str]) -> str:
    total = sum(odd.values())
    said = ", ".join(f"{count} {suffix}" for suffix, count in odd.most_common(5))
    return f"{total:,} other file{'s' * (total != 1)} ({said})"
