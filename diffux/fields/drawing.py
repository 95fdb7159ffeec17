"""Sheets: whole pictures as uint8 (rows, columns, 1 or 3), of images, points, rows of numbers and strings."""

from __future__ import annotations

import math
import pathlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffux.files import aside

# Images smaller than this are enlarged, pixel by pixel, so that an 8x8 digit can be seen.
_VISIBLE = 48
_BIN = 6  # side of an element of a row
_SIDE = 360  # of a scatter
_LINE, _LETTER = 12, 6  # height of a line of text, and what a letter takes of it
_CAPTION = 3  # lines of a caption; a longer one ends in dots
_GREY = 96


def to_bytes(images) -> np.ndarray:
    """Images (n, H, W, C), floats in [0, 1] or uint8, as uint8 with one (grey) or three (colour) channels: two channels show the
    first, more than three the first three."""
    images = np.asarray(images)
    images = images[..., : 3 if images.shape[-1] >= 3 else 1]
    return eight_bit(images)


def eight_bit(values) -> np.ndarray:
    """Floats in [0, 1], or uint8, as uint8; what lies outside is clipped."""
    values = np.asarray(values)
    if values.dtype == np.uint8:
        return values
    return np.round(np.clip(np.nan_to_num(values.astype(np.float32)), 0, 1) * 255).astype(np.uint8)


