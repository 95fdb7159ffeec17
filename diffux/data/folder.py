"""A folder of images: every picture below it, in the order of their paths; subfolders are classes."""

from __future__ import annotations

import collections
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

from PIL import ImageOps

from diffux.data.images import decode, is_grey, sides
from diffux.data.source import Source
from diffux.errors import DataError, NoSplit
from diffux.fields import Field, Label
from diffux.fields import Image as Image_
from diffux.fields.image import SUFFIXES, opened, upright_size
from diffux.files import path_of

FORMS = ()  # a folder of one's own comes as folder:/path
SPLITS = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}
BAD = 0.01
"""The share of files that may be unreadable; they are left out, and more of them end the run."""
_CHECKED = 2000  # headers read while loading (about 0.1 ms each); an odd image after these is found when it is read
_STRAY = 0.05  # pictures beside folders of classes, as a share of all, that are left out rather than end the classes


class Files:
    """`read(i)` -> {"image": uint8 (H, W, channels), "label": int} of the i-th file, or of the next one that can be read."""

    def __init__(self, paths, labels, *, channels, size, pixels, bad=0):
        self.paths, self.labels, self.channels, self.size, self.pixels = paths, labels, channels, size, pixels
        self.bad, self.known = bad, set()

    def __len__(self):
        return len(self.paths)

    def read(self, index):
        for place in range(index, index + len(self)):
            try:
                return self._read(place % len(self))
            except DataError as error:
                if place % len(self) not in self.known:
                    self.known.add(place % len(self))
                    _count(self.bad + len(self.known), len(self) + self.bad, error)
                    warnings.warn(f"{error} The next one stands in for it.", stacklevel=2)
        raise DataError(f"none of the {len(self)} images can be read.")

    def _read(self, index):
        with opened(self.paths[index], pixels=self.pixels) as image:
            upright = ImageOps.exif_transpose(image)  # photographs lie on their side until their header is heeded
            image = decode(upright, channels=self.channels, size=self.size)
        return {"image": image} | ({} if self.labels is None else {"label": self.labels[index]})


def load(rest: str, *, split: str = "train", size=None, channels: int | None = None, pixels: int | None = None,
         like: Mapping[str, Field] | None = None) -> Source:  # fmt: skip
    """The images below the folder `rest`/`split` where the folder holds splits and nothing else, else below `rest`, all "train".

    PNG, JPEG, WebP, BMP, TIFF and GIF (its first frame) are read, links are followed, hidden names are not looked at. Where the
    images are in subfolders, the first level of these gives the classes, in sorted order; the source's `notes` say how many images
    each has, and what was left out. Up to 1 % of the files may be unreadable.

    - pixels: the most that a picture may have; more than about 180 million are refused unless this says so.
    - like: the fields of the split that these images go with: they are made grey or colour as it is.

    Raises:
        NoSplit: no such split.
        DataError: no such folder, no images in it, too many that cannot be read, or different shapes without `size`.
    """
    root = _root(rest, split)
    found, odd = _found(root)
    if not found:
        hint = f"; it has {_counted(odd)}, which are not read" if odd else ""
        raise DataError(f"the folder {root} has no images ({', '.join(sorted(SUFFIXES))}){hint}.")
    notes = [f"{_counted(odd)} in {root} are no images and left out"] if odd else []
    found, classes = _classes(root, found, notes)
    paths, headers, bad = [], [], []
    for number, path in enumerate(found):
        if number < _CHECKED:
            try:
                with opened(path, pixels=pixels) as image:
                    headers.append((path, upright_size(image), is_grey(image)))
            except DataError as error:
                bad.append(error)
                continue
        paths.append(path)
    if bad:
        _count(len(bad), len(found), bad[0])
        notes.append(f"{len(bad)} of the {len(found)} images are left out, the first as {bad[0]}")
    numbers = None if classes is None else {name: number for number, name in enumerate(classes)}
    labels = None if numbers is None else [numbers[path.relative_to(root).parts[0]] for path in paths]
    if classes is not None:
        count = collections.Counter(labels)
        notes.append(f"{len(classes)} classes: {', '.join(f'{name} ({count[i]:,})' for i, name in enumerate(classes[:20]))}"
                     f"{', ...' if len(classes) > 20 else ''}")  # fmt: skip

    if channels is None:
        grey = all(grey for *_, grey in headers)
        channels = like["image"].shape[-1] if like and "image" in like else 1 if grey else 3
    shape = (*(headers[0][1] if size is None else sides(size)), channels)
    if size is None:
        for path, sizes, _ in headers:
            if sizes != shape[:2]:
                raise DataError(
                    f"the images of {root} have different sizes ({headers[0][0].name} {shape[0]}x{shape[1]},"
                    f" {path.name} {sizes[0]}x{sizes[1]}): pass size= (say, size=64) to cut and resize them to one."
                )
    return Source(
        Files(paths, labels, channels=channels, size=size, pixels=pixels, bad=len(bad)),
        name=f"folder:{rest}",
        split=split,
        fields={"image": Image_(shape)} | ({} if classes is None else {"label": Label(len(classes), tuple(classes))}),
        notes=notes,
    )


