"""Pictures of samples and of losses; images are float arrays in [0, 1] of shape (n, H, W, C)."""

from __future__ import annotations

import math
import pathlib
import shutil
from collections.abc import Sequence

import numpy as np

# Images smaller than this are enlarged, pixel by pixel, so that an 8x8 digit can be seen.
_VISIBLE = 48


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


def strip(path: pathlib.Path, frames, rows: int = 8) -> pathlib.Path:
    """Write frames (f, n, H, W, C) as one picture: a row for each of the first `rows` samples, time from left to right."""
    frames = np.asarray(frames)[:, :rows]
    samples = frames.swapaxes(0, 1)
    return save(path, tile(samples.reshape(-1, *samples.shape[2:]), columns=len(frames)))


def animation(path: pathlib.Path, frames, milliseconds: int = 80) -> pathlib.Path:
    """Write frames (f, n, H, W, C) as a GIF of the grid of samples, resting on the last."""
    from PIL import Image

    sheets = [tile(frame) for frame in np.asarray(frames)]
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
    # The figure is drawn without pyplot, which would look for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
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


def copy(source: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    """Copy a picture over another."""
    part = target.with_name(f".{target.name}.part")
    shutil.copyfile(source, part)
    return part.replace(target)
