"""First stages of patches of photographs: what comes back of pictures that training never saw; and models in their latents.

  python experiments/benchmarks/latents.py --runs runs/latents

Trains what is missing in the folder by each of the seeds. "stages": PSNR and random-feature distance of what comes back of the
patches of two photographs that are held out, beside pictures that are reduced by the same factor and enlarged again. "patches":
`ldm_patches` beside the same chain in pixels, whose config takes about as long; Frechet distances by random features, and seconds.
"shapes": how often samples of `ldm_shapes` have the colour and the shape that captions ask for, by the rule that reads them off,
over scales of guidance; of pairs of both that training sees and of those that it never does; and beside captions of other pictures,
which must be at chance; "kept" is how often its first stage gives both back. "digits": `dit_mnist` by the data set's own
classifier: Frechet distance, and the share that is what was asked.
Writes results/latents_cpu.json, the tables of docs/latents.md, and docs/first_stages.png, ldm_shapes.png and dit_mnist.png.
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
from diffux.data.captioned_shapes import scenes
from diffux.evaluation import fidelity, judges, perceptual
from diffux.evaluation.captioned_shapes import attributes
from diffux.evaluation.frechet import feature_distance, moments
from diffux.evaluation.images import eight_bit
from diffux.fields import drawing
from diffux.files import aside
from diffux.operators import resize
from diffux.runs.run import Run

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
N, SHOWN = 512, 8
SCALES, ASKED, SHAPES = (1, 3, 5), 200, 24  # of guidance; captions of a scale, and those of the picture
STAGES = {"kl_patches": "absolute error", "kl_patches:perceptual": "with the distance and the discriminator", "vq_patches": "codes"}
PARTS = ["stages", "patches", "kept", "shapes", "digits"]
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


def shapes(folder: pathlib.Path, seeds: list[int]) -> dict[str, Any]:
    """What `harness.obeyed` says of samples over scales of guidance, of kinds that training sees and of others, `novel`."""
    kinds = {"seen": [kind for kind in scenes.KINDS if kind not in scenes.NOVEL_KINDS], "novel": scenes.NOVEL_KINDS}
    found = {}
    for seed in seeds:
        stage = f"--config.nets.first_stage={folder / named('ldm_shapes:first_stage', seed)}"
        harness.run(folder, named("ldm_shapes:first_stage", seed), "ldm_shapes:first_stage", f"--config.seed={seed}")
        run = harness.run(folder, named("ldm_shapes", seed), "ldm_shapes", f"--config.seed={seed}", stage)
        rows = {}
        for scale in SCALES:
            for name, each in kinds.items():
                asked = harness.captions(ASKED, each)
                tokens = run.fields["caption"].encode(asked)
                images = sampling.samples(run, ASKED, seed=seed, given={"caption": tokens}, guidance=f"classifier_free({scale})")
                rows.setdefault(name, {})[scale] = harness.obeyed(images, asked)
                if name == "seen" and scale == SCALES[1]:
                    rows["other captions"] = {scale: harness.obeyed(images, asked[1:] + asked[:1])}
                    if seed == seeds[0]:
                        pictured("ldm_shapes", images[:SHAPES], asked[:SHAPES])
        found[seed] = rows
        harness.CONSOLE.print(f"seed {seed}", rows)
    return {"seeds": found, "n": ASKED}


def kept(folder: pathlib.Path, seeds: list[int]) -> dict[str, Any]:
    """The share of held-out pictures that the first stage of `ldm_shapes` gives back with their colour and with their shape."""
    fields = data.arrays(data.load("captioned_shapes:32", split="test", objects=1), N)
    truth, found = fields["image"] / np.float32(255), {}
    for seed in seeds:
        run = harness.run(folder, named("ldm_shapes:first_stage", seed), "ldm_shapes:first_stage", f"--config.seed={seed}")
        images = back(run, truth)
        seen = attributes(images)
        found[seed] = {name: float(np.mean(seen[name] == fields[name])) for name in ("colour", "shape")}
        found[seed]["psnr"] = float(np.mean(fidelity.psnr(images, truth)))
        harness.CONSOLE.print(f"seed {seed}", found[seed])
    return {"seeds": found, "n": N}


def digits(folder: pathlib.Path, seeds: list[int]) -> dict[str, Any]:
    """The figures of `dit_mnist` without guidance and with it, beside held-out digits."""
    figures, held_out, judge = harness.judged("mnist_5k")
    found = {}
    for seed in seeds:
        run = harness.run(folder, named("dit_mnist", seed), "dit_mnist", f"--config.seed={seed}")
        label = {"label": np.arange(N) % 10}
        rows = {}
        for guidance in (None, "classifier_free(2)"):
            images = sampling.samples(run, N, seed=seed, given=label, guidance=guidance)
            rows[str(guidance)] = figures(images, label["label"])
            if guidance is None and seed == 0:
                pictured("dit_mnist", images[:30], list("0123456789") * 3)
        found[seed] = rows
        harness.CONSOLE.print(f"seed {seed}", rows, held_out)
    return {"seeds": found, "held out": held_out, "n": N, "judge": judge}


def pictured(name: str, images: np.ndarray, captions: list[str]) -> None:
    """A picture of docs/: rows of images under their captions."""
    drawing.save(DOCS / f"{name}.png", drawing.tile(images, 10 if len(images) % 10 == 0 else 8, captions=captions), {})


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
    parser.add_argument("--only", nargs="*", default=PARTS, choices=PARTS, help="what to measure")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--stages", nargs="*", default=list(STAGES), choices=STAGES, help="configs of first stages")
    options = parser.parse_args(arguments)
    known = {name: lambda part=part: part(options.runs, options.seeds) for name, part in
             {"patches": patches, "kept": kept, "shapes": shapes, "digits": digits}.items()}  # fmt: skip
    known["stages"] = lambda: stages(options.runs, options.seeds, options.stages)
    results = harness.record("latents", {name: known[name] for name in options.only}, options.out)
    if options.out is None and "stages" in results:
        page, mark = DOCS / "latents.md", "<!-- first stages -->\n"
        text = re.sub(f"{mark}(.*?)\n\n", lambda _: f"{mark}{table(results['stages'])}\n\n", page.read_text(), flags=re.DOTALL)
        with aside(page) as part:
            part.write_text(text)


if __name__ == "__main__":
    main()
