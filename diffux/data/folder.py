"""A folder of images: every PNG, JPEG, WebP and BMP below it, in the order of their paths; subfolders are classes."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageOps

from diffux.data.images import decode, is_grey, sides, upright_size
from diffux.data.source import Source
from diffux.errors import DataError
from diffux.fields import Field, Label
from diffux.fields import Image as Image_

FORMS = ()  # a folder of one's own comes as folder:/path
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
_CHECKED = 2000  # headers read while loading (about 0.1 ms each); an odd image after these is found when it is read


class Files:
    """`read(i)` -> {"image": uint8 (H, W, channels), "label": int} of the i-th file."""

    def __init__(self, paths, labels, *, channels, size):
        self.paths, self.labels, self.channels, self.size = paths, labels, channels, size

    def __len__(self):
        return len(self.paths)

    def read(self, index):
        try:
            with Image.open(self.paths[index]) as image:
                upright = ImageOps.exif_transpose(image)  # photographs lie on their side until their header is heeded
            image = decode(upright, channels=self.channels, size=self.size)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise _unreadable(self.paths[index], error) from error
        return {"image": image} | ({} if self.labels is None else {"label": self.labels[index]})


def load(rest: str, *, split: str = "train", size=None, channels: int | None = None) -> Source:
    """The images below the folder `rest`/`split` where that directory exists, else below `rest`, which is then all "train".

    Where every image is in a subfolder, the first level of these gives the classes, in sorted order.

    Raises:
        DataError: no such folder or split, no images in it, an unreadable image, or different shapes without `size`.
    """
    top = Path(rest).expanduser()
    if not rest:
        raise DataError("a folder of images is named with its path, as folder:/path/to/images.")
    if not top.is_dir():
        raise DataError(f"there is no folder {top}.")
    root = top / split if (top / split).is_dir() else top
    if root == top and split != "train":
        raise DataError(f"the folder {top} has no split {split!r}: put its images into {top / split}.")
    paths = sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not paths:
        raise DataError(f"the folder {root} has no images ({', '.join(sorted(SUFFIXES))}).")
    folders = [p.relative_to(root).parts for p in paths]
    classes = sorted({parts[0] for parts in folders}) if all(len(parts) > 1 for parts in folders) else None
    labels = None if classes is None else [classes.index(parts[0]) for parts in folders]

    headers = [_header(p) for p in paths[:_CHECKED]]
    if channels is None:
        channels = 1 if all(grey for _, grey in headers) else 3
    shape = (*sides(size), channels) if size is not None else (*headers[0][0], channels)
    if size is None:
        for p, (found, _) in zip(paths, headers, strict=False):
            if found != shape[:2]:
                raise DataError(
                    f"the images of {root} have different sizes ({paths[0].name} {headers[0][0][0]}x{headers[0][0][1]},"
                    f" {p.name} {found[0]}x{found[1]}): pass size= (say, size=64) to cut and resize them to one."
                )
    return Source(
        Files(paths, labels, channels=channels, size=size),
        name=f"folder:{rest}",
        split=split,
        fields={"image": Image_(shape)} | ({} if classes is None else {"label": Label(len(classes), tuple(classes))}),
    )


def describe(rest: str, *, split: str = "train", size=None, channels: int | None = None) -> dict[str, Field]:
    """The fields; of a folder that is not there they take `size`, colour and no classes."""
    if size is not None and not Path(rest).expanduser().is_dir():
        return {"image": Image_((*sides(size), channels or 3))}
    return load(rest, split=split, size=size, channels=channels).fields


def splits(rest: str) -> dict[str, int]:
    """The splits of a folder: its subfolders train, test and validation where there are such, else all is train."""
    top = Path(rest).expanduser()
    found = [s for s in ("train", "validation", "test") if (top / s).is_dir()] or ["train"]
    return {s: len(load(rest, split=s, size=1)) for s in found}


def _header(path):
    try:
        with Image.open(path) as image:
            return upright_size(image), is_grey(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path, error) -> DataError:
    return DataError(f"{path} cannot be read as an image ({str(error).partition(chr(10))[0]}): mend or remove it.")
