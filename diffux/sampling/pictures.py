"""Pictures of samples and of losses.

Samples are floats: images in [0, 1] of shape (n, H, W, C), points (n, 2), sequences in [0, 1] of shape (n, L).
"""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Sequence

import numpy as np

from diffux.fields.drawing import beside, new_figure, raster, reach, save, scatter, tile


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
    figure, axes = new_figure(figsize=(6, 3.5))
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