def describe(rest: str, *, split: str = "train", size=None, channels: int | None = None,
             pixels: int | None = None) -> dict[str, Field]:  # fmt: skip
    """The fields; of a folder that is not there they take `size`, colour and no classes."""
    if size is not None and not path_of(rest).is_dir():
        return {"image": Image_((*sides(size), channels or 3))}
    return load(rest, split=split, size=size, channels=channels, pixels=pixels).fields


def splits(rest: str) -> dict[str, int]:
    """The splits of a folder: its subfolders train, validation and test where it has nothing else, else all is train."""
    top = path_of(rest)
    return {split: len(load(rest, split=split, size=1)) for split in (_splits(top) if top.is_dir() else {}) or ["train"]}


def _root(rest: str, split: str) -> Path:
    """The folder of a split."""
    if not rest:
        raise DataError("a folder of images is named with its path, as folder:/path/to/images.")
    top = path_of(rest)
    if not top.is_dir():
        raise DataError(f"there is no folder {top}.")
    found = _splits(top)
    if split in found:
        return found[split]
    if found or split != "train":
        said = f"it has {', '.join(found)}" if found else f"put its images into {top / split}, and the others into {top / 'train'}"
        raise NoSplit(f"the folder {top} has no split {split!r}: {said}.")
    return top


def _splits(top: Path) -> dict[str, Path]:
    """{split: folder} of a folder that holds folders of splits, train among them, and neither others nor pictures."""
    visible = [path for path in top.iterdir() if not path.name.startswith(".") and path.name != "__MACOSX"]
    names = {path.name: path for path in visible if path.is_dir()}
    known = {name: split for split, words in SPLITS.items() for name in words}
    if "train" not in names or names.keys() - known or any(path.suffix.lower() in SUFFIXES for path in visible if path.is_file()):
        return {}
    return {known[name]: names[name] for name in sorted(names, key=lambda name: list(SPLITS).index(known[name]))}


def _found(root: Path) -> tuple[list[Path], collections.Counter[str]]:
    """(the pictures below a folder by their paths, how many other files have which suffix); no hidden names, no circles."""
    paths, odd = [], collections.Counter()
    for path in _files(root, ()):
        if path.suffix.lower() in SUFFIXES:
            paths.append(path)
        else:
            odd[path.suffix.lower() or path.name] += 1
    return sorted(paths), odd


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


def _classes(root: Path, paths: list[Path], notes: list[str]) -> tuple[list[Path], list[str] | None]:
    """(the pictures that are kept, their classes in order or None); a few stray pictures do not end the classes."""
    inside = [path for path in paths if path.parent != root]
    stray = len(paths) - len(inside)
    if not inside or stray > _STRAY * len(paths):
        if inside:
            notes.append(f"{stray:,} images stand beside the folders of {root}, so that these are no classes")
        return paths, None
    if stray:
        notes.append(f"{stray:,} images that stand beside the folders of classes are left out")
    return inside, sorted({path.relative_to(root).parts[0] for path in inside})


def _counted(odd: collections.Counter[str]) -> str:
    total = sum(odd.values())
    said = ", ".join(f"{count} {suffix}" for suffix, count in odd.most_common(5))
    return f"{total:,} other file{'s' * (total != 1)} ({said})"


def _count(bad: int, all_of_them: int, first: DataError) -> None:
    """Raise DataError where more than the share `BAD` of the files cannot be read."""
    if bad > BAD * all_of_them:
        raise DataError(f"{bad} of {all_of_them} images cannot be read, and at most {BAD:.0%} may be so; the first: {first}")
