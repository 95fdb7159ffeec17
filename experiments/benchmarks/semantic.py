"""Semantic guidance of an unconditional model of shapes, `sdg_shapes`: by captions, and by a reference's content, structure and
style.

  python experiments/benchmarks/semantic.py --runs runs/semantic

Trains what is missing in the folder by seeds 0, 1 and 2: the model, an encoder of clean pictures, and its student of noisy ones.
The student guides, and the clean encoder of the next seed, which guided nothing here, judges. Writes results/semantic_cpu.json, a
row for each seed, and docs/semantic.png of the first one.

- captions: the share of samples whose colour and shape are the asked ones, by the rule that reads them off
  (`evaluation.captioned_shapes`), beside the share without guidance.
- references: in how many of 64 pairs of samples of equal keys the guided one is more similar to its reference than the unguided
  one, by the judge, and in pixels. Control: the same of the reference of another pair.
- retrieval: of 256 held-out pictures noised to a level, the share whose embedding by the student finds the clean encoder's of the
  same picture; beside that of the clean encoder, which was not told the level.
"""

from __future__ import annotations

import functools
import pathlib

import harness
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from diffux import data, sampling
from diffux import keys as rng
from diffux.data.captioned_shapes import scenes
from diffux.files import aside
from diffux.guidance import _semantic

SEEDS = (0, 1, 2)
N, ASKED, PICTURES, STEPS = 64, 192, 256, 50  # pairs, captions, pictures to be found
TEXT = (50.0, 100.0, 200.0, 300.0)
SCALES = {"structure": 0.5, "style": 10.0, "content": 300.0}
BY_TEXT = "semantic(text={}, moves=mean)"  # strong, so that a moved estimate would leave its range and be clipped
DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"


def runs(folder: pathlib.Path) -> list[dict]:
    """For each seed its `model`, `clean` and `noisy` encoders, and the `judge`."""
    found = []
    for seed in SEEDS:
        words, clean = f"--config.seed={seed}", folder / f"clean_{seed}"
        one = {"model": harness.run(folder, f"model_{seed}", "sdg_shapes", words)}
        one["clean"] = harness.run(folder, f"clean_{seed}", "sdg_shapes:clean", words)
        one["noisy"] = harness.run(folder, f"noisy_{seed}", "sdg_shapes:noisy", words, f"--config.nets.clean={clean}",
                                   f"--config.training.start={clean}")  # fmt: skip
        found.append(one)
    return [one | {"judge": found[(i + 1) % len(found)]["clean"]} for i, one in enumerate(found)]


def draw(found: dict, words: str | None, given: dict, n: int = N) -> np.ndarray:
    return sampling.samples(found["model"], n, given=given, guidance=words, nets={"semantic": found["noisy"].frozen}, steps=STEPS)


def references(n: int = N) -> dict[str, np.ndarray]:
    return data.arrays(data.load("captioned_shapes:32", split="test", objects=1), n)


def captions(found: dict) -> dict:
    """The share of the asked colour and shape, over scales; 0 is no guidance."""
    asked = harness.captions(ASKED, [kind for kind in scenes.KINDS if kind not in scenes.NOVEL_KINDS])
    tokens = found["clean"].fields["caption"].encode(asked)
    rows = {}
    for scale in (0.0, *TEXT):
        rows[scale] = harness.obeyed(draw(found, BY_TEXT.format(scale), {"caption": tokens}, ASKED), asked)
        print("text", scale, rows[scale], flush=True)
    return rows


def similarities(found: dict, images: np.ndarray, reference: np.ndarray) -> dict[str, np.ndarray]:
    """Of clean pictures, by the judge, and minus their squared distance in pixels."""
    judge = found["judge"].frozen

    @jax.jit
    def seen(judge, images):
        return _semantic.Seen(*judge.image(judge.codec.encode(None, images, {}), jnp.zeros(len(images))))

    one, other = seen(judge, jnp.asarray(images)), seen(judge, jnp.asarray(reference / np.float32(255)))
    pixels = -np.mean((images - reference / np.float32(255)) ** 2, (1, 2, 3))
    return {kind: np.asarray(of(one, other)) for kind, of in _semantic.BESIDE.items()} | {"pixels": pixels}


