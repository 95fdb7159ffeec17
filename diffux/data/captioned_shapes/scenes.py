"""Scenes of coloured shapes on a plain ground: how they are drawn at random, what may be said of them, and how they look.

Lengths are shares of the side of the picture, x from left to right and y from top to bottom, so a scene knows no pixels.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np

COLOURS = {
    "red": (205, 35, 45),
    "orange": (240, 125, 25),
    "yellow": (245, 205, 40),
    "green": (35, 160, 75),
    "blue": (45, 105, 220),
    "purple": (145, 65, 185),
}
BACKGROUNDS = {"dark": (28, 30, 38), "light": (240, 238, 232)}
SIZES = {"small": (0.09, 0.11), "large": (0.145, 0.17)}
"""The radii: of a circle as wide as that, and of the other shapes about as large to the eye."""
RELATIONS = {"left of": ("left of", "to the left of"), "right of": ("right of", "to the right of"), "above": ("above", "over"),
             "below": ("below", "under")}  # fmt: skip
"""What a relation is called."""
PLACES = tuple(f"{high} {wide}".strip() or "center" for high in ("top", "", "bottom") for wide in ("left", "", "right"))
"""The ninths of a picture, row by row."""

_HALF = math.sqrt(math.pi) / 2  # of the side of a square with the area of the unit circle
_TIP = 1.3  # from the centre of mass of a triangle to its corners
_ARM, _WIDTH = 1.1, 0.38  # of a cross: half its length, half its arm's width

# (whether a point (u, v) is inside at radius 1 around the centre of mass, area, reach to the sides, up, down)
FORMS = {
    "circle": (lambda u, v: u**2 + v**2 <= 1, math.pi, 1.0, 1.0, 1.0),
    "square": (lambda u, v: np.maximum(abs(u), abs(v)) <= _HALF, math.pi, _HALF, _HALF, _HALF),
    "triangle": (lambda u, v: np.maximum(v, (math.sqrt(3) * abs(u) - v) / 2) <= _TIP / 2, 3 * math.sqrt(3) / 4 * _TIP**2,
                 math.sqrt(3) / 2 * _TIP, _TIP, _TIP / 2),
    "cross": (lambda u, v: (np.maximum(abs(u), abs(v)) <= _ARM) & (np.minimum(abs(u), abs(v)) <= _WIDTH),
              8 * _ARM * _WIDTH - 4 * _WIDTH**2, _ARM, _ARM, _ARM),
}  # fmt: skip
SHAPES = tuple(FORMS)
KINDS = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)

NOVEL_KINDS = ("red cross", "yellow circle", "blue triangle", "purple square")
"""Kinds of objects that training never sees; of each, it sees the colour and the shape."""
NOVEL_RELATIONS = (
    ("red circle", "left of", "blue square"),
    ("purple cross", "right of", "orange circle"),
    ("green triangle", "above", "yellow square"),
    ("blue circle", "below", "orange triangle"),
)
"""Relations that training never sees; it sees these kinds together in the three others."""
NOVELTIES = ("nothing", "pair", "relation")
SPLITS = ("train", "validation", "test", "held_out")

_COUNTS = ("one", "two", "three")
_INVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
_MARGIN, _GAP = 0.04, 0.05  # to the border, between objects
_CLEAR = 1.5  # how many times farther objects are apart along the axis of their relation than across it
_POINTS = 8  # a pixel's colour is that of so many points along each side


@dataclasses.dataclass(frozen=True)
class Thing:
    """An object: what it is, its centre of mass and its radius."""

    colour: str
    shape: str
    size: str
    x: float
    y: float
    radius: float

    @property
    def kind(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclasses.dataclass(frozen=True)
class Scene:
    """One to three objects, of which the first is the main one, on a dark or light ground."""

    background: str
    things: tuple[Thing, ...]


def scene(split: str, index: int, seed: int = 0, objects: int = 3) -> Scene:
    """Scene `index` of a split, of at most so many objects, by a generator of its own: it is the same whatever else is drawn.

    The objects of a scene are all of one kind or all of different kinds, lie clear of each other, and each pair of them is clearly
    side by side or one above the other.
    """
    rng = np.random.default_rng((seed, SPLITS.index(split), index))
    count = min(int(rng.choice(3, p=(0.4, 0.4, 0.2))) + 1, objects)
    wanted = "nothing"
    if split == "held_out":
        wanted = NOVELTIES[1 + int(rng.integers(2))] if objects > 1 else "pair"
    if wanted == "relation":
        count = max(count, 2)
    background = _one(rng, tuple(BACKGROUNDS))
    while True:
        found = Scene(background, _placed(rng, _kinds(rng, wanted, count)))
        if novelty(found) == wanted:
            return found


def novelty(scene: Scene) -> str:
    """What of a scene training never sees: a "pair" of colour and shape, else a "relation" of two kinds, else "nothing"."""
    if any(thing.kind in NOVEL_KINDS for thing in scene.things):
        return "pair"
    pairs = itertools.permutations(scene.things, 2)
    return "relation" if any((a.kind, relation(a, b), b.kind) in NOVEL_RELATIONS for a, b in pairs) else "nothing"


def relation(a: Thing, b: Thing) -> str:
    """Where a is, seen from b: the larger of their distances across and along decides."""
    across, along = a.x - b.x, a.y - b.y
    if abs(across) > abs(along):
        return "left of" if across < 0 else "right of"
    return "above" if along < 0 else "below"


def place(thing: Thing) -> str:
    """The ninth of the picture in which the centre of an object is."""
    return PLACES[3 * int(3 * thing.y) + int(3 * thing.x)]


def labels(scene: Scene) -> dict[str, str]:
    """The name of its class in each label of a scene: of the main object, and of the scene."""
    first, *others = scene.things
    return {
        "label": first.kind,
        "shape": first.shape,
        "colour": first.colour,
        "size": first.size,
        "position": place(first),
        "relation": "none" if _alike(scene) else relation(first, others[0]),
        "other": others[0].kind if others else "none",
        "count": _COUNTS[len(others)],
        "background": scene.background,
        "novelty": novelty(scene),
    }


CLASSES = {
    "label": KINDS,
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "size": tuple(SIZES),
    "position": PLACES,
    "relation": ("none", *RELATIONS),
    "other": ("none", *KINDS),
    "count": _COUNTS,
    "background": tuple(BACKGROUNDS),
    "novelty": NOVELTIES,
}
"""The classes of each label, in the order of their numbers."""


def wordings(scene: Scene) -> tuple[str, ...]:
    """Captions of a scene, all true, lower-case words with spaces between: some say less than others."""
    first, *others = scene.things
    ground = f"on a {scene.background} background"
    if not others:
        where, sized = f"at the {place(first)}", f"{first.size} {first.kind}"
        return (_a(first.kind), f"a {sized}", f"one {sized}", f"{_a(first.kind)} {where}", f"a {sized} {where}",
                f"{_a(first.kind)} {ground}")  # fmt: skip
    count = _COUNTS[len(others)]
    if _alike(scene):
        several = f"{first.colour} {_several(first.shape)}"
        size = {thing.size for thing in scene.things}
        same = (f"{count} {size.pop()} {several}",) if len(size) == 1 else ()
        return (f"{count} {several}", f"{count} {several} {ground}", *same)
    names = [_a(thing.kind) for thing in scene.things]
    sized = [f"a {thing.size} {thing.kind}" for thing in scene.things]
    seen = [relation(first, other) for other in others]
    listed = (" and ".join(names), f"{' and '.join(names)} {ground}", f"{count} shapes with {names[0]} {seen[0]} {names[1]}")
    if len(others) == 2:
        return (*listed, " and ".join(sized), f"{names[0]} {seen[0]} {names[1]} and {seen[1]} {names[2]}")
    there = tuple(f"{names[0]} {phrase} {names[1]}" for phrase in RELATIONS[seen[0]])
    back = tuple(f"{names[1]} {phrase} {names[0]}" for phrase in RELATIONS[_INVERSE[seen[0]]])
    return (*listed, *there, *back, f"{sized[0]} {seen[0]} {sized[1]}")


def caption(scene: Scene, split: str, index: int, seed: int = 0) -> str:
    """One of the wordings of scene `index` of a split, by a generator of its own; a relation that is novel is always said."""
    found = wordings(scene)
    if novelty(scene) == "relation":
        found = tuple(words for words in found if any(f" {phrase} " in words for phrase in itertools.chain(*RELATIONS.values())))
    return _one(np.random.default_rng((seed, SPLITS.index(split), index, 1)), found)


def cover(thing: Thing, side: int) -> np.ndarray:
    """The share of each pixel that an object covers, (side, side)."""
    inside, _, wide, up, down = FORMS[thing.shape]
    rows, v = _points(thing.y, up * thing.radius, down * thing.radius, side)
    columns, u = _points(thing.x, wide * thing.radius, wide * thing.radius, side)
    found = inside(u[None, :] / thing.radius, v[:, None] / thing.radius).reshape(len(v) // _POINTS, _POINTS, -1, _POINTS)
    covered = np.zeros((side, side))
    covered[rows, columns] = found.mean((1, 3))
    return covered


def draw(scene: Scene, side: int) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 (side, side, 3), which object covers at least half of a pixel, uint8 (side, side): 0 for none, 1 for the main one)."""
    image, mask = np.full((side, side, 3), BACKGROUNDS[scene.background], np.float64), np.zeros((side, side), np.uint8)
    for number, thing in enumerate(scene.things, 1):
        covered = cover(thing, side)
        image += covered[..., None] * (np.array(COLOURS[thing.colour]) - BACKGROUNDS[scene.background])  # none covers another
        mask[covered >= 0.5] = number
    return np.round(image).astype(np.uint8), mask


