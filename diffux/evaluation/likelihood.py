"""Held-out bits a dimension of a trained run by the probability flow, beside a fitted Gaussian's and a uniform model's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import struct
from rich.table import Table

from diffux import data, likelihood
from diffux.codecs._pixels import Pixels
from diffux.errors import EvaluationError
from diffux.evaluation import _held_out
from diffux.evaluation._held_out import averaged
from diffux.naming import pick
from diffux.noise_level import NoiseLevel
from diffux.parameterizations import Descending, ForwardStep, Integer
from diffux.processes import is_gaussian
from diffux.runs.run import Run
from diffux.systems.system import denoiser

FITTED = 10_000
"""How many of the train split a Gaussian is fitted to at most."""

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
    """factor (steps t - 1): the index of a discrete chain, continued between its steps."""

    steps: int = struct.field(pytree_node=False)
    factor: Any

    def __call__(self, level: NoiseLevel):
        return self.factor * (self.steps * level.t - 1)


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
    if not _held_out.is_model(run):
        raise EvaluationError(f"a {type(run.system).__name__} is no model of data, and has no likelihood")
    system, name, shown = run.frozen, run.system.data, _held_out.held_out(run, n, batch)
    source, images = shown.source, shown.examples[run.system.data]
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
    model, steps = model.replace(parameterization=_continued(model.parameterization)), chain_steps(system.parameterization)
    if start is None:
        start = 1e-5 if steps is None else 1 / steps
    end = 1.0 if float(system.process.schedule(1.0).alpha) > 0 else 0.999
    centred = not run.plan.data.dequantize
    low, high = edges(float(system.codec.low), float(system.codec.high), levels, centred)

    dequantizer = likelihood.uniform(levels)
    if dequantizer_steps:
        batches = data.loader(source, batch_size=min(FIT_BATCH, len(source)), seed=seed)
        fields = (next(batches) for _ in range(dequantizer_steps))
        asked = lambda b: system.conditions(jax.random.key(seed), system.given.asked(b), len(b[name]))  # noqa: E731
        pairs = ((b[name], asked(b)) for b in fields)
        dequantizer, _ = likelihood.fit_dequantizer(
            jax.random.key(seed), model, system.process, pairs, start=start, end=end, levels=levels, low=low, high=high,
            progress=None if progress is None else lambda step, loss: progress("dequantizer", step, dequantizer_steps),
        )  # fmt: skip
    bits, evaluations = np.empty((draws, shown.count)), np.empty((draws, shown.count))
    for draw in range(draws):
        for done, (kept, keys, some, cond) in enumerate(shown.batches(seed, draw), draw * shown.rounds + 1):
            found = likelihood.bits_per_dim(
                keys, model, system.process, some, cond, start=start, end=end, low=low, high=high, rtol=rtol, atol=atol,
                dequantizer=dequantizer, divergence=divergence, reconstruct=reconstruct,
            )  # fmt: skip
            size = kept.stop - kept.start
            bits[draw, kept], evaluations[draw, kept] = found.bits[:size], found.density.evaluations[:size]
            if progress is not None:
                progress("likelihood", done, draws * shown.rounds)

    control = gaussian_bits(_level_numbers(source, name, min(len(source), FITTED)), _as_levels(images, levels), seed, draws)
    return {
        "dataset": source.name,
        "split": shown.split,
        "examples": shown.count,
        "dimensions": int(np.prod(images.shape[1:])),
        "levels": levels,
        "bins": "centred on the values of training" if centred else "as in training, k to k + 1",
        "conditional": bool(system.given.gives),
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
            "model": averaged(bits) | {"evaluations": float(evaluations.mean()), "most_evaluations": int(evaluations.max())},
            "gaussian": averaged(control),
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


def of_run(directory: Any, **options) -> dict[str, Any]:
    """`held_out` of the run in `directory`, with a bar; the result is left there as likelihood.json.

    options: those of `held_out`, and which weights, `step`, `average`, `raw` and `nets`, as `training.load` takes them.
    """
    return _held_out.of_run(directory, held_out, "likelihood.json", **options)


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


def edges(low: float, high: float, levels: int, centred: bool) -> tuple[float, float]:
    """The outer edges of the bins: where the codec puts 0 and 1, or half a bin beyond values that are bins' centres."""
    half = 0.5 * (high - low) / (levels - 1) if centred else 0.0
    return low - half, high + half


def chain_steps(parameterization) -> int | None:
    """The steps of the chain whose index the network is told, or None."""
    found = jax.tree.leaves(parameterization, is_leaf=lambda node: isinstance(node, Integer))
    return next((node.steps for node in found if isinstance(node, Integer)), None)


def _continued(parameterization):
    """The parameterization with the index of a step continued between steps."""

    def continued(node):
        if isinstance(node, Descending | ForwardStep):
            raise EvaluationError("the flow passes all levels, and this network knows those of a list alone: train it with another "
                                  "label, as integer(T) or log_sigma, for likelihoods")  # fmt: skip
        return Between(node.steps, node.factor) if isinstance(node, Integer) else node

    kinds = Integer | Descending | ForwardStep
    return jax.tree.map(continued, parameterization, is_leaf=lambda node: isinstance(node, kinds))


def _as_levels(images, levels: int):
    return np.round(images.astype(np.float64) * ((levels - 1) / 255))


def _level_numbers(source, name: str, count: int):
    chosen = np.sort(np.random.default_rng(1).permutation(len(source))[:count])
    return _as_levels(source.take(chosen)[name], source.fields[name].levels)
