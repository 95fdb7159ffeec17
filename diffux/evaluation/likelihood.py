"""Held-out bits a dimension of a trained run by the probability flow, beside a fitted Gaussian's and a uniform model's."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import struct
from rich.table import Table

from diffux import data, likelihood
from diffux.codecs._pixels import Pixels
from diffux.console import Progress
from diffux.devices import mesh as sharding
from diffux.errors import EvaluationError, explained
from diffux.evaluation.runs import sources
from diffux.files import aside, path_of
from diffux.keys import fold_in, sample_keys
from diffux.naming import pick
from diffux.noise_level import NoiseLevel
from diffux.parameterizations import Descending, ForwardStep, Integer
from diffux.processes import is_gaussian
from diffux.runs.restore import load
from diffux.runs.run import Run
from diffux.systems.system import denoiser

EXAMPLES, FITTED = 512, 10_000
"""How many held-out images are taken by default, and how many of the train split a Gaussian is fitted to at most."""

BATCH = 64
"""The most images at once: a batch takes as many steps as its slowest image, and the bar moves between batches."""

FIT_BATCH = 128
"""The batch in which a dequantizer is trained."""

TRACES: dict[str, Callable[[int], Any]] = {
    "exact": lambda probes: likelihood.exact(),
    "rademacher": lambda probes: likelihood.hutchinson("rademacher", probes),
    "gaussian": lambda probes: likelihood.hutchinson("gaussian", probes),
}
ROWS = {"model": "the model", "gaussian": "a Gaussian of the train split", "uniform": "a uniform model"}


@struct.dataclass
class Between:
    """steps t - 1: the index of a discrete chain, continued between its steps."""

    steps: int = struct.field(pytree_node=False)

    def __call__(self, level: NoiseLevel):
        return self.steps * level.t - 1


def held_out(
    run: Run,
    *,
    n: int | None = None,
    trace: str = "rademacher",
    probes: int = 1,
    draws: int = 1,
    batch: int = 256,
    seed: int = 0,
    start: float | None = None,
    reconstruct: bool = False,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    dequantizer_steps: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Bits a dimension of the first `n` (at most 512) held-out images of a run, in a fixed random order; ready for JSON.

    `rows` has "model", "gaussian" (full covariance, fitted to the train split and shrunk as Ledoit and Wolf, 2004) and
    "uniform", each with its mean `bits` and, over examples, its `standard_error`; all three under uniform dequantization,
    averaged over `draws` of it. With `dequantizer_steps` the model's noise is a flow of the image instead, trained for so many
    steps on the train split against the model as it is (variational dequantization).
    Guidance is left out, since clipping would make the flow no flow; a class-conditional model is given the held-out labels.
    `start` is by default the first level that a discrete chain has, 1 / T, and 1e-5 in continuous time; the density is the one
    there, at the data themselves, and with `reconstruct` a bound for clean data. A network that is told the index of a step is
    told fractions between the steps. A run whose data were not dequantized in training learned points, which become the
    centres of the bins. `progress(what, done, total)` is called for "dequantizer" and then "likelihood".

    Raises EvaluationError for data that are no pixels, a process that is not Gaussian, a network that knows a list of
    levels and nothing between, and a run without a held-out split.
    """
    if not hasattr(run.system, "generate"):
        raise EvaluationError(f"a {type(run.system).__name__} is no model of data, and has no likelihood")
    system, name = run.frozen, run.system.data
    with explained():
        source, test = sources(run.plan)
    levels = getattr(source.fields[name], "levels", None)
    if not source.fields[name].dequantizes or levels is None:
        raise EvaluationError(f"bits a dimension are those of images of a number of levels, and {source.name} has none")
    if not isinstance(system.codec, Pixels):
        raise EvaluationError(f"bits a dimension are those of pixels, and this system's codec is {type(system.codec).__name__}")
    if not is_gaussian(system.process):
        raise EvaluationError(f"the flow's likelihood needs a Gaussian process, got {type(system.process).__name__}; what fits is "
                              "the bound, objectives.elbo")  # fmt: skip
    divergence = pick("trace", trace, TRACES)(probes)
    model = denoiser(system, run.variables)
    model, steps = model.replace(parameterization=_continued(model.parameterization)), _steps(system.parameterization)
    if start is None:
        start = 1e-5 if steps is None else 1 / steps
    end = 1.0 if float(system.process.schedule(1.0).alpha) > 0 else 0.999
    centred = not run.plan.data.dequantize
    low, high = _edges(float(system.codec.low), float(system.codec.high), levels, centred)

    count = min(EXAMPLES if n is None else n, len(test))
    chosen = np.random.default_rng(0).permutation(len(test))[:count]
    examples = test.take(chosen)
    images, conditional = examples[name], bool(system.given.gives)

    def conditions(keys, fields):
        return system.conditions(keys, system.given.asked(fields), len(fields[name]))

    batch = sharding.shared(min(batch, BATCH, count), run.mesh)
    dequantizer = likelihood.uniform(levels)
    if dequantizer_steps:
        batches = data.loader(source, batch_size=min(FIT_BATCH, len(source)), seed=seed)
        fields = (next(batches) for _ in range(dequantizer_steps))
        pairs = ((b[name], conditions(jax.random.key(seed), b)) for b in fields)
        dequantizer, _ = likelihood.fit_dequantizer(
            jax.random.key(seed), model, system.process, pairs, start=start, end=end, levels=levels, low=low, high=high,
            progress=None if progress is None else lambda step, loss: progress("dequantizer", step, dequantizer_steps),
        )  # fmt: skip
    total = draws * -(-count // batch)
    bits, evaluations = np.empty((draws, count)), np.empty((draws, count))
    for draw in range(draws):
        for begun in range(0, count, batch):
            # the last batch is filled up with its last image, so that one program serves all
            places = np.minimum(np.arange(begun, begun + batch), count - 1)
            keys = fold_in(sample_keys(seed, begun, batch), draw)
            mine = keys, images[places], conditions(fold_in(keys, 2), {key: values[places] for key, values in examples.items()})
            keys, shown, cond = sharding.spread(mine, run.mesh)
            found = likelihood.bits_per_dim(
                keys, model, system.process, shown, cond, start=start, end=end, low=low, high=high, rtol=rtol, atol=atol,
                dequantizer=dequantizer, divergence=divergence, reconstruct=reconstruct,
            )  # fmt: skip
            kept = slice(begun, min(begun + batch, count))
            size = kept.stop - kept.start
            bits[draw, kept], evaluations[draw, kept] = found.bits[:size], found.density.evaluations[:size]
            if progress is not None:
                progress("likelihood", draw * -(-count // batch) + begun // batch + 1, total)

    control = gaussian_bits(_level_numbers(source, name, min(len(source), FITTED)), _as_levels(images, levels), seed, draws)
    return {
        "dataset": source.name,
        "split": test.split,
        "examples": count,
        "dimensions": int(np.prod(images.shape[1:])),
        "levels": levels,
        "bins": "centred on the values of training" if centred else "as in training, k to k + 1",
        "conditional": conditional,
        "start": float(start),
        "end": end,
        "density": "of clean data, bounded by a decoder" if reconstruct else "at t = start",
        "told": None if steps is None else "fractions between the trained steps",
        "trace": trace if trace == "exact" else f"{trace}, {probes} probe{'s' * (probes > 1)}",
        "draws": draws,
        "noise": f"learned in {dequantizer_steps} steps" if dequantizer_steps else "uniform",
        "tolerance": {"rtol": rtol, "atol": atol},
        "seed": seed,
        "checkpoint": run.step,
        "weights": run.weights,
        "rows": {
            "model": _row(bits) | {"evaluations": float(evaluations.mean()), "most_evaluations": int(evaluations.max())},
            "gaussian": _row(control),
            "uniform": {"bits": float(np.log2(levels)), "standard_error": 0.0},
        },
    }


def gaussian_bits(train: np.ndarray, test: np.ndarray, seed: int = 0, draws: int = 1) -> np.ndarray:
    """Bits a dimension (draws, n) of integers `test` (n, *d) under a Gaussian fitted to `train` (N, *d), both as k + u.

    The covariance is (1 - r) S + r mu I with the shrinkage r of Ledoit and Wolf, 2004, eq. 14, from the same data.
    """
    rng = np.random.default_rng(seed)
    x = train.reshape(len(train), -1) + rng.random((len(train), train[0].size))
    n, size = x.shape
    mean = x.mean(0)
    x = x - mean
    sample = x.T @ x / n
    scale = np.trace(sample) / size
    spread = ((sample - scale * np.eye(size)) ** 2).sum()
    noise = (((x**2).sum(1) ** 2).sum() / n - (sample**2).sum()) / n
    shrunk = min(noise / spread, 1.0) if spread > 0 else 1.0
    factor = np.linalg.cholesky((1 - shrunk) * sample + shrunk * scale * np.eye(size))
    constant = 0.5 * size * np.log(2 * np.pi) + np.log(np.diag(factor)).sum()
    found = np.empty((draws, len(test)))
    for draw in range(draws):
        offset = test.reshape(len(test), -1) + rng.random((len(test), size)) - mean
        found[draw] = (constant + 0.5 * (np.linalg.solve(factor, offset.T) ** 2).sum(0)) / (size * np.log(2))
    return found


def of_run(
    directory: Any,
    *,
    step: int | str = "last",
    average: str | float | None = None,
    raw: bool = False,
    nets: Mapping[str, str] = {},
    **options,
) -> dict[str, Any]:
    """`held_out` of the run in `directory`, with a bar; the result is left there as likelihood.json.

    step, average, raw: which weights, as `training.load` takes them.
    """
    folder = path_of(directory).absolute()
    run = load(folder, step=step, average=average, raw=raw, nets=nets)
    with contextlib.ExitStack() as stack, explained():
        bar, showing, begun = None, None, time.perf_counter()

        def report(what, done, total):
            nonlocal bar, showing, begun
            if what != showing:  # one after the other: a terminal shows one live bar at a time
                stack.close()
                bar, showing = stack.enter_context(Progress(what, total)), what
            bar.update(done)
            if done * 10 // total > (done - 1) * 10 // total:
                bar.line(done, "", done / (time.perf_counter() - begun))
            begun = time.perf_counter() if done == total else begun

        result = held_out(run, progress=report, **options)
    with aside(folder / "likelihood.json") as part:
        part.write_text(json.dumps(result, indent=2) + "\n")
    return result


def table(result: dict[str, Any]) -> Table:
    """The rows of `held_out`'s result as a table for a terminal, with what they were found with below it."""
    kind = "bits/dim given the label" if result["conditional"] else "bits/dim"
    title = f"{result['dataset']}: {result['examples']:,} images of the {result['split']} split"
    shown = Table(title=f"{title}, {result['weights']}, step {result['checkpoint']}", caption=caption(result))
    shown.caption_justify = "left"
    for heading in ("", kind, "standard error", "evaluations"):
        shown.add_column(heading, justify="left" if not heading else "right")
    for name, row in result["rows"].items():
        asked = f"{row['evaluations']:.0f}" if "evaluations" in row else ""
        shown.add_row(ROWS[name], f"{row['bits']:.4f}", f"{row['standard_error']:.4f}" if row["standard_error"] else "", asked)
    return shown


def caption(result: dict[str, Any]) -> str:
    """What the figures mean and what they were made with."""
    told = f" The network is told {result['told']}." if result["told"] else ""
    draws = f"{result['draws']} draw{'s' * (result['draws'] > 1)} an image"
    return (
        f"Upper bounds, by noise between {result['levels']} levels ({result['noise']}, {draws}; bins {result['bins']}). Probability"
        f" flow from t = {result['start']:g} to {result['end']:g}, the density {result['density']}; trace: {result['trace']};"
        f" tolerance {result['tolerance']['rtol']:g}.{told} The Gaussian has a full covariance, shrunk, and no labels."
    )


def _edges(low: float, high: float, levels: int, centred: bool) -> tuple[float, float]:
    """The outer edges of the bins: where the codec puts 0 and 1, or half a bin beyond values that are bins' centres."""
    half = 0.5 * (high - low) / (levels - 1) if centred else 0.0
    return low - half, high + half


def _steps(parameterization) -> int | None:
    """The steps of the chain whose index the network is told, or None."""
    found = jax.tree.leaves(parameterization, is_leaf=lambda node: isinstance(node, Integer))
    return next((node.steps for node in found if isinstance(node, Integer)), None)


def _continued(parameterization):
    """The parameterization with the index of a step continued between steps."""

    def continued(node):
        if isinstance(node, Descending | ForwardStep):
            raise EvaluationError("the flow passes all levels, and this network knows those of a list alone: train it with another "
                                  "label, as integer(T) or log_sigma, for likelihoods")  # fmt: skip
        return Between(node.steps) if isinstance(node, Integer) else node

    kinds = Integer | Descending | ForwardStep
    return jax.tree.map(continued, parameterization, is_leaf=lambda node: isinstance(node, kinds))


def _as_levels(images, levels: int):
    return np.round(images.astype(np.float64) * ((levels - 1) / 255))


def _level_numbers(source, name: str, count: int):
    chosen = np.sort(np.random.default_rng(1).permutation(len(source))[:count])
    return _as_levels(source.take(chosen)[name], source.fields[name].levels)


def _row(bits) -> dict[str, float]:
    each = bits.mean(0)
    return {"bits": float(each.mean()), "standard_error": float(each.std(ddof=1) / np.sqrt(len(each))) if len(each) > 1 else 0.0}
