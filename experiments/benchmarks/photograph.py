"""A photograph that training never saw, enlarged by 2 and by a second pass by 4 with the task `restore`.

  python experiments/benchmarks/photograph.py --run runs/restoration/sr3_patches_16_0

The run is one of SR3 on patches (`sr3_patches`, or the first that restoration.py trains). Each pass is the command itself, so that
its seconds and its memory are those of a user, start and compilation included. Writes results/photograph_cpu.json and
docs/restored_photograph.png.

- seams: the mean difference between neighbouring pixels across the borders of tiles over that of all others, divided by the same of
  the truth; of rows and of columns. 1 is no seam, and "elsewhere" has what comes of so many places that are no borders.
- memory: the most that the process held at once. The second pass draws four times as many pixels as the first.
"""

from __future__ import annotations

import argparse
import pathlib
import tempfile

import harness
import numpy as np
import skimage.data
from PIL import Image

from diffux import training
from diffux.evaluation.fidelity import psnr, ssim
from diffux.fields import drawing
from diffux.runs.run import Run
from diffux.tasks import restore

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
CROP = (slice(20, 276), slice(60, 444))  # 256x384 of chelsea: its face, and fur of all sizes


def reduced(run: Run, image: np.ndarray) -> np.ndarray:
    """The picture (H, W, 3) as the model was given it in training."""
    return np.asarray(run.system.given.asked({"image": image[None]})["low"])[0]


def enlarge(run: pathlib.Path, low: pathlib.Path, out: pathlib.Path) -> dict:
    """One pass, by the command; its seconds and the most memory that it held, in GB."""
    return harness.cost(["-m", "diffux", "sample", "--task", "restore", "--model", f"model={run}", "--given", f"low={low}",
                         "--out", str(out)])  # fmt: skip


def borders(along, side: int) -> np.ndarray:
    """Between which neighbours, (side - 1,), a tile of this axis begins or ends."""
    ends = along.origins + along.weights.shape[1]
    return np.isin(np.arange(side - 1), [*(along.origins[1:] - 1), *(ends[:-1] - 1)])


def seams(image: np.ndarray, truth: np.ndarray, tiles) -> dict:
    """Of rows and columns, of pictures (H, W, 3)."""
    found: dict = {"seams": [], "elsewhere": []}
    for axis, along in enumerate((tiles.rows, tiles.columns)):
        at = borders(along, image.shape[axis])
        steps = [np.abs(np.diff(one.astype(float), axis=axis)).mean((1 - axis, 2)) for one in (image, truth)]
        ratio = lambda at, steps=steps: float(np.divide(*(one[at].mean() / one[~at].mean() for one in steps)))  # noqa: E731
        others = [ratio(moved) for k in range(1, 16) if not ((moved := np.roll(at, k)) & at).any()]
        found["seams"].append(ratio(at))
        found["elsewhere"].append([min(others), max(others)])
    return found


def row(image: np.ndarray, truth: np.ndarray) -> dict:
    image, truth = image[None] / 255, truth[None] / 255
    return {"psnr": float(psnr(image, truth)[0]), "ssim": float(ssim(image, truth)[0])}


def measure(path: pathlib.Path) -> dict:
    run = training.load(path)
    how = restore.pictures({"model": run})
    truths = {4: skimage.data.chelsea()[CROP]}
    truths[2] = reduced(run, truths[4])
    low, rows = reduced(run, truths[2]), {}
    with tempfile.TemporaryDirectory() as folder:
        files = {by: pathlib.Path(folder) / f"{by}.png" for by in (1, 2, 4)}
        Image.fromarray(low).save(files[1])
        for by in (2, 4):
            cost = enlarge(path, files[by // 2], files[by])
            image, truth = np.asarray(Image.open(files[by]).convert("RGB")), truths[by]
            tiles = how.tiles.tiles(truth.shape[:2], how.factor)
            bicubic = np.asarray(Image.fromarray(low).resize(truth.shape[1::-1], Image.Resampling.BICUBIC))
            rows[by] = cost | {"sides": list(truth.shape[:2]), "tiles": tiles.count} | seams(image, truth, tiles)
            rows[by] |= {"restored": row(image, truth), "bicubic": row(bicubic, truth)}
            harness.CONSOLE.print(f"by {by}", rows[by])
    nearest = np.asarray(Image.fromarray(low).resize(truth.shape[1::-1], Image.Resampling.NEAREST))
    shown = np.stack([nearest, bicubic, image, truth])
    captions = ["given", "bicubic", "restored by 2, twice", "the photograph"]
    drawing.save(DOCS / "restored_photograph.png", drawing.tile(shown, 2, captions=captions), {})
    return {"rows": rows, "steps": run.walk.get("steps"), "run": path.name}


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=pathlib.Path, required=True, help="a run of sr3_patches")
    parser.add_argument("--out", type=pathlib.Path, help="the JSON file, by default in results/")
    options = parser.parse_args(arguments)
    harness.record("photograph", {"chelsea": lambda: measure(options.run)}, options.out)


if __name__ == "__main__":
    main()
