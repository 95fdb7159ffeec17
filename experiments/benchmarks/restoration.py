"""Super-resolution and restoration of patches of photographs: SR3, SRDiff, CMDE and Palette beside the enlarged picture and a
regression on the same network.

  python experiments/benchmarks/restoration.py --runs runs/restoration

Trains what is missing in the folder by each of the seeds, and lets all methods restore the same held-out patches, which are of two
photographs that training never sees: the figures of `diffux evaluate --pairs`. "walks" is SR3's first seed by several levels and
variances; "digits" is SR3 on digits, beside its regression and itself by the levels of training. Writes
results/restoration_cpu.json, the tables of docs/restoration.md and the first seed's pictures, docs/restored_<problem>.png.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Mapping

import harness
import jax
import numpy as np
from skimage import restoration

from diffux import data, processes, sampling, solvers, systems
from diffux.config import parts
from diffux.evaluation import pairs
from diffux.evaluation.frechet import feature_distance, moments
from diffux.fields import drawing
from diffux.files import aside
from diffux.runs.run import Run

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
N, DRAWS = 256, 2

PROBLEMS = {
    "8 to 16 pixels": {"model": ("sr3_patches:16",), "cmde": ("cmde_patches",), "regression": ("sr3_patches:regression_16",)},
    "16 to 32 pixels": {"model": ("sr3_patches:32",), "regression": ("sr3_patches:regression_32",)},
    "srdiff": {"model": ("srdiff_patches", {"encoder": "srdiff_patches:encoder"}), "rrdb": ("srdiff_patches:encoder",)},
    "digits": {"model": ("sr3_digits",), "regression": ("sr3_digits:regression",)},
    **{problem: {"model": (f"palette_patches:{problem}",), "regression": (f"palette_patches:regression_{problem}",)}
       for problem in ("colorization", "inpainting", "uncropping", "jpeg")},
}  # fmt: skip
"""{problem: {method: its config, and the configs of the runs that it is built on}}; srdiff enlarges 16 to 32 pixels too, and rrdb
is the regression whose features it reads."""


def smooth(asked: Mapping[str, np.ndarray]) -> np.ndarray:
    """What is hidden, by the biharmonic equation from the pixels around it (scikit-image)."""
    known = np.asarray(asked["mask"]).astype(bool)
    pictures = [restoration.inpaint_biharmonic(one, ~seen, channel_axis=-1)
                for one, seen in zip(asked["source"] / np.float32(255), known, strict=True)]  # fmt: skip
    return np.clip(pictures, 0, 1)


RULES = {"inpainting": {"smooth": smooth}, "uncropping": {"smooth": smooth}}
"""What needs no training; of the other problems it is the given picture itself."""

WALKS = (("betas(1e-4, 0.3)", "upper", 100), ("betas(1e-4, 0.3)", "posterior", 100), ("betas(1e-4, 0.1)", "upper", 250),
         ("betas(1e-4, 0.1)", "posterior", 250), ("uniform", "posterior", 100), ("log_snr(end=1e-2)", "upper", 250),
         ("log_snr(end=1e-2)", "posterior", 100), ("log_snr(end=1e-2)", "posterior", 250))  # fmt: skip
"""Levels, the variance of the reverse kernels, and steps; the first is the paper's."""

HEADS = {
    "psnr": ("PSNR", "{:.2f}"), "ssim": ("SSIM", "{:.3f}"), "random_feature_distance": ("distance", "{:.4f}"),
    "frechet": ("Frechet", "{:.2f}"), "consistency": ("consistency", "{:.1e}"),
    "colour": ("colour bias", "{:.3f}"), "largest": ("in 95 %", "{:.3f}"),
    "sharpness": ("sharpness", "{:.2f}"), "residual_noise": ("residual noise", "{:+.4f}"), "diversity": ("diversity", "{:.3f}"),
}  # fmt: skip


