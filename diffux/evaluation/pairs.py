"""Restored images beside the true ones: what several models make of the same held-out pictures, in one table.

A model that is given a picture of the image, a small, grey or damaged one, is asked for the run's held-out examples. What it draws
is compared with these, pixel by pixel and by what pixels do not tell: of a picture that leaves much open, the mean of all images
that fit has the best PSNR and no detail, and a good sample has detail that is not the truth's.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffux.devices import mesh as sharding
from diffux.errors import EvaluationError, UserError
from diffux.evaluation import _held_out, _means, detail, fidelity, judges, perceptual
from diffux.evaluation._table import Sets
from diffux.evaluation.figure import in_floats
from diffux.evaluation.frechet import feature_distance, moments
from diffux.evaluation.images import eight_bit
from diffux.fields import drawing
from diffux.files import aside, path_of, writing
from diffux.networks import random_features
from diffux.operators import resize
from diffux.runs.restore import load
from diffux.runs.run import Run
from diffux.sampling import files
from diffux.sampling.draw import how_drawn

ROWS = {"truth": "truth", "enlarged": "enlarged", "given": "as given", "model": "the model"}
SHOWN = 6
"""Examples in the picture."""


def held_out(
    run: Run,
    beside: Mapping[str, Run] = {},
    *,
    rules: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {},
    n: int | None = None,
    draws: int = 1,
    batch: int = 256,
    seed: int = 0,
    distance: Any = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(the figures, ready for JSON; the first few images by row) of the first `n` (at most 512) held-out examples of a run.

    `rows` has the run, "model", those `beside` it by their names, `rules` that need no training by theirs (the request's fields ->
    images (N, H, W, C) in [0, 1]), the given picture itself, "enlarged" by Keys' cubic kernel to the image's sides or "given" where
    it has them, and "truth". All images are rounded to 8 bits. Every figure is a `value` with
    its `standard_error` over examples, each of which is first averaged over `draws` samples:

    - psnr, psnr_of_luma, ssim: see `fidelity`; that of the luma without a border of as many pixels as the factor between the sides.
    - lpips, or random_feature_distance: the `distance`, a part of `perceptual`, by default the latter.
    - frechet: the distance of a random network's features of all images to those of the truths, as sets, where there are several
      examples; the mean over draws. Images need not be like their own truths for it, but like images.
    - consistency: the mean squared error, in [-1, 1], between the given picture and what the run's own row makes of the sample. It
      is left out where the row does not make the given picture of the truth, since it draws at random or reads other fields.
    - colour_bias: of each channel, see `detail`; `largest` is the 95th percentile over images of the largest channel's size.
    - sharpness: `detail.fine_power` over the truth's, both averaged over examples first.
    - residual_noise: the root of `detail.noise_power` less the truth's own, negative where that is.
    - diversity: see `detail`; of several draws.

    Raises EvaluationError for a model of anything but images, one that is given no picture of them, draws below 1, a run beside it
    of other data, of images of another shape, or that is given another picture, and a rule that makes images of another shape.

    Example:
        >>> found, _ = held_out(training.load("runs/sr3"), n=64, draws=4)   # doctest: +SKIP
        >>> rich.print(table(found))                                        # doctest: +SKIP
    """
    if draws < 1:
        raise EvaluationError(f"pairs are of at least 1 draw of each image, got {draws}")
    distance = perceptual.random_features() if distance is None else distance
    _check(run)
    distance.check(run.shape)
    shown = _held_out.held_out(run, n, batch)
    _, first = next(shown.parts())
    asked, parts, some, seen = _asked(run, first), {}, {}, {}
    picture = _picture(run, asked)
    for name in (*beside, *rules):
        if name in (*ROWS, "picture") or (name in beside and name in rules):
            raise EvaluationError(f"what stands beside the model has a name of its own, and {name} is that of another row")
    for name, other in beside.items():
        _check_beside(name, other, run, shown)
        _check_given(name, _asked(other, first), asked, again=_asked(run, first))
    for kept, truth, given, methods in _restored(shown, {"model": run, **beside}, rules, picture, draws, seed, progress):
        compare = _figures(run.shape, given, distance) | {"consistency": partial(_consistency, run, picture, given)}
        size = kept.stop - kept.start
        for row, images in methods.items():
            figures = {figure: np.stack([of(one, truth) for one in images]) for figure, of in compare.items()}
            figures |= {"diversity": detail.diversity(images)[None]} if len(images) > 1 else {}
            parts.setdefault(row, []).append({figure: each[:, :size] for figure, each in figures.items()})
            seen.setdefault(row, []).append(np.stack([random_features.features(one) for one in images])[:, :size])
        for row, images in {"picture": _seen(given, truth.shape)[None], **methods}.items():
            some.setdefault(row, []).append(images[0, : max(0, min(size, SHOWN - kept.start))])
    rows = {row: {figure: np.concatenate([part[figure] for part in each], 1) for figure in each[0]} for row, each in parts.items()}
    sets = {row: np.concatenate(each, 1) for row, each in seen.items()}
    summaries = {row: _summary(figures, rows["truth"], row == "truth") for row, figures in rows.items()}
    if shown.count > 1:
        summaries = {row: _apart(figures, sets[row], sets["truth"][0], row == "truth") for row, figures in summaries.items()}
    result = {
        "dataset": shown.source.name,
        "split": shown.split,
        "examples": shown.count,
        "draws": draws,
        "seed": seed,
        "given": {"field": picture, "shape": list(given.shape[1:])},
        "perceptual": distance.name,
        "preprocessing": "8-bit images",
        "methods": {name: how_drawn(model) for name, model in {"model": run, **beside}.items()},
        "rules": list(rules),
        "rows": summaries,
    }
    return result, {row: np.concatenate(images) for row, images in some.items()}


