"""Captioned scenes of one to three coloured shapes, at any size, with masks, labels and combinations that training never sees.

The splits are train, validation, test and held_out. Every scene of held_out, and none of the others, has an object of a colour and
shape that are only there together (`scenes.NOVEL_KINDS`), or two objects in a relation in which these kinds are only there
(`scenes.NOVEL_RELATIONS`); its label `novelty` says which. `data.held_out="held_out"` makes the held-out loss that of these.

The main object, of which the labels are, is the first of a scene: the one whose relation to another, `other`, is `relation`, which
is "none" where all objects are of one kind. A caption may say less than the labels and never differs from them.
"""

from __future__ import annotations

import functools

from diffux.data import _records, cache
from diffux.data.captioned_shapes import scenes
from diffux.data.images import decode
from diffux.data.source import Source
from diffux.errors import DataError
from diffux.fields import Field, Image, Label, Mask, text

SMALLEST, LARGEST = 16, 1024
"""Sides in pixels: in smaller pictures the shapes of small objects cannot be told apart."""


class Scenes:
    """Reads one split: `read(i)` -> the picture, its caption as a string, its mask and its labels."""

    def __init__(self, records, channels: int):
        self.records, self.channels = records, channels

    def __len__(self):
        return len(self.records)

    def read(self, index):
        example = self.records[index]
        labels = {name: int(example[name]) for name in scenes.CLASSES}
        image, mask = decode(example["image"], channels=self.channels), decode(example["mask"], channels=1)[..., 0]
        return {"image": image, "caption": example["caption"].decode(), "mask": mask, **labels}


def load(rest: str, *, split: str, size=None, channels: int | None = None, examples: int = 20_000, objects: int = 3, seed: int = 0,
         data_dir=None) -> Source:  # fmt: skip
    """One split, "train", "validation", "test" or "held_out", of scenes drawn at the side that follows the name, 32 by default.

    - size: the side, in the place of the one in the name; the same scenes are drawn.
    - examples: the number of scenes of train, of which the other splits have a tenth each; a larger number adds some.
    - objects: the most objects of a scene; of one, `diffux.evaluation.captioned_shapes.attributes` judges samples.
    - seed: another one gives other scenes.

    Raises DataError for a size that cannot be drawn, and where the package tokenizers, by which captions become numbers, is not
    there.
    """
    side = _side(rest, size)
    fields, drawn, name = _fields(side, channels), _checked(side, examples, objects, seed), f"captioned_shapes/{side}"
    builder = _records.prepared(functools.partial(_builder, **drawn), cache.data_root(data_dir))
    records = _records.records_of(builder, name, split)
    return Source(Scenes(records, channels or 3), name=name, split=split, fields=fields, sided=True)


def describe(rest: str, *, split: str, size=None, channels: int | None = None, examples: int = 20_000, objects: int = 3,
             seed: int = 0, data_dir=None) -> dict[str, Field]:  # fmt: skip
    """The fields; nothing is prepared."""
    _checked(_side(rest, size), examples, objects, seed)
    return _fields(_side(rest, size), channels)


def splits(rest: str, *, data_dir=None) -> dict[str, int]:
    """The splits and their numbers of examples, where nothing else is asked for."""
    from diffux.data.captioned_shapes.captioned_shapes_dataset_builder import Config

    _side(rest, None)
    return {split: Config(name="counts").count(split) for split in scenes.SPLITS}


def _builder(directory, **drawn):
    from diffux.data.captioned_shapes.captioned_shapes_dataset_builder import Builder, Config

    name = "-".join(f"{key}{value}" for key, value in drawn.items())
    return Builder(data_dir=directory, config=Config(name=name, description="scenes of coloured shapes", **drawn))


def _checked(size: int, examples: int, objects: int, seed: int) -> dict[str, int]:
    for name, value, least, most in (("examples", examples, 1, 10**9), ("objects", objects, 1, 3), ("seed", seed, 0, 2**63)):
        if not least <= value <= most:
            raise DataError(f"{name} of captioned_shapes is a whole number from {least} to {most}, got {value}.")
    return {"size": size, "examples": examples, "objects": objects, "seed": seed}


def _side(rest: str, size) -> int:
    if rest and not (rest.isascii() and rest.isdigit()):
        raise DataError(f"unknown data set 'captioned_shapes/{rest}'; captioned_shapes comes as captioned_shapes, or with the side "
                        "of its pictures as captioned_shapes/64.")  # fmt: skip
    sides = {int(rest or 32)} if size is None else {size} if isinstance(size, int) else set(size)
    side = max(sides)
    if len(sides) > 1 or not SMALLEST <= side <= LARGEST:
        raise DataError(f"captioned_shapes are squares with a side of {SMALLEST} to {LARGEST} pixels, got {size or rest}.")
    return side


def _fields(side: int, channels: int | None) -> dict[str, Field]:
    labels = {name: Label(len(names), names) for name, names in scenes.CLASSES.items()}
    names = ("background", "main object", "second object", "third object")
    return {"image": Image((side, side, channels or 3)), "caption": text.of_words(scenes.WORDS, scenes.LENGTH),
            "mask": Mask((side, side), 4, names), **labels}  # fmt: skip
