"""Pictures of any size, one by one: what a task makes of each file of a folder, at its own size."""

from __future__ import annotations

import pathlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from diffux import tasks
from diffux.console import Progress
from diffux.errors import UserError, explained
from diffux.fields import Field, drawing
from diffux.files import path_of, writing
from diffux.keys import sample_keys
from diffux.runs.run import Run
from diffux.sampling import singles
from diffux.sampling.draw import how_drawn, request
from diffux.sampling.files import Report, identity, writable
from diffux.systems.shapes import check_memory

_ROWS = 16  # of a sheet
_SIDE = 512  # of a picture on it, at most


class Picture(NamedTuple):
    """A picture that is to be made: of which file, of what sides, by what name, and what it should be where that is known."""

    file: pathlib.Path
    sides: tuple[int, int]
    name: str
    truth: pathlib.Path | None


def sample(runs: Mapping[str, Run], out: Sequence[Any], *, task: str, given: Mapping[str, Any], seed: int = 0,
           about: Mapping[str, Any] = {}) -> list[pathlib.Path]:  # fmt: skip
    """Make a picture of each that is given, by a task of `runs` that takes pictures of any size; return the sheets that show them.

    - given: {the field that the task's pictures are: a file or a folder}, and words for what else the model is given, which are
      taken in turn, see `draw.request`. The field that is drawn, where it is another, may be given as well, as the truth: a file,
      or a folder in which the names are the same.
    - out: a folder, which gets a picture of the same name for each and is continued as `singles.Folder` says, or a .png for one.

    Beside each `out` stands a sheet, OUT_side_by_side.png: the first pictures, at the sides that the task shows them at, what was
    made of them, and the truth. Picture i in the order of the names is sample i of the seed.
    Raises UserError, before anything is drawn, for files that are no pictures, and for what does not fit or cannot be written.
    """
    run, model = tasks.task(task, runs), list(runs.values())[-1]
    how, drawn = run.pictures, model.system.data
    if how.name not in given:
        raise UserError(f"the task {task} takes a picture, or a folder of them: --given {how.name}=photo.png")
    field, truth = run.asks[how.name][0], None if how.name == drawn else given.get(drawn)
    pictures = _pictures(given[how.name], truth, how, field, model)
    largest = max((how.sides(picture.sides) for picture in pictures), key=np.prod)
    check_memory(f"the walk of a picture of {_by(largest)}", jax.ShapeDtypeStruct((4, *largest, model.shape[-1]), np.float32))
    rest = {name: value for name, value in given.items() if name not in (how.name, drawn)}
    asked = request(runs, len(pictures), rest, task=task, but=how.name)
    said = how_drawn(runs, {"seed": seed, "task": task, **about})
    places = [_place(word, pictures, model.field, said | identity(runs, given)) for word in out]
    todo = [i for i, picture in enumerate(pictures) if not all(picture.name in place.names for place in places)]
    parts = sum(how.count(pictures[i].sides) for i in todo)
    with Progress(how.doing, parts * how.steps) as progress:
        count = f"{len(todo)} of {len(pictures)} pictures"
        progress.say(f"{count}: {how.says(parts)}")
        report, done = Report(progress), 0
        for i in todo:
            fields = {how.name: field.load_any(pictures[i].file)[None]}
            fields |= {name: value[i : i + 1] for name, value in asked.items()}
            own = how.count(pictures[i].sides)
            walked = lambda step, steps, own=own, done=done: report(done * steps + own * step, parts * steps)  # noqa: E731
            with explained():
                value = np.asarray(run(sample_keys(seed, i, 1), fields, progress=walked)[drawn][0], np.float32)
            if not np.isfinite(value).all():
                progress.say(f"{pictures[i].file} became numbers that are not finite: another solver or more steps may help")
            for place in places:
                place.save(pictures[i].name, value)
            done += own
        rows = [_row(picture, places[0].file(picture.name), how, field, model, task) for picture in pictures[:_ROWS]]
        for place in places:
            with writing(place.sheet):
                drawing.save(place.sheet, _sheet(rows), said)
        written = ", ".join(f"{place.path}, side by side in {place.sheet}" for place in places)
        progress.say(f"{count} of step {model.step} (weights: {said['weights']}) in {written}")
    return [place.sheet for place in places]


