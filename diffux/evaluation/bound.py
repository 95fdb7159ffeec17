"""Held-out bits a dimension of a trained chain by its variational bound, term by term (Ho et al., 2020, eq. 5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Table

from diffux import objectives
from diffux.codecs._pixels import Pixels
from diffux.errors import EvaluationError
from diffux.evaluation import _held_out
from diffux.evaluation._held_out import averaged
from diffux.evaluation.likelihood import chain_steps, edges
from diffux.fields.drawing import new_figure
from diffux.files import aside, path_of
from diffux.keys import fold_in
from diffux.objectives._elbo import ELBO, Discretized
from diffux.processes import is_gaussian
from diffux.runs.run import Run
from diffux.systems.system import denoiser


def held_out(
    run: Run,
    *,
    n: int | None = None,
    draws: int = 1,
    batch: int = 256,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """The bound on the negative log-likelihood of the first `n` (at most 512) held-out examples of a run; ready for JSON.

    It is of the model that ancestral sampling draws from, in all its steps, with the reverse variance of the system's process and
    with its guidance, clipping of the estimate included. `terms` has the means of "prior", "kl" and "decoder", `steps` the mean KL
    of every step from the first, whose place the decoder takes. All are averaged over `draws` of the noise.
    Of images of a number of levels the first step's law is discretised to these; of other data it is the objective's own.

    Raises EvaluationError for a system without a chain of steps, and for data that are neither levels nor of a bound of their own.
    """
    if not _held_out.is_model(run):
        raise EvaluationError(f"a {type(run.system).__name__} is no model of data, and has no likelihood")
    system, shown = run.frozen, _held_out.held_out(run, n, batch)
    bound, bins = _bound(run, shown.source.fields[system.data])
    model = denoiser(system, run.variables).replace(guidance=tuple(system.guidance))
    totals, terms = np.empty((draws, shown.count)), {"prior": [], "kl": [], "decoder": []}
    each = np.zeros(bound.steps)
    for draw in range(draws):
        for done, (kept, keys, fields, cond) in enumerate(shown.batches(seed, draw), draw * shown.rounds + 1):
            found = jax.tree.map(np.asarray, _terms(bound, model, system.codec, keys, fields, cond))
            size = kept.stop - kept.start
            totals[draw, kept] = (found.prior + found.kl.sum(0) + found.decoder)[:size]
            for name, values in (("prior", found.prior), ("kl", found.kl.sum(0)), ("decoder", found.decoder)):
                terms[name].append(values[:size])
            each += found.kl[:, :size].sum(1) / (draws * shown.count)
            if progress is not None:
                progress("bound", done, draws * shown.rounds)
    return {
        "dataset": shown.source.name,
        "split": shown.split,
        "examples": shown.count,
        "data": bins,
        "conditional": bool(system.given.gives),
        "chain": bound.steps,
        "draws": draws,
        "seed": seed,
        "checkpoint": run.step,
        "weights": run.weights,
        "model": averaged(totals),
        "terms": {name: float(np.concatenate(values).mean()) for name, values in terms.items()},
        "steps": each.tolist(),
    }


def _bound(run: Run, field: Any) -> tuple[ELBO, str]:
    """(the bound of a run's chain, what its data are)."""
    system = run.frozen
    is_bound = lambda node: isinstance(node, ELBO)  # noqa: E731
    own = list(filter(is_bound, jax.tree.leaves(system.objective, is_leaf=is_bound)))
    steps = own[0].steps if own else chain_steps(system.parameterization)
    if steps is None:
        raise EvaluationError(f"this bound is of a chain of steps, and {run.plan.name} has none; what fits is --likelihood alone")
    levels = getattr(field, "levels", None)
    if own and not isinstance(own[0].decoder, Discretized):
        return own[0], "as the objective has them"
    if levels is None or not isinstance(system.codec, Pixels) or not is_gaussian(system.process):
        raise EvaluationError(f"a bound needs a law of the first step, which a bound as objective or images of a number of levels "
                              f"have, and {run.plan.name} of {run.plan.data.name} has neither")  # fmt: skip
    low, high = edges(float(system.codec.low), float(system.codec.high), levels, not run.plan.data.dequantize)
    half = (high - low) / levels / 2
    return objectives.elbo(system.process, steps, objectives.discretized(levels, low + half, high - half)), f"{levels} levels"


@jax.jit
def _terms(bound, model, codec, keys, data, cond):
    decoder = bound.decoder
    if isinstance(decoder, Discretized):  # uint8 images as the centres of the bins of their levels
        k = jnp.round(data.astype(jnp.float32) * ((decoder.levels - 1) / 255))
        x = decoder.low + (decoder.high - decoder.low) / (decoder.levels - 1) * k
    else:
        x = codec.encode(fold_in(keys, 0), data, cond)
    return bound.terms(fold_in(keys, 1), model, x, cond)


def of_run(directory: Any, **options) -> dict[str, Any]:
    """`held_out` of the run in `directory`, with a bar; the result is left there as bound.json, and bound.png shows the steps.

    options: those of `held_out`, and which weights, `step`, `average`, `raw` and `nets`, as `training.load` takes them.
    """
    result = _held_out.of_run(directory, held_out, "bound.json", **options)
    draw(result, path_of(directory) / "bound.png")
    return result


def draw(result: dict[str, Any], path: Any) -> None:
    """The terms of the bound against their steps, on logarithmic axes (Nichol and Dhariwal, 2021, fig. 2), as a picture."""
    figure, axes = new_figure(figsize=(6, 4))
    kl, terms = np.asarray(result["steps"]), result["terms"]
    axes.plot(np.arange(2, len(kl) + 1), kl[1:], label=f"KL of a step, {terms['kl']:.4f} in all")
    axes.plot([1], [terms["decoder"]], "o", label=f"decoder, {terms['decoder']:.4f}")
    axes.plot([len(kl)], [terms["prior"]], "s", label=f"prior, {terms['prior']:.2g}")
    axes.set(xscale="log", yscale="log", xlabel="step of the chain", ylabel="bits a dimension",
             title=f"{result['dataset']}: a bound of {result['model']['bits']:.4f} bits a dimension")  # fmt: skip
    axes.legend()
    with aside(path_of(path)) as part:
        figure.savefig(part, format="png", dpi=150)


def table(result: dict[str, Any]) -> Table:
    """The result of `held_out` as a table for a terminal: the bound and its terms, with what they were found with below."""
    kind = "bits/dim given the label" if result["conditional"] else "bits/dim"
    title = f"{result['dataset']}: {result['examples']:,} examples of the {result['split']} split"
    shown = Table(title=f"{title}, {result['weights']}, step {result['checkpoint']}", caption=caption(result))
    shown.caption_justify = "left"
    for heading in (kind, "standard error", "prior", "KL of the steps", "decoder"):
        shown.add_column(heading, justify="right")
    shown.add_row(*(f"{value:.4f}" for value in (*result["model"].values(), *result["terms"].values())))
    return shown


def caption(result: dict[str, Any]) -> str:
    """What the figures mean and what they were made with."""
    return (f"An upper bound, of the chain of {result['chain']} steps that ancestral sampling walks; data: {result['data']}; "
            f"{result['draws']} draw{'s' * (result['draws'] > 1)} of the noise.")  # fmt: skip
