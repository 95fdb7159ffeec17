"""First stages of patches of photographs: what comes back of pictures that training never saw; and models in their latents.

  python experiments/benchmarks/latents.py --runs runs/latents

Trains what is missing in the folder by each of the seeds. "stages": PSNR and random-feature distance of what comes back of the
patches of two photographs that are held out, beside pictures that are reduced by the same factor and enlarged again. "patches":
`ldm_patches` beside the same chain in pixels, whose config takes about as long; Frechet distances by random features, and seconds.
Writes results/latents_cpu.json, the table of docs/latents.md, and docs/first_stages.png.
"""

from __future__ import annotations

import pathlib
import re
import time
from typing import Any

import harness
import jax
import jax.numpy as jnp
import numpy as np

from diffux import codecs, data, sampling, systems
from diffux.evaluation import fidelity, judges, perceptual
from diffux.evaluation.frechet import feature_distance, moments
from diffux.evaluation.images import eight_bit
from diffux.fields import drawing
from diffux.files import aside
from diffux.operators import resize
from diffux.runs.run import Run

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
N, SHOWN = 512, 8
STAGES = {"kl_patches": "absolute error", "kl_patches:perceptual": "with the distance and the discriminator", "vq_patches": "codes"}
HEADS = {"psnr": ("PSNR", "{:.2f}"), "distance": ("distance", "{:.4f}"), "std": ("std of the latent", "{:.2f}"),
         "kl": ("KL a number", "{:.2f}"), "perplexity": ("perplexity", "{:.0f}")}  # fmt: skip


def named(config: str, seed: int) -> str:
    return f"{config.replace(':', '_')}_{seed}"


def held_out() -> np.ndarray:
    return data.arrays(data.load("patches/32_photographs", split="test"), N)["image"]


def figures(images: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    distance = perceptual.random_features()
    return {"psnr": float(np.mean(fidelity.psnr(images, truth))), "distance": float(np.mean(distance(images, truth)))}


def stages(folder: pathlib.Path, seeds: list[int], configs: list[str]) -> dict[str, Any]:
    """The figures of each first stage by each seed, and of pictures that have lost as many numbers by reduction."""
    true = held_out()
    truth, shown, found = true / np.float32(255), {}, {}
    for seed in seeds:
        rows = {}
        for config in configs:
            name = STAGES[config]
            run = harness.run(folder, named(config, seed), config, f"--config.seed={seed}")
            images = back(run, truth)
            *_, metrics = jax.device_get(systems.loss(jax.random.key(0), run.system, run.variables, {"image": true}, (), False))
            known = {key: float(value) for key, value in metrics[0].items() if key in HEADS}
            rows[name] = figures(images, truth) | known
            shown.setdefault(name, images[:SHOWN])
        found[seed] = rows
        harness.CONSOLE.print(f"seed {seed}", rows)
    small = resize((32, 32), (8, 8))(jnp.asarray(truth))
    reduced = eight_bit(np.asarray(resize((8, 8), (32, 32))(small)))
    columns = np.stack([truth[:SHOWN], *shown.values(), reduced[:SHOWN]], 1)
    captions = ["truth", *shown, "reduced by 4"]
    sheet = drawing.tile(columns.reshape(-1, *columns.shape[2:]), len(captions), captions=captions * SHOWN)
    drawing.save(DOCS / "first_stages.png", sheet, {})
    return {"seeds": found, "reduced": figures(reduced, truth), "n": N}


def back(run: Run, images: np.ndarray) -> np.ndarray:
    """What comes back of images, of 8 bits."""
    codec = run.frozen.latents(drawn=False)
    one = jax.jit(lambda codec, x: codec.decode(codec.encode(None, x, {}), {}))
    return eight_bit(np.concatenate([np.asarray(one(codec, images[i : i + 64])) for i in range(0, len(images), 64)]))


def patches(folder: pathlib.Path, seeds: list[int]) -> dict[str, Any]:
    """Frechet distances of samples to the training split, in latents and in pixels, and of held-out patches."""
    source = data.load("patches/32_photographs", split="train")
    judge = judges.judge(source, wanted="random")
    law = moments(judge(data.arrays(source, len(source))["image"] / np.float32(255))[1])
    apart = lambda images: float(feature_distance(moments(judge(eight_bit(images))[1]), law))  # noqa: E731
    found = {"held out": apart(held_out() / np.float32(255)), "seeds": {}}
    for seed in seeds:
        stage = f"--config.nets.first_stage={folder / named('kl_patches', seed)}"
        rows = {}
        for part, more in (("latents", [stage]), ("pixels", [])):
            began = time.time()
            run = harness.run(folder, named(f"ldm_patches:{part}", seed), f"ldm_patches:{part}", f"--config.seed={seed}", *more)
            rows[part] = {"frechet": apart(sampling.samples(run, N, seed=seed)), "seconds": time.time() - began,
                          "steps": run.step}  # fmt: skip
        latents = codecs.latents_in(harness.run(folder, named("ldm_patches:latents", seed), "ldm_patches", stage).system.codec)
        found["seeds"][seed] = rows | {"scale": float(latents[0].numbers[0])}
        harness.CONSOLE.print(f"seed {seed}", found["seeds"][seed])
    return found


def table(results: dict[str, Any]) -> str:
    """Markdown: the range over seeds of each figure of each first stage."""
    lines = [f"| | {' | '.join(head for head, _ in HEADS.values())} |", f"|---|{'---|' * len(HEADS)}"]
    rows = {name: [seed[name] for seed in results["seeds"].values()] for name in next(iter(results["seeds"].values()))}
    for name, each in {**rows, "reduced by 4 and enlarged": [results["reduced"]]}.items():
        cells = []
        for figure, (_, form) in HEADS.items():
            values = [one[figure] for one in each if figure in one]
            ends = sorted({form.format(value) for value in (min(values), max(values))}, key=float) if values else [""]
            cells.append(" to ".join(ends))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments=None) -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--only", nargs="*", default=["stages", "patches"], choices=["stages", "patches"], help="what to measure")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--stages", nargs="*", default=list(STAGES), choices=STAGES, help="configs of first stages")
    options = parser.parse_args(arguments)
    known = {"stages": lambda: stages(options.runs, options.seeds, options.stages),
             "patches": lambda: patches(options.runs, options.seeds)}  # fmt: skip
    results = harness.record("latents", {name: known[name] for name in options.only}, options.out)
    if options.out is None and "stages" in results:
        page, mark = DOCS / "latents.md", "<!-- first stages -->\n"
        text = re.sub(f"{mark}(.*?)\n\n", lambda _: f"{mark}{table(results['stages'])}\n\n", page.read_text(), flags=re.DOTALL)
        with aside(page) as part:
            part.write_text(text)


if __name__ == "__main__":
    main()
