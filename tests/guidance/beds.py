"""Two beds on which every guidance has an answer: every transform beside its formula, written out in numpy's operations.

A bed is the estimates of a condition and of its null. `GAUSSIAN` has one Gaussian each, so that all that is affine stays affine;
`MIXTURE` has two classes of two Gaussians, whose guided law has no closed form: its guided field does.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffux import NoiseLevel, Prediction, guidance
from diffux.networks.attention import Attention


class Bed(NamedTuple):
    """Densities of the condition and of everything, in D dimensions: weights (K,), means (K, D), variances (K,)."""

    conditional: tuple
    null: tuple


ONE = np.ones(1)
GAUSSIAN = Bed((ONE, np.asarray([[0.8, -0.6, 0.3]]), np.asarray([0.3])), (ONE, np.asarray([[-0.2, 0.4, -0.5]]), np.asarray([0.9])))
_MEANS = np.asarray([[1.0, 0.5, -0.3], [-0.4, 1.2, 0.8], [-1.0, -0.8, 0.2], [0.6, -1.0, -0.9]])
_VARIANCES = np.asarray([0.15, 0.1, 0.2, 0.12])
MIXTURE = Bed((np.asarray([0.6, 0.4]), _MEANS[:2], _VARIANCES[:2]), (np.asarray([0.3, 0.2, 0.25, 0.25]), _MEANS, _VARIANCES))
BEDS = {"Gaussian": GAUSSIAN, "mixture": MIXTURE}


def log_terms(density, x, alpha, sigma, xp):
    """(log of every component's joint density with x (B, D), up to a constant: (B, K); its variance (K,); x - alpha mean)."""
    weights, means, variances = density
    variance = alpha**2 * variances + sigma**2
    offset = x[:, None, :] - alpha * means
    size = (offset**2).sum(-1)
    return xp.log(weights) - 0.5 * size / variance - 0.5 * x.shape[-1] * xp.log(variance), variance, offset


def estimate(density, x, alpha, sigma, xp=np):
    """E[x_0 | x_t = x]."""
    _, means, variances = density
    logs, variance, offset = log_terms(density, x, alpha, sigma, xp)
    odds = xp.exp(logs - logs.max(1, keepdims=True))
    odds = odds / odds.sum(1, keepdims=True)
    return (odds[..., None] * (means + (alpha * variances / variance)[:, None] * offset)).sum(1)


def score(density, x, alpha, sigma, xp=np):
    logs, variance, offset = log_terms(density, x, alpha, sigma, xp)
    odds = xp.exp(logs - logs.max(1, keepdims=True))
    return -((odds / odds.sum(1, keepdims=True))[..., None] * offset / variance[:, None]).sum(1)


def log_ratio(bed: Bed) -> Callable:
    """log p(x_t | condition) - log p(x_t), a classifier up to a constant."""

    def of(x, level, cond):
        both = [jax.nn.logsumexp(log_terms(density, x, level.alpha, level.sigma, jnp)[0], 1) for density in bed]
        return both[0] - both[1]

    return of


ATTENTION = Attention(dtype=jnp.float64, param_dtype=jnp.float64)
_RNG = np.random.default_rng(0)
WEIGHTS = {name: {"kernel": _RNG.normal(size=(4, 4)), "bias": _RNG.normal(size=4)} for name in ("query", "key", "value", "out")}
WEIGHTS["norm"] = {"scale": _RNG.normal(size=4), "bias": _RNG.normal(size=4)}


def looked(x, xp=np, how="softmax"):
    """0.1 times an attention between the entries of x, each lifted to four channels by sines: written out."""
    tokens = xp.sin(x[..., None] * np.arange(1, 5))
    mean, spread = tokens.mean((1, 2), keepdims=True), tokens.var((1, 2), keepdims=True)
    h = (tokens - mean) / xp.sqrt(spread + 1e-6) * WEIGHTS["norm"]["scale"] + WEIGHTS["norm"]["bias"]
    query, key, value = (h @ WEIGHTS[name]["kernel"] + WEIGHTS[name]["bias"] for name in ("query", "key", "value"))
    if how == "mean":
        query = query.mean(1, keepdims=True) + 0 * query
    logits = (query[:, :, None] * key[:, None]).sum(-1) / 2
    weights = xp.exp(logits - logits.max(-1, keepdims=True))
    weights = weights / weights.sum(-1, keepdims=True)
    seen = value if how == "identity" else (weights[..., None] * value[:, None]).sum(2)
    return 0.1 * (tokens + seen @ WEIGHTS["out"]["kernel"] + WEIGHTS["out"]["bias"]).mean(-1)


def denoiser(bed: Bed, attends: bool = False) -> Callable:
    """The exact denoiser of the condition, and of the null where `null`; with an attention of a Flax module beside it."""

    def denoise(x, level, cond):
        null = cond.get("null", jnp.zeros(x.shape[0], bool))
        alpha, sigma = (field[:1] if jnp.ndim(field) else field for field in (level.alpha, level.sigma))
        one, none = (estimate(density, x, alpha, sigma, jnp) for density in bed)
        x0 = jnp.where(null[:, None], none, one)
        if attends:
            tokens = jnp.sin(x[..., None] * np.arange(1, 5))
            x0 = x0 + 0.1 * ATTENTION.apply({"params": jax.tree.map(jnp.asarray, WEIGHTS)}, tokens).mean(-1)
        return Prediction(x0)

    return denoise


class Guide(NamedTuple):
    """`transform(bed)`, and its guided x0 written out: `formula(bed, x, alpha, sigma, xp)`. `unguided` is what it acts on, the
    "condition", the "null" or a "network" with an attention."""

    transform: Callable[[Bed], Any]
    formula: Callable
    unguided: str = "condition"


def both(bed, x, alpha, sigma, xp):
    return estimate(bed.conditional, x, alpha, sigma, xp), estimate(bed.null, x, alpha, sigma, xp)


def cfg(scale):
    def of(bed, x, alpha, sigma, xp):
        one, none = both(bed, x, alpha, sigma, xp)
        return none + scale * (one - none)

    return of


def inside(low, high, formula):
    def of(bed, x, alpha, sigma, xp):
        within = (sigma > low * alpha) & (sigma <= high * alpha)
        return xp.where(within, formula(bed, x, alpha, sigma, xp), estimate(bed.conditional, x, alpha, sigma, xp))

    return of


def by_classifier(scale):
    def of(bed, x, alpha, sigma, xp):
        slope = score(bed.conditional, x, alpha, sigma, xp) - score(bed.null, x, alpha, sigma, xp)
        return estimate(bed.null, x, alpha, sigma, xp) + scale * sigma**2 / alpha * slope

    return of


def rescaled(scale, share):
    def of(bed, x, alpha, sigma, xp):
        eps = lambda x0: (x - alpha * x0) / sigma  # noqa: E731
        q, plain = eps(cfg(scale)(bed, x, alpha, sigma, xp)), eps(estimate(bed.conditional, x, alpha, sigma, xp))
        return (x - sigma * (share * q * plain.std(1, keepdims=True) / q.std(1, keepdims=True) + (1 - share) * q)) / alpha

    return of


def projected(scale, parallel, most):
    def of(bed, x, alpha, sigma, xp):
        one, none = both(bed, x, alpha, sigma, xp)
        d, length = one - none, lambda v: xp.sqrt((v**2).sum(1, keepdims=True))
        d = d * most / xp.maximum(most, length(d))
        along = (d * one).sum(1, keepdims=True) / (one**2).sum(1, keepdims=True) * one
        return one + (scale - 1) * (d - along + parallel * along)

    return of


def tempered(temperature):
    def of(bed, x, alpha, sigma, xp):
        return x / alpha + (estimate(bed.conditional, x, alpha, sigma, xp) - x / alpha) / temperature

    return of


def summed(*formulas):
    def of(bed, x, alpha, sigma, xp):
        own = estimate(bed.conditional, x, alpha, sigma, xp)
        return own + sum(formula(bed, x, alpha, sigma, xp) - own for formula in formulas)

    return of


def clipped(quantile=None):
    def of(bed, x, alpha, sigma, xp):
        x0 = cfg(3.0)(bed, x, alpha, sigma, xp)
        size = 1.0 if quantile is None else xp.maximum(xp.quantile(xp.abs(x0), quantile, axis=1, keepdims=True), 1.0)
        return xp.clip(x0, -size, size) / size

    return of


def attended(scale, how):
    def of(bed, x, alpha, sigma, xp):
        own, worse = looked(x, xp), looked(x, xp, how)
        return estimate(bed.conditional, x, alpha, sigma, xp) + own + scale * (own - worse)

    return of


GUIDES = {
    "none": Guide(lambda bed: (), lambda bed, x, alpha, sigma, xp: estimate(bed.conditional, x, alpha, sigma, xp)),
    "classifier_free": Guide(lambda bed: guidance.classifier_free(3.0), cfg(3.0)),
    "between": Guide(lambda bed: guidance.between(guidance.classifier_free(3.0), 0.3, 3.0), inside(0.3, 3.0, cfg(3.0))),
    "rescaled": Guide(lambda bed: guidance.rescaled(guidance.classifier_free(3.0), 0.7), rescaled(3.0, 0.7)),
    "adaptive_projected": Guide(lambda bed: guidance.adaptive_projected(3.0, 0.3, 1.0), projected(3.0, 0.3, 1.0)),
    "classifier": Guide(lambda bed: guidance.classifier(log_ratio(bed), 1.5), by_classifier(1.5), "null"),
    "autoguidance": Guide(lambda bed: guidance.autoguidance(denoiser(Bed(bed.null, bed.null)), 2.0), cfg(2.0)),
    "temperature": Guide(lambda bed: guidance.temperature(0.9), tempered(0.9)),
    "added": Guide(lambda bed: guidance.added(guidance.classifier_free(2.0), guidance.temperature(0.9)),
                   summed(cfg(2.0), tempered(0.9))),
    "static_threshold": Guide(lambda bed: (guidance.classifier_free(3.0), guidance.static_threshold(1.0)), clipped()),
    "dynamic_threshold": Guide(lambda bed: (guidance.classifier_free(3.0), guidance.dynamic_threshold(0.9)), clipped(0.9)),
    "perturbed_attention": Guide(lambda bed: guidance.perturbed_attention(1.5, ""), attended(1.5, "identity"), "network"),
    "smoothed_attention": Guide(lambda bed: guidance.smoothed_attention(1.5, where=""), attended(1.5, "mean"), "network"),
}  # fmt: skip
"""All that changes the estimate. Three guide by more, and go with some solvers: `classifier_free_pp` (a step's noise),
`classifier(moves="mean")` (a step's gradient) and momentum (one evaluation a step)."""


def transforms(name: str, bed: Bed) -> tuple:
    made = GUIDES[name].transform(bed)
    return made if isinstance(made, tuple) else (made,)


def guided(name: str, bed: Bed) -> Callable:
    """The exact denoiser with the transform around it."""
    from diffux import chain

    unguided = GUIDES[name].unguided
    denoise = denoiser(Bed(bed.null, bed.null) if unguided == "null" else bed, attends=unguided == "network")
    return chain(denoise, *transforms(name, bed))


def written_out(name: str, bed: Bed) -> Callable:
    """The guided denoiser by its formula; at the clean level and where alpha is 0 the estimate without guidance."""

    def denoise(x, level: NoiseLevel, cond):
        return Prediction(GUIDES[name].formula(bed, x, level.alpha, level.sigma, jnp))

    return denoise