def _points(centre: float, before: float, behind: float, side: int) -> tuple[slice, np.ndarray]:
    """The pixels along one axis that an object may cover, and how far the points in them are from its centre."""
    first = max(math.floor((centre - before) * side), 0)
    last = max(min(math.ceil((centre + behind) * side), side), first + 1)
    return slice(first, last), (np.arange(first * _POINTS, last * _POINTS) + 0.5) / (side * _POINTS) - centre


def _kinds(rng: np.random.Generator, wanted: str, count: int) -> list[str]:
    usual = [kind for kind in KINDS if kind not in NOVEL_KINDS]
    if wanted == "relation":
        one, _, other = NOVEL_RELATIONS[rng.integers(len(NOVEL_RELATIONS))]
        first = [one, other] if rng.integers(2) else [other, one]
    else:
        first = [_one(rng, NOVEL_KINDS if wanted == "pair" else usual)]
        if rng.random() < 0.2:
            return first * count
    others = [kind for kind in (KINDS if wanted == "pair" else usual) if kind not in first]
    return [*first, *(str(kind) for kind in rng.permutation(others)[: count - len(first)])]


def _placed(rng: np.random.Generator, kinds: list[str]) -> tuple[Thing, ...]:
    """Objects of these kinds, of random sizes, where they lie clear of each other."""
    looks = [(*kind.split(), size := _one(rng, tuple(SIZES)), rng.uniform(*SIZES[size])) for kind in kinds]
    while True:
        things = []
        for colour, shape, size, radius in looks:
            _, _, wide, up, down = FORMS[shape]
            x = rng.uniform(_MARGIN + wide * radius, 1 - _MARGIN - wide * radius)
            y = rng.uniform(_MARGIN + up * radius, 1 - _MARGIN - down * radius)
            things.append(Thing(colour, shape, size, float(x), float(y), float(radius)))
        in_a_ninth = all(abs(3 * at - round(3 * at)) > 0.1 for at in (things[0].x, things[0].y))
        if in_a_ninth and all(_clear(a, b) for a, b in itertools.combinations(things, 2)):
            return tuple(things)


