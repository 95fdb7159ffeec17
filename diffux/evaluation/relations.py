"""Whether pictures show what their captions say: colours, shapes, numbers, which goes with which, and where things are.

Of a model that is given captions of captioned_shapes, whose pictures can be read without a network (`captioned_shapes.seen`): it is
asked for captions of the kinds and relations that training saw, and of those that it never did. A relation counts where both things
that it names are there and lie so; what is no scene is wrong in all.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
import math
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from diffux import data
from diffux.data.captioned_shapes import scenes
from diffux.errors import EvaluationError, UserError
from diffux.evaluation import _held_out, captioned_shapes
from diffux.evaluation._table import Sets
from diffux.evaluation.images import eight_bit
from diffux.evaluation.neighbours import nearest_distances
from diffux.fields import drawing
from diffux.files import aside, path_of, writing
from diffux.runs.run import Run
from diffux.sampling import draw as sampling
from diffux.sampling import files

GROUPS = {"seen": "kinds and relations of training", "pair": "kinds that training never saw",
          "relation": "relations that training never saw"}  # fmt: skip
"""Of captions, by what is new in their scenes, in the order of `scenes.NOVELTIES`."""
ASPECTS = {
    "readable": "a scene",
    "colours": "colours",
    "shapes": "shapes",
    "count": "numbers",
    "binding": "which with which",
    "relation": "relations",
    "all": "all of it",
}
"""What is judged. "binding" is of captions that name two things or more of different kinds, "relation" of those that say one."""
N, SHOWN = 256, 8


# --- what a caption says -----------------------------------------------------------------------------------------------

_SIZE, _COLOUR, _SHAPE = (f"({'|'.join(words)})" for words in (scenes.SIZES, scenes.COLOURS, scenes.SHAPES))
_SAID = {phrase: name for name, phrases in scenes.RELATIONS.items() for phrase in phrases}
_THING = re.compile(rf"(?:an?|one) (?:{_SIZE} )?{_COLOUR} {_SHAPE}")
_ALIKE = re.compile(rf"(two|three) (?:{_SIZE} )?{_COLOUR} {_SHAPE}(?:s|es)")
_ENDS = (re.compile(r"(.+) on a (dark|light) background"), re.compile(rf"(.+) at the ({'|'.join(scenes.PLACES)})"))
_NEXT = re.compile(rf" (?:(and) )?({'|'.join(sorted(_SAID, key=len, reverse=True))}) | (and) ")


@dataclasses.dataclass(frozen=True)
class Claim:
    """What a caption says of a scene.

    - things: the (size or None, colour, shape) of those that it names; count: how many things there are.
    - relations: (which of them, the relation, which other); place, background: those that it says, of the first thing, or None.
    """

    things: tuple[tuple[str | None, str, str], ...]
    count: int
    relations: tuple[tuple[int, str, int], ...] = ()
    place: str | None = None
    background: str | None = None

    @property
    def kinds(self) -> list[str]:
        return [f"{colour} {shape}" for _, colour, shape in self.things]


def claim(caption: str) -> Claim:
    """What a caption of captioned_shapes says; EvaluationError for one that none of its wordings is.

    Example:
        >>> claim("a red circle left of a small blue square").relations
        ((0, 'left of', 1),)
    """
    rest, background, place = " ".join(caption.lower().split()), None, None
    if found := _ENDS[0].fullmatch(rest):
        rest, background = found.groups()
    if found := _ENDS[1].fullmatch(rest):
        rest, place = found.groups()
    if found := _ALIKE.fullmatch(rest):
        count = 1 + scenes.CLASSES["count"].index(found[1])
        return Claim((found.groups()[1:],) * count, count, (), place, background)
    stated = re.fullmatch(r"(two|three) shapes with (.+)", rest)
    things, relations, rest = [], [], stated[2] if stated else rest
    while found := _THING.match(rest):
        things.append(found.groups())
        rest = rest[found.end() :]
        if not rest:
            count = 1 + scenes.CLASSES["count"].index(stated[1]) if stated else len(things)
            return Claim(tuple(things), count, tuple(relations), place, background)
        if not (step := _NEXT.match(rest)):
            break
        if step[2]:  # "and above" goes on from the first thing
            relations.append((0 if step[1] else len(things) - 1, _SAID[step[2]], len(things)))
        rest = rest[step.end() :]
    raise EvaluationError(f"{caption!r} is no caption of captioned_shapes, such as 'a red circle left of a blue square'")


def judged(scene: scenes.Scene | None, said: Claim) -> dict[str, bool | None]:
    """{aspect: whether the scene is so, or None where the caption says nothing of it}; no scene is as nothing that is said.

    Example:
        >>> there = scenes.scene("train", 4)
        >>> False in judged(there, claim(scenes.caption(there, "train", 4))).values()
        False
    """
    things = () if scene is None else scene.things
    has = lambda wanted, there: not collections.Counter(wanted) - collections.Counter(there)  # noqa: E731
    kinds = has(said.kinds, [thing.kind for thing in things])
    related = [_related(things, said, one) for one in said.relations]
    rest = [has([(size, f"{colour} {shape}") for size, colour, shape in said.things if size],
                [(thing.size, thing.kind) for thing in things])]  # fmt: skip
    if said.place is not None:
        rest.append(any((thing.kind, scenes.place(thing)) == (said.kinds[0], said.place) for thing in things))
    if said.background is not None:
        rest.append(scene is not None and scene.background == said.background)
    found: dict[str, bool | None] = {
        "readable": scene is not None,
        "colours": has([colour for _, colour, _ in said.things], [thing.colour for thing in things]),
        "shapes": has([shape for *_, shape in said.things], [thing.shape for thing in things]),
        "count": len(things) == said.count,
        "binding": kinds if len(set(said.kinds)) > 1 else None,
        "relation": all(related) if related else None,
    }
    return found | {"all": all([*(one for one in found.values() if one is not None), kinds, *rest])}


def _related(things: Sequence[scenes.Thing], said: Claim, relation: tuple[int, str, int]) -> bool:
    """Whether there is one thing of each of both kinds, and the first lies so beside the other."""
    first, name, other = relation
    both = [[thing for thing in things if thing.kind == said.kinds[i]] for i in (first, other)]
    return all(len(found) == 1 for found in both) and scenes.relation(both[0][0], both[1][0]) == name


def wilson(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The interval of a share `right` of n, of z standard deviations either way (Wilson, 1927).

    Example:
        >>> [round(end, 3) for end in wilson(9, 10)]
        [0.596, 0.982]
    """
    if not n:
        return 0.0, 1.0
    share, middle = right / n, z**2 / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = ((share + middle + side) / (1 + 2 * middle) for side in (-half, half))
    return max(low, 0.0), min(high, 1.0)  # to rounding they are within