def trained(folder: pathlib.Path, seed: int, config: str, nets: Mapping[str, str] = {}) -> Run:
    name = lambda config: f"{config.replace(':', '_')}_{seed}"  # noqa: E731
    for net in nets.values():
        trained(folder, seed, net)
    built_on = [f"--config.nets.{net}={folder / name(of)}" for net, of in nets.items()]
    return harness.run(folder, name(config), config, f"--config.seed={seed}", *built_on)


def measure(folder: pathlib.Path, problem: str, seeds: list[int], before: Mapping = {}, alone: bool = False) -> dict:
    """The figures of each method by each seed; of the model `alone`, those of the others stay as they are in the rows `before`."""
    found: dict = {}
    for seed in seeds:
        methods = {name: config for name, config in PROBLEMS[problem].items() if name == "model" or not alone}
        runs = {name: trained(folder, seed, *config) for name, config in methods.items()}
        result, images = pairs.held_out(runs.pop("model"), runs, rules=RULES.get(problem, {}), n=N, draws=DRAWS)
        harness.CONSOLE.print(f"seed {seed}", pairs.table(result))
        kept = before.get(str(seed), {}) if alone else {}
        found.setdefault("seeds", {})[seed] = {**kept, **result["rows"]}
        if seed == seeds[0] and not alone:
            drawing.save(DOCS / f"restored_{problem.replace(' ', '_')}.png", pairs.sheet(result, images), {})
    return found | {"n": N, "draws": DRAWS, "perceptual": result["perceptual"]}


def digits(folder: pathlib.Path, seeds: list[int], few: int = 100, many: int = 2000, parts: int = 16) -> dict:
    """The figures of `measure`, and by the method of the held-out digits, enlarged:

    - variance: the variance of a pixel over digits, the mean of pixels, as a share of that of the true digits.
    - frechet: the distance of the first 16 principal components to the true digits'; of SR3 in `few` steps, and in the `many` of
      training.
    """
    found = measure(folder, "digits", seeds)
    true = data.arrays(data.load("digits", split="test"), N)["image"]
    images = true / np.float32(255)
    flat, mean = images.reshape(N, -1), images.mean(0).ravel()
    axes = np.linalg.svd(flat - mean, full_matrices=False)[2][:parts]
    law = lambda images: moments((images.reshape(N, -1) - mean) @ axes.T)  # noqa: E731
    for seed in seeds:
        model, regression = (trained(folder, seed, *config) for config in PROBLEMS["digits"].values())
        low = {"low": np.asarray(model.system.given.asked({"image": true})["low"])}
        drawn = {f"{few} steps": sampling.samples(model, N, seed=seed, given=low, steps=few),
                 f"{many} steps": sampling.samples(model, N, seed=seed, given=low, steps=many, grid="uniform"),
                 "regression": sampling.samples(regression, N, given=low)}  # fmt: skip
        laws = {name: {"variance": float(one.var(0).mean() / images.var(0).mean()),
                       "frechet": float(feature_distance(law(one), law(images)))} for name, one in drawn.items()}  # fmt: skip
        harness.CONSOLE.print(f"seed {seed}", laws)
        found.setdefault("laws", {})[seed] = laws
    return found


def srdiff(folder: pathlib.Path, seeds: list[int]) -> dict:
    """The figures of `measure`, and SRDiff's loss of held-out patches with its encoder's features and with zeros in their place."""
    found = measure(folder, "srdiff", seeds)
    batch = {"image": data.arrays(data.load("patches/32_photographs", split="test"), N)["image"]}
    for seed in seeds:
        run = trained(folder, seed, *PROBLEMS["srdiff"]["model"])
        *others, encoder = run.system.given.parts
        silent = encoder.replace(net=encoder.net.replace(weights=jax.tree.map(np.zeros_like, encoder.net.weights)))
        blind = run.system.replace(given=run.system.given.replace(parts=(*others, silent)))
        loss = jax.jit(lambda system, key, run=run: systems.loss(key, system, run.variables, batch, (), train=False)[0])
        of = {"features": run.system, "zeros": blind}
        found.setdefault("loss", {})[seed] = {
            name: float(np.mean([loss(system, jax.random.key(i)) for i in range(8)])) for name, system in of.items()}  # fmt: skip
        harness.CONSOLE.print(f"seed {seed}", found["loss"][seed])
    return found