def beside(found: dict) -> dict:
    """In how many pairs guidance by a reference raises each similarity to it, and to that of another pair; the medians of both."""
    reference, rows = references()["image"], {}
    both = [reference, np.roll(reference, 1, 0)]
    unguided = draw(found, None, {})
    plain, other_plain = (similarities(found, unguided, to) for to in both)
    for kind, scale in SCALES.items():
        images = draw(found, f"semantic({kind}={scale})", {"reference": reference})
        guided, other = (similarities(found, images, to) for to in both)
        rows[kind] = {"scale": scale} | {
            name: {"raised": float(np.mean(guided[name] > plain[name])), "guided": float(np.median(guided[name])),
                   "unguided": float(np.median(plain[name])), "raised_to_another": float(np.mean(other[name] > other_plain[name]))}
            for name in plain}  # fmt: skip
        print(kind, rows[kind], flush=True)
    return rows


@functools.partial(jax.jit, static_argnames="told")
def _embedded(system, x, level, told):
    return system.see(x, level if told else None)


def retrieval(found: dict, n: int = PICTURES) -> dict:
    """The share found of n pictures at noise levels, by the student and by its teacher as it is."""
    student = found["noisy"].frozen
    x = jnp.asarray(student.codec.encode(None, references(n)["image"], {}), jnp.float32)
    wanted = _embedded(student.clean, x, None, False)
    share = lambda embedding: float(jnp.mean(jnp.argmax(embedding @ wanted.T, 1) == jnp.arange(n)))  # noqa: E731
    rows = {}
    for t in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        level = student.process.schedule(jnp.full(n, t))
        noisy = student.process.marginal(x, level).sample(rng.sample_keys(0, 0, n))
        rows[t] = {"log_snr": float(level.log_snr[0]), "student": share(_embedded(student, noisy, level, True)),
                   "teacher": share(_embedded(student.clean, noisy, None, False))}  # fmt: skip
        print("retrieval", t, rows[t], flush=True)
    return rows


def picture(found: dict, n: int = 8) -> None:
    """Docs' picture: equal keys in a column, without guidance and by each kind."""
    reference = references(n)["image"]
    words = "a red circle", "a green square", "a blue cross", "an orange triangle"
    tokens = found["clean"].fields["caption"].encode([words[i % len(words)] for i in range(n)])
    rows = {"references": reference / np.float32(255), "unguided": draw(found, None, {}, n)}
    rows["text"] = draw(found, BY_TEXT.format(TEXT[2]), {"caption": tokens}, n)
    for kind, scale in SCALES.items():
        rows[kind] = draw(found, f"semantic({kind}={scale})", {"reference": reference}, n)
    figure, axes = plt.subplots(len(rows), n, figsize=(n * 1.1, len(rows) * 1.2), layout="constrained")
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        for i, (axis, image) in enumerate(zip(line, images, strict=True)):
            axis.imshow(np.clip(image, 0, 1), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            if name == "text":
                axis.set_title(words[i % len(words)], fontsize=7)
        line[0].set_ylabel(name, fontsize=9)
    with aside(DOCS / "semantic.png") as path:
        figure.savefig(path, format="png", dpi=110)


def main(arguments=None) -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--only", nargs="*", default=["retrieval", "captions", "references", "picture"], help="parts to run")
    options = parser.parse_args(arguments)
    found = runs(options.runs)
    known = {"retrieval": (retrieval, {"n": PICTURES}), "captions": (captions, {"n": ASKED, "steps": STEPS}),
             "references": (beside, {"n": N, "steps": STEPS})}  # fmt: skip
    over = lambda part, said: lambda: {"rows": [part(one) for one in found]} | said  # noqa: E731
    harness.record("semantic", {name: over(*known[name]) for name in options.only if name in known}, options.out)
    if "picture" in options.only:
        picture(found[0])


if __name__ == "__main__":
    main()