# --- what is compared --------------------------------------------------------------------------------------------------


def _check(run: Run) -> None:
    """Raise EvaluationError unless the run draws images of pixels."""
    if not hasattr(run.system, "generate"):
        raise EvaluationError(f"this run is a {type(run.system).__name__} ({run.plan.name}), which is not sampled")
    if len(run.shape) != 3 or not run.field.dequantizes:
        raise EvaluationError(f"pairs are of images, and this model is of {run.field.things}")


def _check_beside(name: str, other: Run, run: Run, shown: _held_out.HeldOut) -> None:
    """Raise EvaluationError unless `other` draws images of the same held-out examples."""
    _check(other)
    if (other.system.data, other.shape) != (run.system.data, run.shape):
        raise EvaluationError(f"{name} draws the field {other.system.data} of {_by(other.shape)}, and the model "
                              f"{run.system.data} of {_by(run.shape)}")  # fmt: skip
    theirs = _held_out.held_out(other, shown.count, 1)
    if not np.array_equal(theirs.examples[run.system.data], shown.examples[run.system.data]):
        raise EvaluationError(f"{name} has other held-out examples, of {theirs.source.name} {theirs.split!r}, than the model, of "
                              f"{shown.source.name} {shown.split!r}")  # fmt: skip


def _check_given(name: str, theirs: Mapping[str, Any], ours: Mapping[str, Any], again: Mapping[str, Any]) -> None:
    """Raise EvaluationError unless both are given the same pictures, which a row that draws at random makes otherwise `again`."""
    theirs, ours, again = _pictures(theirs), _pictures(ours), _pictures(again)
    if _said(theirs) != _said(ours):
        raise EvaluationError(f"{name} is given {_said(theirs)}, and the model {_said(ours)}")
    for field, values in ours.items():
        if np.array_equal(values, again[field]) and not np.array_equal(values, theirs[field]):
            raise EvaluationError(f"{name} is given another {field} than the model, of the same sides, made in another way")


def _asked(run: Run, fields: Mapping[str, Any]) -> dict[str, Any]:
    """What a request would hold that asks the run for these examples."""
    return run.share(run.system.given.asked(fields)) if hasattr(run.system, "given") else {}


def _pictures(given: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(values) for name, values in given.items() if np.ndim(values) == 4}


def _picture(run: Run, given: Mapping[str, Any]) -> str:
    """The field of the picture that the run restores: one of the image's channels if there is one, else the first."""
    height, width, channels = run.shape
    fitting = {name: values.shape[1:] for name, values in _pictures(given).items()}
    fitting = {name: shape for name, shape in fitting.items() if shape[0] <= height and shape[1] <= width}
    if not fitting:
        raise EvaluationError(f"pairs are of a model that is given a picture of the image, such as a small one, and "
                              f"{run.plan.name} is given {', '.join(given) or 'nothing'}")  # fmt: skip
    return max(fitting, key=lambda name: fitting[name][-1] == channels)


def _by(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape))


def _said(given: Mapping[str, np.ndarray]) -> str:
    return " and ".join(f"{name} of {_by(given[name].shape[1:])}" for name in sorted(given)) or "no picture"


# --- the methods -------------------------------------------------------------------------------------------------------