def walks(folder: pathlib.Path, seed: int, n: int = 64) -> dict:
    """The figures of SR3, 8 to 16 pixels, with the same weights by other walks."""
    run, rows = trained(folder, seed, *PROBLEMS["8 to 16 pixels"]["model"]), {}
    for grid, variance, steps in WALKS:
        process = processes.Gaussian(run.system.process.schedule, processes.VARIANCES[variance]())
        walk = parts.walk(run.system, solver=solvers.ancestral(process), grid=grid, steps=steps)
        result, _ = pairs.held_out(dataclasses.replace(run, walk=walk), n=n)
        rows[f"`{grid}`, {variance}, {steps} steps"] = result["rows"]["model"]
        harness.CONSOLE.print(grid, variance, steps, flat(result["rows"]["model"]))
    return {"seeds": {seed: rows}, "n": n, "draws": 1}


def flat(row: dict) -> dict[str, float]:
    """One number a figure: of the colours' biases the largest size."""
    bias = row.get("colour_bias", {"value": [np.nan], "largest": np.nan})
    own = {name: figure["value"] for name, figure in row.items() if name != "colour_bias"}
    return own | {"colour": float(np.max(np.abs(bias["value"]))), "largest": bias["largest"]}


def table(seeds: dict) -> str:
    """Markdown: the range over seeds of each figure of each method."""
    rows = {name: [flat(rows[name]) for rows in seeds.values()] for name in next(iter(seeds.values()))}
    heads = {figure: head for figure, head in HEADS.items() if any(figure in each[0] for each in rows.values())}
    lines = [f"| | {' | '.join(head for head, _ in heads.values())} |", f"|---|{'---|' * len(heads)}"]
    for name, each in rows.items():
        cells = []
        for figure, (_, form) in heads.items():
            values = [one[figure] for one in each if figure in one and np.isfinite(one[figure])]
            ends = sorted({form.format(value) for value in (min(values), max(values))}, key=float) if values else [""]
            cells.append(" to ".join(ends))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def written(results: dict) -> None:
    """The tables between the marks of the page."""
    page = DOCS / "restoration.md"
    text = page.read_text()
    for problem in (*PROBLEMS, "walks"):
        if problem in results:
            mark = f"<!-- {problem} -->\n"
            text = re.sub(f"{mark}(.*?)\n\n", lambda _: f"{mark}{table(results[problem]['seeds'])}\n\n", text, flags=re.DOTALL)  # noqa: B023
    with aside(page) as part:
        part.write_text(text)


def main(arguments=None) -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--only", nargs="*", default=[*PROBLEMS, "walks"], choices=[*PROBLEMS, "walks"],
                        help="problems to measure")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--alone", action="store_true", help="the model of a problem, and not what it is compared with")
    options = parser.parse_args(arguments)
    rows = {problem: harness.recorded("restoration", options.out).get(problem, {}).get("seeds", {}) for problem in PROBLEMS}
    known = {problem: lambda problem=problem: measure(options.runs, problem, options.seeds, rows[problem], options.alone)
             for problem in PROBLEMS}  # fmt: skip
    known |= {"digits": lambda: digits(options.runs, options.seeds), "srdiff": lambda: srdiff(options.runs, options.seeds)}
    known["walks"] = lambda: walks(options.runs, options.seeds[0])
    results = harness.record("restoration", {name: known[name] for name in options.only}, options.out)
    if options.out is None:
        written(results)


if __name__ == "__main__":
    main()
