"""Do models of texts and images understand what captions say? GLIDE, DALL-E, unCLIP and Imagen side by side, on captioned shapes.

  python experiments/benchmarks/relations.py --runs runs/relations
  python experiments/benchmarks/relations.py --runs runs/relations --only "GLIDE" "Imagen" --n 500

Trains what is missing in the folder, and asks each system for --n held-out captions of the kinds and relations that training
saw, of kinds that it never saw and of relations that it never saw; `diffux evaluate --figures relations` says what each figure is.
All draw 16x16 pixels and learn from the same 20,000 examples, for about 20 minutes each on two quiet cores with all that they are
made of; the parameters and how many pictures they saw stand beside. Writes results/relations_cpu.json, the tables of
docs/text_to_image.md, and a picture of each.
"""

from __future__ import annotations

import itertools
import pathlib
import re
from typing import Any, NamedTuple

import harness
import jax
import numpy as np

from diffux.evaluation import relations
from diffux.fields import drawing
from diffux.files import aside
from diffux.sampling import files

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
MADE = {
    "glide": ("glide_shapes", {}),
    "pairs": ("unclip_shapes:contrastive", {}),
    "noisy": ("unclip_shapes:noisy", {"nets.clean": "pairs", "training.start": "pairs"}),
    "prior": ("unclip_shapes:prior", {"nets.contrastive": "pairs"}),
    "autoregressive": ("unclip_shapes:autoregressive", {"nets.contrastive": "pairs"}),
    "unclip": ("unclip_shapes", {"nets.contrastive": "pairs"}),
    "codes": ("dalle_shapes:codes", {}),
    "dalle": ("dalle_shapes", {"nets.dvae": "codes"}),
    "imagen": ("imagen_shapes", {}),
}
"""{run: (its config, {key of it: the run that it is built on})}, each after those that it is built on."""


class Row(NamedTuple):
    """A system as it is asked: its runs by the names that the task wants, its guidance by the encoder `semantic`, where there is
    one, and what else is trained for it."""

    models: dict[str, str]
    guidance: float | str | None = None
    semantic: str | None = None
    task: str = "once"
    besides: tuple[str, ...] = ()


ROWS = {
    "GLIDE": Row({"model": "glide"}, 3.0),
    "GLIDE without guidance": Row({"model": "glide"}),
    "GLIDE, guided by CLIP": Row({"model": "glide"}, "semantic(text=300,moves=mean)", "noisy", besides=("pairs",)),
    "unCLIP": Row({"prior": "prior", "decoder": "unclip"}, 3.0, task="prior_decoder", besides=("pairs",)),
    "unCLIP, autoregressive prior": Row({"prior": "autoregressive", "decoder": "unclip"}, 3.0, task="prior_decoder(draws=1)",
                                        besides=("pairs",)),
    "Imagen": Row({"model": "imagen"}, 3.0),
    "DALL-E": Row({"model": "dalle"}, besides=("codes",)),
    "DALL-E, best of 8": Row({"model": "dalle", "judge": "pairs"}, task="best_of(draws=8)", besides=("codes",)),
}


def trained(folder: pathlib.Path, name: str, seed: int) -> pathlib.Path:
    """The folder of a run, trained if it is not there, after what it is built on."""
    config, on = MADE[name]
    more = [f"--config.{key}={trained(folder, other, seed)}" for key, other in on.items()]
    harness.run(folder, f"{name}_{seed}", config, f"--config.seed={seed}", *more)
    return folder / f"{name}_{seed}"


def cost(folders: list[pathlib.Path]) -> dict[str, float]:
    """The parameters of runs in millions, and how many thousand pictures their trainings saw."""
    runs = [files.models({"model": folder})["model"] for folder in folders]
    return {"parameters": sum(leaf.size for run in runs for leaf in jax.tree.leaves(run.variables.params)) / 1e6,
            "pictures": sum(run.step * run.plan.data.batch_size for run in runs) / 1e3}  # fmt: skip