def _restored(shown: _held_out.HeldOut, runs: Mapping[str, Run], rules: Mapping[str, Callable], picture: str, draws: int, seed: int,
              progress: Callable[[str, int, int], None] | None) -> Iterator[tuple[slice, np.ndarray, Any, dict]]:  # fmt: skip
    """(which examples, the truth, the given picture, {row: (draws, N, H, W, C) of 8 bits}), part by part."""
    done = 0
    for kept, fields in shown.parts():
        truth, asked = in_floats(fields[shown.run.system.data]), _asked(shown.run, fields)
        methods = {"truth": truth[None], **_itself(asked[picture], truth.shape)}
        methods |= {name: _ruled(name, rule(asked), truth.shape)[None] for name, rule in rules.items()}
        for name, run in runs.items():
            theirs = _asked(run, fields)
            theirs |= {field: asked[field] for field in theirs if field in asked}
            methods[name] = np.empty((draws, *truth.shape), np.float32)
            for draw in range(draws):
                keys, given = sharding.spread((shown.keys(seed, kept, draw), theirs), run.mesh)
                methods[name][draw] = eight_bit(np.asarray(run.generate(keys, given).x, np.float32))
                done += 1
                if progress is not None:
                    progress("pairs", done, shown.rounds * len(runs) * draws)
        yield kept, truth, asked[picture], methods


def _itself(given: Any, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """{row: (1, N, H, W, C)} of the given picture, where it has the image's channels."""
    if given.shape[-1] != shape[-1]:
        return {}
    return {"given" if given.shape[1:3] == shape[1:3] else "enlarged": _seen(given, shape)[None]}


def _ruled(name: str, images: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The images of a rule, of 8 bits."""
    if np.shape(images) != shape:
        raise EvaluationError(f"{name} makes images of the shape {_by(np.shape(images))}, and the examples have {_by(shape)}")
    return eight_bit(np.asarray(images, np.float32))


def _seen(given: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The given picture with the sides and channels of the images; of other channels their mean."""
    found = np.asarray(resize(given.shape[1:3], shape[1:3])(jnp.asarray(in_floats(np.asarray(given)))))
    return eight_bit(found if found.shape[-1] == shape[-1] else np.broadcast_to(found.mean(-1, keepdims=True), shape))


# --- the figures -------------------------------------------------------------------------------------------------------


def _figures(shape: tuple[int, ...], given: Any, distance: Any) -> dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]]:
    """{figure: (images, truth) -> (N, ...)} of images (H, W, C) of given pictures (N, h, w, c)."""
    height, width, channels = shape
    border = 0 if given.shape[1] == height else round(height / given.shape[1])
    found = {"psnr": fidelity.psnr}
    if channels == 3 and min(height, width) > 2 * border:
        found["psnr_of_luma"] = partial(fidelity.psnr, of_luma=True, border=border)
    if min(height, width) >= fidelity.WINDOW:
        found["ssim"] = fidelity.ssim
    return found | {
        distance.key: distance,
        "colour_bias": detail.colour_bias,
        "sharpness": lambda images, truth: detail.fine_power(images),
        "residual_noise": detail.noise_power,
    }