def tile(images, columns: int | None = None, gap: int = 1, captions: Sequence[str] | None = None) -> np.ndarray:
    """Images (n, H, W, C) row by row on a grey ground, each with its caption below: uint8 (rows, columns, 1 or 3)."""
    images = to_bytes(images)
    n, height, width, channels = images.shape
    scale = max(1, math.ceil(_VISIBLE / max(height, width)))
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)
    height, width, gap = height * scale, width * scale, gap * max(2, scale // 2)
    columns = columns or _period(captions, n) or math.ceil(math.sqrt(n))
    below = [_wrapped(caption, width) for caption in captions or ()]
    rows, text = math.ceil(n / columns), _LINE * max(map(len, below), default=0)
    sheet = np.full((rows * (height + text + gap) + gap, columns * (width + gap) + gap, channels), _GREY, np.uint8)
    for i, image in enumerate(images):
        top, left = gap + i // columns * (height + text + gap), gap + i % columns * (width + gap)
        sheet[top : top + height, left : left + width] = image
        if i < len(below) and below[i]:
            written = lines(below[i], width, channels)
            sheet[top + height : top + height + len(written), left : left + width] = written
    return sheet


def resized(image: Any, sides: Sequence[int]) -> np.ndarray:
    """An image (H, W, C) brought to other sides by bicubic interpolation, as `to_bytes` shows it."""
    from PIL import Image

    (shown,), (height, width) = to_bytes(np.asarray(image)[None]), sides
    out = np.asarray(_image(shown).resize((width, height), Image.Resampling.BICUBIC))
    return out.reshape(height, width, shown.shape[-1])


def alike(images: Sequence[np.ndarray]) -> np.ndarray:
    """Images of several sides as ones of the largest, grey at their right and below: (n, H, W, C)."""
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    out = np.full((len(images), height, width, max(image.shape[-1] for image in images)), _GREY, np.uint8)
    for whole, image in zip(out, images, strict=True):
        whole[: image.shape[0], : image.shape[1]] = image
    return out


def _wrapped(caption: str, width: int) -> list[str]:
    """A caption as the lines below an image of so many pixels; words that are wider are cut where they must."""
    letters = max(width // 5, 4)  # small ones are narrower than most
    words = textwrap.wrap(caption, letters, break_long_words=False)
    cut = [line[at : at + letters] for line in words for at in range(0, len(line), letters)]
    return cut if len(cut) <= _CAPTION else [*cut[: _CAPTION - 1], f"{cut[_CAPTION - 1][: letters - 2]}..."]


def _period(captions: Sequence[str] | None, n: int) -> int | None:
    """After how many captions, at most 16, they come again, as classes in turn do: a column for each."""
    for period in range(2, min(16, n - 1) + 1) if captions and len(captions) == n else ():
        if len({*captions[:period]}) == period and all(captions[i] == captions[i - period] for i in range(period, n)):
            return period
    return None


def raster(rows) -> np.ndarray:
    """Rows of numbers in [0, 1], (n, L), one below the other, ones white."""
    values = to_bytes(np.asarray(rows)[..., None]).repeat(_BIN, axis=0).repeat(_BIN, axis=1)
    values[::_BIN] = _GREY  # a line between the rows
    return np.pad(values, ((0, 1), (1, 1), (0, 0)), constant_values=_GREY)


def lines(strings: Sequence[str], width: int, channels: int = 1) -> np.ndarray:
    """Strings in white on grey, one below the other: uint8 (12 a string, width, channels)."""
    from PIL import Image, ImageDraw

    page = Image.new("L", (width, _LINE * max(len(strings), 1)), _GREY)
    draw = ImageDraw.Draw(page)
    for i, string in enumerate(strings):
        draw.text((1, i * _LINE), string.encode("latin-1", "replace").decode("latin-1"), fill=255)
    return np.repeat(np.asarray(page)[..., None], channels, axis=-1)


def page(strings: Sequence[str], width: int = 100) -> np.ndarray:
    """Strings of any length as numbered paragraphs on one sheet."""
    wrapped = []
    for i, string in enumerate(strings):
        first = f"{i:3} "
        printed = "".join(letter if letter.isprintable() else " " for letter in string)
        wrapped += textwrap.wrap(printed, width, initial_indent=first, subsequent_indent="    ", drop_whitespace=False) or [first]
    return lines(wrapped, _LETTER * (width + 4))


def scatter(points, real=None, extent: float | None = None) -> np.ndarray:
    """Points (n, 2), dark, before `real` ones, light; both axes run from -extent to extent, by default around them all."""
    figure, axes = new_figure(figsize=(_SIDE / 100, _SIDE / 100), dpi=100)
    extent = extent or reach(points if real is None else real)
    for values, colour in ((real, "#f0a04b"), (points, "#1f3b73")):
        if values is not None:
            values = np.asarray(values, np.float64)
            axes.scatter(*values.T, s=4 if len(values) > 200 else 12, c=colour, linewidths=0)
    axes.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal")
    axes.tick_params(labelsize=7)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def reach(points) -> float:
    """How far the axes of a scatter go: a little beyond all finite coordinates but the farthest hundredth."""
    sizes = np.abs(np.asarray(points, np.float64))
    sizes = sizes[np.isfinite(sizes)]
    return 1.2 * max(float(np.quantile(sizes, 0.99)), 1e-3) if sizes.size else 1.0


def beside(sheets: Sequence[np.ndarray], gap: int = 24) -> np.ndarray:
    """Sheets side by side on white, shorter ones filled up below."""
    height, channels = max(len(sheet) for sheet in sheets), max(sheet.shape[-1] for sheet in sheets)
    parts = []
    for part in sheets:
        part = np.broadcast_to(part, (*part.shape[:2], channels))
        parts.append(np.pad(part, ((0, height - len(part)), (0, gap), (0, 0)), constant_values=255))
    return np.concatenate(parts, axis=1)[:, : -gap or None]


def headed(sheet: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """A sheet of equal columns, each with its label above."""
    width = sheet.shape[1] // len(labels)
    above = np.concatenate([lines([label], width, sheet.shape[-1]) for label in labels], axis=1)
    above = np.pad(above, ((0, 0), (0, sheet.shape[1] - above.shape[1]), (0, 0)), constant_values=_GREY)
    return np.concatenate([above, sheet])


def save(path: pathlib.Path, sheet: np.ndarray, about: Mapping[str, Any] = {}) -> pathlib.Path:
    """Write a uint8 sheet as an image file; a reader never sees half of one.

    about: words and numbers that a PNG keeps as its text (`PIL.Image.open(path).text`); other values are left out.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with aside(path) as part:
        _image(sheet).save(part, path.suffix[1:], **_told(path, about))
    return path


def _told(path: pathlib.Path, about: Mapping[str, Any]) -> dict[str, Any]:
    from PIL.PngImagePlugin import PngInfo

    if path.suffix.lower() != ".png":
        return {}
    text = PngInfo()
    for key, value in _words(about).items():
        text.add_itxt(key, value)
    return {"pnginfo": text}


def _words(about: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in about.items() if isinstance(value, str | int | float)}


def animate(path: pathlib.Path, sheets: Sequence[np.ndarray], milliseconds: int = 80, rest: int = 1500,
            about: Mapping[str, Any] = {}) -> pathlib.Path:  # fmt: skip
    """Write sheets of one size as a GIF that rests on the last, no longer than it moves; a reader never sees half of one.

    about: words and numbers that it keeps as its comment.
    """
    path, pages = pathlib.Path(path), [_image(sheet) for sheet in sheets]
    path.parent.mkdir(parents=True, exist_ok=True)
    moving = [milliseconds] * (len(pages) - 1)
    durations = [*moving, min(rest, max(sum(moving), milliseconds))]
    with aside(path) as part:
        pages[0].save(part, path.suffix[1:], save_all=True, append_images=pages[1:], duration=durations, loop=0,
                      comment="; ".join(f"{key}: {value}" for key, value in _words(about).items()).encode())  # fmt: skip
    return path


def _image(sheet: np.ndarray):
    from PIL import Image

    return Image.fromarray(sheet.squeeze(-1) if sheet.shape[-1] == 1 else sheet)


def new_figure(**options):
    """A figure and its axes, drawn without pyplot, which would look for a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained", **options)
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()
