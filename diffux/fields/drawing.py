"""Sheets: whole pictures as uint8 (rows, columns, 1 or 3), of images, points and sequences."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Sequence

import numpy as np

# Images smaller than this are enlarged, pixel by pixel, so that an 8x8 digit can be seen.
_VISIBLE = 48


_BIN = 6  # side of an element of a sequence


_SIDE = 360  # of a scatter


def _bytes(images) -> np.ndarray:
    """uint8, one (grey) or three (colour) channels: two channels show the first, more than three the first three."""
    images = np.asarray(images, np.float32)
    channels = 3 if images.shape[-1] >= 3 else 1
    return np.round(np.clip(np.nan_to_num(images[..., :channels]), 0, 1) * 255).astype(np.uint8)


def tile(images, columns: int | None = None, gap: int = 1) -> np.ndarray:
    """Images (n, H, W, C) side by side, row by row, on a grey ground: uint8 (rows, columns, 1 or 3)."""
    images = _bytes(images)
    n, height, width, channels = images.shape
    scale = max(1, math.ceil(_VISIBLE / max(height, width)))
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)
    height, width, gap = height * scale, width * scale, gap * max(2, scale // 2)
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), 96, np.uint8)
    for i, image in enumerate(images):
        top, left = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return sheet


def raster(sequences) -> np.ndarray:
    """Sequences (n, L) in [0, 1] as the rows of one sheet, ones white."""
    values = _bytes(np.asarray(sequences)[..., None]).repeat(_BIN, axis=0).repeat(_BIN, axis=1)
    values[::_BIN] = 96  # a line between the rows
    return np.pad(values, ((0, 1), (1, 1), (0, 0)), constant_values=96)


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


def save(path: pathlib.Path, sheet: np.ndarray) -> pathlib.Path:
    """Write a uint8 sheet as an image file; a reader never sees half of one."""
    from PIL import Image

    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part{path.suffix}")
    Image.fromarray(sheet.squeeze(-1) if sheet.shape[-1] == 1 else sheet).save(part)
    return part.replace(path)


def new_figure(**options):
    """A figure and its axes, drawn without pyplot, which would look for a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained", **options)
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()