def _consistency(run: Run, picture: str, given: Any, images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(N,) between the given picture and that of the images; NaN where the row makes none of an image alone."""
    made = run.system.given.asked({run.system.data: np.round(255 * images).astype(np.uint8)}).get(picture)
    if made is None:
        return np.full(len(images), np.nan)
    apart = in_floats(np.asarray(made)) - in_floats(np.asarray(given))
    return np.mean((2 * apart.astype(np.float64)) ** 2, (1, 2, 3))


def _summary(figures: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray], is_truth: bool) -> dict[str, dict[str, Any]]:
    """{figure: its value and error} of figures (draws, N, ...); of the truth those that compare with nothing."""
    found = {name: _means.mean(values) for name, values in figures.items()}
    largest = np.percentile(np.abs(figures["colour_bias"]).max(-1), 95)
    found["colour_bias"]["largest"] = float(largest)
    found["sharpness"] = _means.ratio(figures["sharpness"], truth["sharpness"])
    found["residual_noise"] = _means.excess(figures["residual_noise"], truth["residual_noise"])
    if not np.all(truth["consistency"] == 0):
        del found["consistency"]
    return {name: figure for name, figure in found.items() if name in _ALONE} if is_truth else found


def _apart(summary: Mapping[str, Any], features: np.ndarray, truth: np.ndarray, is_truth: bool) -> dict[str, Any]:
    """A summary with the Frechet distance of features (draws, N, D), divided by their spread over the truths, to these (N, D)."""
    if is_truth:
        return dict(summary)
    scale = judges.spread(truth)
    apart = [feature_distance(moments(each / scale), moments(truth / scale)) for each in features]
    return {**summary, "frechet": {"value": float(np.mean(apart))}}


_ALONE = ("consistency", "sharpness", "residual_noise")


# --- a run's folder ----------------------------------------------------------------------------------------------------


def of_run(
    directory: Any,
    beside: Mapping[str, Any] = {},
    *,
    walk: Mapping[str, Any] = {},
    weights: Mapping[str, Any] = {},
    lpips: Any = None,
    **options: Any,
) -> tuple[dict[str, Any], list[pathlib.Path]]:
    """(the figures of `held_out`, the files that were written: pairs.json and pairs.png) of the run in `directory`.

    - beside: {name: folder or export} of other runs, each drawn as its own system says.
    - walk, weights: of the run alone, see `sampling.files.models`. lpips: a file of weights, see `perceptual.lpips`.
    - options: those of `held_out`.

    Raises UserError where there is no run.
    """
    folder = path_of(directory).absolute()
    if folder.is_file():
        raise UserError(f"{folder} is a file, and the pairs of a run are left in its folder")
    distance = None if lpips is None else perceptual.lpips(lpips)
    run, others = files.models({"model": folder}, **walk, **weights)["model"], {name: load(path) for name, path in beside.items()}
    with _held_out.reported() as report:
        result, images = held_out(run, others, distance=distance, progress=report, **options)
    with writing(folder / "pairs.png"):
        about = {"perceptual": result["perceptual"], "seed": result["seed"], **result["methods"]["model"]}
        drawn = drawing.save(folder / "pairs.png", sheet(result, images), about)
    with writing(folder / "pairs.json"), aside(folder / "pairs.json") as part:
        part.write_text(json.dumps(result, indent=2) + "\n")
    return result, [folder / "pairs.json", drawn]


def sheet(result: Mapping[str, Any], images: Mapping[str, np.ndarray]) -> np.ndarray:
    """The images of `held_out` as one picture: for each example the given one, what the models make of it, and the truth."""
    names, given = ["picture", *result["rules"], *result["methods"], "truth"], result["given"]
    small = given["shape"][:2] != list(images["truth"].shape[1:3])
    captions = {"picture": f"{given['field']}, enlarged" if small else given["field"]}
    columns = np.stack([images[name] for name in names], 1)
    return drawing.tile(columns.reshape(-1, *columns.shape[2:]), len(names),
                        captions=[captions.get(name, name) for name in names] * len(columns))  # fmt: skip


def table(result: Mapping[str, Any]) -> Sets:
    """The result of `held_out` as a table for a terminal, with what the figures mean below."""
    rows = {row: {head: text(figures[figure]) if figure in figures else "" for figure, cells in _CELLS.items()
                  for head, text in cells.items()} for row, figures in result["rows"].items()}  # fmt: skip
    heads = [head for head in rows["truth"] if any(cells[head] for cells in rows.values())]
    weights = [f"{ROWS.get(row, row)}: {how['weights']}, step {how['checkpoint']}" for row, how in result["methods"].items()]
    given = f"given {result['given']['field']} of {_by(result['given']['shape'])}"
    return Sets(
        title=f"{result['dataset']}: {result['examples']:,} pairs of the {result['split']} split, {given}",
        caption=f"{_CAPTION} Perceptual: {result['perceptual']}. {'; '.join(weights)}.",
        rows={ROWS.get(row, row): {head: cells[head] for head in heads} for row, cells in rows.items()},
    )


def _with(form: str, key: str = "value") -> Callable[[Mapping[str, Any]], str]:
    return lambda figure: format(figure[key], form)


_CELLS = {
    "psnr": {"PSNR": _with(".2f")},
    "psnr_of_luma": {"luma PSNR": _with(".2f")},
    "ssim": {"SSIM": _with(".4f")},
    perceptual.LPIPS.key: {"LPIPS": _with(".4f")},
    perceptual.RandomFeatures.key: {"random-feature distance": _with(".4f")},
    "frechet": {"Frechet": _with(".3f")},
    "consistency": {"consistency": _with(".1e")},
    "colour_bias": {"colour bias": lambda figure: " ".join(f"{round(value, 3) + 0:+.3f}" for value in figure["value"]),
                    "largest bias": _with(".3f", "largest")},
    "sharpness": {"sharpness": _with(".3f")},
    "residual_noise": {"residual noise": _with("+.4f")},
    "diversity": {"diversity": _with(".4f")},
}  # fmt: skip
_CAPTION = (
    "Means over images, of 8 bits, in units of [-1, 1]. Enlarged: by the cubic kernel. Luma PSNR: without a border. Frechet: of "
    "all images to all truths, by features of a random network. Consistency: squared error between the given picture and what the "
    "sample gives in its place. Largest bias: of all channels, in 95 % of images. Sharpness: the power of the highest octave of "
    "frequencies over the truth's. Residual noise: standard deviation, where the truth is flat and beyond its own. Diversity: "
    "standard deviation over draws."
)