def _clear(a: Thing, b: Thing) -> bool:
    """Whether the boxes of two objects are apart, and which of their four relations it is can be seen."""
    (_, _, wide_a, up_a, down_a), (_, _, wide_b, up_b, down_b) = FORMS[a.shape], FORMS[b.shape]
    across, along = abs(a.x - b.x), abs(a.y - b.y)
    high = down_a * a.radius + up_b * b.radius if a.y < b.y else up_a * a.radius + down_b * b.radius
    apart = across > wide_a * a.radius + wide_b * b.radius + _GAP or along > high + _GAP
    return apart and max(across, along) > _CLEAR * min(across, along)


def _alike(scene: Scene) -> bool:
    """Whether no object differs in kind from the main one, so that none is beside another that could be named."""
    return len({thing.kind for thing in scene.things}) == 1


def _a(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _several(shape: str) -> str:
    return f"{shape}es" if shape.endswith("s") else f"{shape}s"


def _one(rng: np.random.Generator, choices):
    return choices[int(rng.integers(len(choices)))]


LENGTH = 16
"""Words of the longest caption, and one more."""
WORDS = tuple(sorted({
    *"a an and at the on background shapes with to of".split(), *_COUNTS, *SIZES, *BACKGROUNDS, *COLOURS, *SHAPES,
    *map(_several, SHAPES), *" ".join(PLACES).split(),
    *" ".join(itertools.chain(*RELATIONS.values())).split(),
}))  # fmt: skip
"""All words of captions."""
