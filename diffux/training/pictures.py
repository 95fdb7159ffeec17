"""Pictures of samples and of losses: a grid of images, a scatter of points, a raster of sequences.

A sheet is a whole picture as uint8 (rows, columns, 1 or 3). Samples are floats: images in [0, 1] of shape (n, H, W, C),
points (n, 2), sequences in [0, 1] of shape (n, L).
"""

from __future__ import annotations

import math
import pathlib
import shutil
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
    figure, axes = _figure(figsize=(_SIDE / 100, _SIDE / 100), dpi=100)
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


def sheet(samples, real=None, extent: float | None = None) -> np.ndarray:
    """The picture of samples by their shape: images (n, H, W, C), points (n, 2) before `real` ones, sequences (n, L).

    Raises ValueError for samples of another shape.
    """
    shape = np.shape(samples)[1:]
    if len(shape) == 3:
        return tile(samples)
    if shape == (2,):
        return scatter(samples, real, extent)
    if len(shape) == 1:
        return raster(samples)
    raise ValueError(f"pictures are drawn of images (n, H, W, C), points (n, 2) and sequences (n, L), got {np.shape(samples)}")


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


def grid(path: pathlib.Path, images, columns: int | None = None) -> pathlib.Path:
    """Write images (n, H, W, C) as one picture."""
    return save(path, tile(images, columns))


def draw(path: pathlib.Path, samples, real=None) -> pathlib.Path:
    """Write samples as one picture, see `sheet`."""
    return save(path, sheet(samples, real))


def strip(path: pathlib.Path, frames, rows: int = 8) -> pathlib.Path:
    """Write frames (f, n, ...) as one picture, time from left to right: of images a row for each of the first `rows`
    samples, else one sheet a frame."""
    frames = np.asarray(frames)
    if frames.ndim != 5:
        extent = reach(frames)
        return save(path, beside([sheet(frame, extent=extent) for frame in frames], gap=6))
    frames = frames[:, :rows]
    samples = frames.swapaxes(0, 1)
    return save(path, tile(samples.reshape(-1, *samples.shape[2:]), columns=len(frames)))


def animation(path: pathlib.Path, frames, milliseconds: int = 80) -> pathlib.Path:
    """Write frames (f, n, ...) as a GIF of the sheets of samples, resting on the last."""
    from PIL import Image

    extent = reach(frames)
    sheets = [sheet(frame, extent=extent) for frame in np.asarray(frames)]
    pages = [Image.fromarray(sheet.squeeze(-1) if sheet.shape[-1] == 1 else sheet) for sheet in sheets]
    durations = [milliseconds] * (len(pages) - 1) + [1500]
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    pages[0].save(path, save_all=True, append_images=pages[1:], duration=durations, loop=0)
    return path


def losses(path: pathlib.Path, rows: Sequence[dict]) -> pathlib.Path | None:
    """Write the training and held-out losses of metrics rows as a picture; None where there are fewer than two."""
    training = [(row["step"], row["loss"]) for row in rows if row.get("loss") is not None]
    held_out = [(row["step"], row["held_out_loss"]) for row in rows if row.get("held_out_loss") is not None]
    if len(training) < 2:
        return None
    figure, axes = _figure(figsize=(6, 3.5))
    axes.plot(*zip(*training, strict=True), label="training")
    if held_out:
        axes.plot(*zip(*held_out, strict=True), "o-", label="held out (EMA)")
    if min(loss for _, loss in training) > 0:
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path, dpi=120)
    return path


def _figure(**options):
    """A figure and its axes, drawn without pyplot, which would look for a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained", **options)
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def copy(source: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    """Copy a picture over another."""
    part = target.with_name(f".{target.name}.part")
    shutil.copyfile(source, part)
    return part.replace(target)