def _pictures(word: Any, truth: Any, how: Any, field: Field, model: Run) -> list[Picture]:
    """What is to be made; UserError for what cannot be read, and for truths that are missing or of other sides."""
    ending, files = model.field.single, field.files(word)
    (often, count), *_ = Counter(file.stem for file in files).most_common(1)
    if count > 1:
        same = [file.name for file in files if file.stem == often]
        raise UserError(f"{word} holds {' and '.join(same)}, of which both would become {often}{ending}")
    known = [] if truth is None else model.field.files(truth)
    truths = {file.stem: file for file in known} if len(files) > 1 else dict.fromkeys([files[0].stem], *known[:1])
    made = []
    for file in files:
        sides, of = field.sides_in(file), truths.get(file.stem)
        wanted = how.result(sides)
        if truth is not None and of is None:
            raise UserError(f"{truth} holds no picture of the name {file.stem}, which {word} does")
        if of is not None and model.field.sides_in(of) != wanted:
            raise UserError(f"{of} is {_by(model.field.sides_in(of))}, and what is made of {file} is {_by(wanted)}")
        made.append(Picture(file, sides, f"{file.stem}{ending}", of))
    return made


class _Folder:
    """A place for pictures by their names."""

    def __init__(self, word: Any, field: Field, about: Mapping[str, Any]):
        folder = singles.Folder(word, field, about)
        self.path, self.names, self.save = folder.path, folder.names, folder.save

    def file(self, name: str) -> pathlib.Path:
        return self.path / name

    @property
    def sheet(self) -> pathlib.Path:
        return self.path.absolute().with_name(f"{self.path.absolute().name}_side_by_side.png")


class _File:
    """A place for one picture."""

    names = ()

    def __init__(self, word: Any, field: Field, about: Mapping[str, Any]):
        self.path, self._field, self._about = path_of(word), field, about
        writable(self.path)

    def save(self, name: str, value: np.ndarray) -> None:
        with writing(self.path):
            self._field.save_one(self.path, value, **self._about)

    def file(self, name: str) -> pathlib.Path:
        return self.path

    @property
    def sheet(self) -> pathlib.Path:
        return self.path.with_name(f"{self.path.stem}_side_by_side.png")


def _place(word: Any, pictures: Sequence[Picture], field: Field, about: Mapping[str, Any]) -> _Folder | _File:
    """Where pictures are written; UserError for a file of another ending, and for one file for several pictures."""
    if singles.is_folder(word):
        return _Folder(word, field, about)
    if path_of(word).suffix.lower() != field.single:
        raise UserError(f"{word} must end in {field.single}, or in a slash, for a folder of single files")
    if len(pictures) > 1:
        raise UserError(f"{len(pictures)} pictures do not go into the one file {word}: end it in a slash, for a folder")
    return _File(word, field, about)


def _row(picture: Picture, made: pathlib.Path, how: Any, field: Field, model: Run, task: str) -> list[tuple[np.ndarray, str]]:
    """A picture beside what was made of it and the truth, each with its caption, small enough for a sheet."""
    sides, beside = how.result(picture.sides), how.shown(picture.sides)
    read = [(field, picture.file, f"{picture.file.name}, {_by(picture.sides)}", beside),
            (model.field, made, f"{task}, {_by(sides)}", sides), (model.field, picture.truth, "the truth", sides)]  # fmt: skip
    small = lambda shown: [max(round(side * min(1, _SIDE / max(sides))), 1) for side in shown]  # noqa: E731
    return [(drawing.resized(one.load_any(file), small(shown)), said) for one, file, said, shown in read if file is not None]


def _sheet(rows: Sequence[Sequence[tuple[np.ndarray, str]]]) -> np.ndarray:
    shown, captions = zip(*(each for row in rows for each in row), strict=True)
    return drawing.tile(drawing.alike(shown), columns=len(rows[0]), captions=captions, gap=4)


def _by(sides: Sequence[int]) -> str:
    return "x".join(map(str, sides))
