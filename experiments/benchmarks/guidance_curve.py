"""Fidelity and diversity of guided digits over scales: classifier-free guidance of `cfg_digits` and classifier guidance of an
unconditional model, `adm_digits`, by the noisy classifier of the same config.

  python experiments/benchmarks/guidance_curve.py --runs runs/guidance

Trains what is missing in the folder (seeds 0, 1 and 2; three minutes each on two cores), draws 512 digits at each scale, every
class as often, and judges them by the data set's own classifier, which guided nothing. Writes results/guidance_curve_cpu.json and
docs/guidance_curve.png. As asked: the share of samples whose class, by the judge, is the asked one. Precision and recall: of
neighbourhoods in its features (Kynkaanniemi et al., 2019).
"""

from __future__ import annotations

import pathlib

import harness
import matplotlib.pyplot as plt
import numpy as np

from diffux import data, sampling
from diffux.evaluation.frechet import feature_distance, moments
from diffux.evaluation.images import eight_bit
from diffux.evaluation.judges import judge
from diffux.evaluation.precision_recall import precision_and_recall
from diffux.files import aside

SEEDS, N, STEPS = (0, 1, 2), 512, 50
SCALES = {"classifier-free": (0.0, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0), "classifier": (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0)}
DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"


def samples(model, classifier, scale: float) -> np.ndarray:
    """Digits of the classes 0, 1, ... 9 in turn, at a scale of one kind of guidance."""
    label = {"label": ",".join(str(i % 10) for i in range(N))}
    if classifier is None:
        return sampling.samples(model, N, given=label, guidance=scale, steps=STEPS)
    nets = {"classifier": classifier.frozen}
    return sampling.samples(model, N, given=label, guidance=f"classifier({scale})", nets=nets, steps=STEPS)


def measure(folder: pathlib.Path) -> dict:
    source = data.load("digits", split="train")
    judged, reference = judge(source, print), eight_bit(data.arrays(source, len(source))["image"] / np.float32(255))
    against = judged(reference)[1]
    held_out = data.load("digits", split="test")
    held_out = eight_bit(data.arrays(held_out, len(held_out))["image"] / np.float32(255))

    def figures(images, wanted=None):
        probabilities, features = judged(eight_bit(images))
        precision, recall = precision_and_recall(features, against)
        found = {"precision": precision, "recall": recall, "frechet": float(feature_distance(moments(features), moments(against)))}
        return found if wanted is None else found | {"as asked": float(np.mean(probabilities.argmax(1) == wanted))}

    rows: dict = {kind: {scale: [] for scale in scales} for kind, scales in SCALES.items()}
    for seed in SEEDS:
        trained = lambda name, config, seed=seed: harness.run(folder, f"{name}_{seed}", config, f"--config.seed={seed}")  # noqa: E731
        free, plain = trained("cfg", "cfg_digits"), trained("adm", "adm_digits")
        classifier = trained("adm_classifier", "adm_digits:classifier")
        for kind, models in (("classifier-free", (free, None)), ("classifier", (plain, classifier))):
            for scale in SCALES[kind]:
                rows[kind][scale].append(figures(samples(*models, scale), np.arange(N) % 10))
                print(seed, kind, scale, rows[kind][scale][-1], flush=True)
    return {"rows": rows, "held out": figures(held_out), "n": N, "steps": STEPS, "judge": judged.name}


def picture(results: dict) -> None:
    """Docs' picture: the share as asked, and precision against recall, over scales; bands are the seeds' range."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for (kind, scales), colour in zip(results["rows"].items(), ("#0072b2", "#d55e00"), strict=True):
        at = [float(scale) for scale in scales]
        of = lambda name, scales=scales: np.asarray([[one[name] for one in seeds] for seeds in scales.values()])  # noqa: E731
        shares, precision, recall = of("as asked"), of("precision").mean(1), of("recall").mean(1)
        left.plot(at, 100 * shares.mean(1), "o-", color=colour, label=f"{kind} guidance")
        left.fill_between(at, 100 * shares.min(1), 100 * shares.max(1), color=colour, alpha=0.2, linewidth=0)
        right.plot(recall, precision, "o-", color=colour)
        for scale, x, y in zip(at, recall, precision, strict=True):
            right.annotate(f"{scale:g}", (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8, color=colour)
    real = results["held out"]
    right.plot(real["recall"], real["precision"], "k*", markersize=11, linestyle="none", label="held-out digits")
    right.legend(frameon=False, loc="lower left")
    left.set(xlabel="scale", ylabel="of the asked class (%)")
    left.legend(frameon=False)
    right.set(xlabel="recall (diversity)", ylabel="precision (fidelity)")
    with aside(DOCS / "guidance_curve.png") as path:
        figure.savefig(path, format="png", dpi=110)


def main(arguments=None) -> None:
    options = harness.parser(__doc__).parse_args(arguments)
    results = harness.record("guidance_curve", {"curve": lambda: measure(options.runs)}, options.out)
    if options.out is None:
        picture(results["curve"])


if __name__ == "__main__":
    main()