def shares(images: Any, captions: Sequence[str]) -> dict[str, dict[str, Any]]:
    """{aspect: the `value`, the ends of its 95 % `interval`, and the number `n` of captions that say it} of images (N, H, H, 3).

    Raises EvaluationError for a caption that is none of captioned_shapes.
    """
    rows = [judged(scene, claim(caption)) for scene, caption in zip(captioned_shapes.seen(images), captions, strict=True)]
    found = {}
    for aspect in ASPECTS:
        said = [row[aspect] for row in rows if row[aspect] is not None]
        right = sum(map(bool, said))
        found[aspect] = {"value": right / len(said) if said else None, "interval": wilson(right, len(said)), "n": len(said)}
    return found


# --- a model's pictures of held-out captions ---------------------------------------------------------------------------


def asked(name: str, like: Any, n: int, **options: Any) -> dict[str, dict[str, Any]]:
    """{group: its fields} of n held-out examples of each of `GROUPS`, with "words", the captions as strings."""
    sources = [data.load(name, split=split, like=like, **options) for split in ("test", "held_out")]
    both = [data.arrays(source, len(source)) for source in sources]
    fields, found = {key: np.concatenate([one[key] for one in both]) for key in both[0]}, {}
    for number, group in enumerate(GROUPS):
        places = np.flatnonzero(fields["novelty"] == number)[:n]
        if len(places) < n:
            raise EvaluationError(f"{name} has {len(places)} held-out captions of {GROUPS[group]}, and {n} were asked for: "
                                  f"--n {len(places)} fits, or a data set of more examples")  # fmt: skip
        chosen = {key: values[places] for key, values in fields.items()}
        found[group] = chosen | {"words": sources[0].fields["caption"].words(chosen["caption"])}
    return found