def measured(folder: pathlib.Path, seeds: list[int], name: str, n: int) -> dict[str, Any]:
    """What `evaluation.relations.held_out` says of a row by each seed, and what the row cost."""
    row, found = ROWS[name], {}
    for seed in seeds:
        places = {role: trained(folder, run, seed) for role, run in row.models.items()}
        nets = {} if row.semantic is None else {"semantic": str(trained(folder, row.semantic, seed))}
        models = files.models(places, nets=nets, guidance=row.guidance)
        found[seed], some = relations.held_out(models, n=n, task=row.task, seed=seed)
        used = [*places.values(), *map(pathlib.Path, nets.values()), *(trained(folder, other, seed) for other in row.besides)]
        found[seed] |= cost(list(dict.fromkeys(used)))
        harness.CONSOLE.print(relations.table(found[seed]))
        if seed == seeds[0]:
            images, words = (list(itertools.chain(*each)) for each in zip(*some.values(), strict=True))
            file = re.sub(r"\W+", "_", name).lower()
            drawing.save(DOCS / f"shapes_{file}.png", drawing.tile(np.stack(images), relations.SHOWN, captions=words), {})
    return {"seeds": found, "n": n}


def table(results: dict[str, Any], group: str) -> str:
    """Markdown: the share of each aspect of a group of captions, with its interval of one seed, or the range of several."""
    lines = [f"| | {' | '.join(relations.ASPECTS.values())} |", f"|---|{'---|' * len(relations.ASPECTS)}"]
    there = [name for name in ROWS if name in results]
    known = {name: [one["rows"]["model"][group] for one in results[name]["seeds"].values()] for name in there}
    last = next(iter(results[there[-1]]["seeds"].values()))["rows"]
    known |= {"(true pictures)": [last["truth"][group]], f"({there[-1]}, by captions of others)": [last["shuffled"][group]]}
    for name, each in known.items():
        lines.append(f"| {name} | {' | '.join(_cell([one[aspect] for one in each]) for aspect in relations.ASPECTS)} |")
    return "\n".join(lines)


def _cell(shares: list[dict[str, Any]]) -> str:
    values = [100 * one["value"] for one in shares if one["value"] is not None]
    if not values:
        return ""
    if len(values) > 1:
        return f"{min(values):.0f} to {max(values):.0f}"
    low, high = (100 * abs(end) for end in shares[0]["interval"])
    return f"{values[0]:.0f} ({low:.0f} to {high:.0f})"


def costs(results: dict[str, Any]) -> str:
    """Markdown: what each system's training took, and how far its pictures are from those of training."""
    lines = ["| | million parameters | thousand pictures seen | nearest picture of training |", "|---|---|---|---|"]
    for name in ROWS:
        if name in results:
            one = next(iter(results[name]["seeds"].values()))
            near = [np.mean(list(one["nearest"][row].values())) for row in ("model", "truth")]
            lines.append(f"| {name} | {one['parameters']:.1f} | {one['pictures']:.0f} | {near[0]:.3f} ({near[1]:.3f}) |")
    return "\n".join(lines)


def main(arguments=None) -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--only", nargs="*", default=list(ROWS), choices=ROWS, help="which systems")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--n", type=int, default=relations.N, help="captions of each group")
    options = parser.parse_args(arguments)
    parts = {name: lambda name=name: measured(options.runs, options.seeds, name, options.n) for name in options.only}
    results = harness.record("relations", parts, options.out)
    if options.out is None:
        page = DOCS / "text_to_image.md"
        text = page.read_text()
        tables = {f"relations, {group}": table(results, group) for group in relations.GROUPS} | {"costs": costs(results)}
        for mark, made in tables.items():
            text = re.sub(f"<!-- {mark} -->\n(.*?)\n\n", lambda _, m=mark, t=made: f"<!-- {m} -->\n{t}\n\n", text, flags=re.DOTALL)
        with aside(page) as part:
            part.write_text(text)


if __name__ == "__main__":
    main()
