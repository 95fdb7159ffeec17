"""What unCLIP's decoder makes of pictures of one coloured shape: variations, pictures between two, and changes by texts.

  python experiments/benchmarks/edits.py --runs runs/relations

Trains `unclip_shapes` and its contrastive model in the folder if they are missing, as relations.py does. Of held-out pictures it
measures how often the rule that reads them off finds the colours and the shapes that should be there: those of the picture itself
in variations, of either end between two, another colour and the same shape after a change by texts. "places" is how much the
places of variations vary, as a share of how much those of the pictures do; "psnr" how well a picture is drawn again from its own
noise, in 250 steps. Writes results/edits_cpu.json and docs/shapes_edits.png.
"""

from __future__ import annotations

import functools
import pathlib
from typing import Any

import harness
import numpy as np
from relations import DOCS, trained

from diffux import data, tasks
from diffux.data.captioned_shapes import scenes
from diffux.evaluation import fidelity
from diffux.evaluation.captioned_shapes import attributes
from diffux.evaluation.images import eight_bit
from diffux.fields import drawing
from diffux.keys import sample_keys
from diffux.sampling import files

SHOWN = 8
COLOURS = list(scenes.COLOURS)


def edits(folder: pathlib.Path, seeds: list[int], n: int) -> dict[str, Any]:
    """{seed: {what was done: its figures}}."""
    found = {}
    for seed in seeds:
        place = {"model": trained(folder, "unclip", seed)}
        run, walked = (files.models(place, **walk)["model"] for walk in ({}, {"solver": "ddim", "steps": 250}))
        source = data.load("captioned_shapes:16", split="test", like=run.fields, objects=1)
        fields = {name: values[:n] for name, values in data.arrays(source, n).items()}
        images, colour, shape = fields["image"], fields["colour"], fields["shape"]
        after, other = np.roll(images, -1, 0), (colour + 1) % len(COLOURS)
        texts = {name: run.fields["caption"].encode(said) for name, said in (
            ("none", [""] * n), ("own", _said(colour, shape)), ("other", _said(other, shape)))}  # fmt: skip
        done = functools.partial(_done, sample_keys(seed, 0, n))

        varied = done(run, "variations", image=images, caption=texts["none"])
        rows = {"pictures": _right(images, colour, shape), "variations": _right(varied, colour, shape)}
        rows["variations"]["places"] = float(_places(varied).var(0).sum() / _places(images).var(0).sum())
        ends = colour, shape, np.roll(colour, -1), np.roll(shape, -1)
        for share in (0, 0.5, 1):
            between = done(run, f"interpolate(share={share})", image=images, other=after, caption=texts["none"])
            rows[f"between, {share}"] = {"first": _right(between, *ends[:2]), "other": _right(between, *ends[2:])}
        for share in (0, 0.25, 0.5):
            turned = done(walked, f"text_difference(share={share})", image=images, was=texts["own"],
                          caption=texts["other" if share else "own"])  # fmt: skip
            rows[f"another colour, {share}"] = _right(turned, other if share else colour, shape)
            if not share:
                again = turned
                rows["drawn again"] = {"psnr": float(np.mean(fidelity.psnr(again, images / np.float32(255))))}
        found[seed] = rows
        harness.CONSOLE.print(f"seed {seed}", rows)
        if seed == seeds[0]:
            columns = {"picture": images / np.float32(255), "drawn again": again, "variation": varied, "another colour": turned}
            sheet = np.stack([each[:SHOWN] for each in columns.values()], 1).reshape(-1, *images.shape[1:])
            drawing.save(DOCS / "shapes_edits.png", drawing.tile(sheet, len(columns), captions=[*columns] * SHOWN), {})
    return {"seeds": found, "n": n}


def _done(keys: Any, model: Any, spec: str, **given: np.ndarray) -> np.ndarray:
    return eight_bit(np.asarray(tasks.task(spec, {"model": model})(keys, given)["image"]))


def _said(colour: np.ndarray, shape: np.ndarray) -> list[str]:
    article = lambda word: "an" if word[0] in "aeiou" else "a"  # noqa: E731
    return [f"{article(COLOURS[c])} {COLOURS[c]} {scenes.SHAPES[s]}" for c, s in zip(colour, shape, strict=True)]


def _right(images: np.ndarray, colour: np.ndarray, shape: np.ndarray) -> dict[str, float]:
    seen = attributes(images)
    same = {"colour": seen["colour"] == colour, "shape": seen["shape"] == shape}
    return {name: float(np.mean(one)) for name, one in (same | {"both": same["colour"] & same["shape"]}).items()}


def _places(images: np.ndarray) -> np.ndarray:
    """The centres (n, 2) of what differs from the ground of pictures (n, H, W, C)."""
    images = images.astype(np.float64)
    apart = abs(images - np.median(images, axis=(1, 2), keepdims=True)).sum(-1)
    apart = np.where(apart > 0.3 * apart.max((1, 2), keepdims=True), apart, 0) + 1e-9
    places = np.stack(np.meshgrid(*map(np.arange, apart.shape[1:]), indexing="ij"), -1) / apart.shape[1]
    return np.einsum("nhw,hwc->nc", apart, places) / apart.sum((1, 2))[:, None]


def main(arguments=None) -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--n", type=int, default=128, help="pictures")
    options = parser.parse_args(arguments)
    harness.record("edits", {"edits": lambda: edits(options.runs, options.seeds, options.n)}, options.out)


if __name__ == "__main__":
    main()