def held_out(models: Mapping[str, Run], *, n: int | None = None, progress: Callable[[str, int, int], None] | None = None,
             **drawn: Any) -> tuple[dict[str, Any], dict[str, tuple[np.ndarray, list[str]]]]:  # fmt: skip
    """(the shares of n pictures of each of `GROUPS`, ready for JSON; {group: (some images, their captions)}).

    `rows` has the model's, those of the true pictures, "truth", and the model's by the captions of other pictures, "shuffled",
    which tell what is right by chance; `nearest` how far, in pixels' root mean square, the model's and the true pictures are from
    the nearest one of training. Further keywords go to `sampling.draw.draw`.

    Raises EvaluationError for models that are given no captions, of data other than captioned_shapes, and UserError for those that
    are not sampled.
    """
    sampling.sampled(models)
    last = list(models.values())[-1]
    run = next((one for one in models.values() if "caption" in one.asks), last)
    source, _ = _held_out.sources(last.plan)
    if "caption" not in run.asks or not {"caption", "novelty"} <= set(source.fields) or len(last.shape) != 3:
        raise EvaluationError(f"relations are of pictures that captions of captioned_shapes ask for, and {last.plan.name} is given "
                              f"{', '.join(last.asks) or 'nothing'} of {source.name}")  # fmt: skip
    groups = asked(source.name, source.fields, N if n is None else n, **last.plan.data.options)
    trained = data.load(source.name, split="train", like=source.fields, **last.plan.data.options)
    trained = data.arrays(trained, len(trained))["image"] / np.float32(255)
    rows, nearest, some = {"model": {}, "truth": {}, "shuffled": {}}, {"model": {}, "truth": {}}, {}
    for i, (group, fields) in enumerate(groups.items()):
        count, words = len(fields["words"]), fields["words"]
        report = None if progress is None else lambda done, total, i=i: progress("pictures", i * total + done, len(groups) * total)
        given = {"caption": fields["caption"], **drawn.get("given", {})}
        parts = list(sampling.draw(models, count, progress=report, **drawn | {"given": given}))
        name, _ = sampling.outcome(models, parts[0])
        images = eight_bit(np.concatenate([part[name] for part in parts]))
        rows["model"][group] = shares(images, words)
        rows["shuffled"][group] = shares(images, [*words[1:], words[0]])
        rows["truth"][group] = shares(fields["image"], words)
        for row, pictures in (("model", images), ("truth", fields["image"] / np.float32(255))):
            nearest[row][group] = float(np.mean(nearest_distances(pictures, trained)) / np.sqrt(pictures[0].size))
        some[group] = images[:SHOWN], words[:SHOWN]
    how = sampling.how_drawn(models, {"seed": drawn.get("seed", 0)})
    return {"dataset": source.name, "n": len(groups["seen"]["words"]), "samples": how, "rows": rows, "nearest": nearest}, some


def of_run(
    directory: Any,
    models: Mapping[str, Any],
    *,
    n: int | None = None,
    walk: Mapping[str, Any] = {},
    weights: Mapping[str, Any] = {},
    drawn: Mapping[str, Any] = {},
) -> tuple[dict[str, Any], list[pathlib.Path]]:
    """(the figures of `held_out`, the files that were written into `directory`: relations.json and relations.png).

    models, walk, weights: as in `evaluation.runs.of_run`; drawn: its `drawing`. Raises UserError where there is no run.
    """
    folder = path_of(directory).absolute()
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    runs = files.models(models, **walk, **weights)
    with _held_out.reported() as report:
        result, some = held_out(runs, n=n, progress=report, **drawn)
    result["samples"] |= {key: str(walk[key]) for key in ("guidance", "grid", "eta") if walk.get(key)}
    with writing(folder / "relations.png"):
        images, words = (list(itertools.chain(*each)) for each in zip(*some.values(), strict=True))
        sheet = drawing.tile(np.stack(images), SHOWN, captions=words)
        picture = drawing.save(folder / "relations.png", sheet, result["samples"])
    with writing(folder / "relations.json"), aside(folder / "relations.json") as part:
        part.write_text(json.dumps(result, indent=2) + "\n")
    return result, [folder / "relations.json", picture]


def table(result: Mapping[str, Any]) -> Sets:
    """The result of `held_out` as a table for a terminal, with what the figures mean below."""
    rows = {}
    for row, groups in result["rows"].items():
        for group, found in groups.items():
            rows[f"{_ROWS[row]}, {group}"] = {ASPECTS[aspect]: _text(one) for aspect, one in found.items()}
    how, (own, true) = result["samples"], (np.mean(list(result["nearest"][row].values())) for row in ("model", "truth"))
    near = f"The nearest picture of training is {own:.3f} away, and {true:.3f} from true pictures, in pixels' root mean square."
    return Sets(title=f"{result['dataset']}: {result['n']} captions each", rows=rows,
                caption=f"{_CAPTION} {near} Samples: {how['weights']}, step {how['checkpoint']}, {how['solver']}, {how['steps']} "
                        f"steps{''.join(f', {key} {how[key]}' for key in ('guidance',) if key in how)}.")  # fmt: skip


def _text(share: Mapping[str, Any]) -> str:
    if share["value"] is None:
        return ""
    low, high = share["interval"]
    return f"{share['value']:.1%} ({100 * low:.0f}-{100 * high:.0f})"


_ROWS = {"model": "the model", "truth": "true pictures", "shuffled": "captions of others"}
_CAPTION = (
    "Shares of the captions that say it, with 95 % intervals (Wilson). Seen: kinds and relations of training; pair, relation: a "
    "kind, or a relation of two kinds, that training never saw. A relation counts where both its things are there and lie so."
)
