"""The figures of an evaluation as a table that fits the terminal: a row for each set, or a column where it is narrow."""

from __future__ import annotations

import dataclasses
import itertools
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.console import Console, ConsoleOptions
from rich.table import Table

from diffux.evaluation._evaluate import Result

_EDGES = 3  # of a column: a line and a blank on either side


def table(result: Result) -> Sets:
    """The sets and their figures, to be printed by rich, with a caption that says what the figures mean and what they were made
    with."""
    figures = dict.fromkeys(figure.name for figure in result.figures if figure.row and figure.text)
    texts = {(figure.row, figure.name): figure.text for figure in result.figures}
    return Sets(
        title=f"{result.dataset}: samples and what they are to be compared with",
        caption=" ".join(figure.text for figure in result.figures if not figure.row and figure.text),
        rows={result.names.get(row, row): {figure.replace("_", " "): texts.get((row, figure), "") for figure in figures}
              for row in result.rows},
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Sets:
    """{set: {figure: text}} with a title above and a caption below. No figure is cut or broken, however narrow it is."""

    title: str
    caption: str
    rows: Mapping[str, Mapping[str, str]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        tables = list(self._tables(options.max_width))
        tables[0].title, tables[-1].caption, tables[-1].caption_justify = self.title, self.caption, "left"
        yield from tables

    def _tables(self, room: int) -> Iterator[Table]:
        columns = _exchanged(self.rows)
        widths = [_width(figure, texts.values(), lines=2) for figure, texts in columns.items()]
        names = max(map(len, self.rows))
        if names + sum(widths) + _EDGES * (len(widths) + 1) < room:
            yield _table(self.rows, widths)
            return
        names = max(len(word) for figure in columns for word in figure.split())
        for some in _groups(self.rows, room - names - _EDGES - 1):
            yield _table(_exchanged(some), [_width(name, texts.values(), lines=3) for name, texts in some.items()])


def _exchanged(rows: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """Rows as columns, and columns as rows."""
    return {column: {row: texts[column] for row, texts in rows.items()} for column in next(iter(rows.values()))}


def _width(heading: str, texts: Iterable[str], lines: int) -> int:
    """The least width that breaks no text and no word of the heading, and gives the heading no more than so many lines."""
    least = max(map(len, [*texts, *heading.split()]), default=1)
    return next(width for width in itertools.count(least)
                if len(textwrap.wrap(heading, width, break_on_hyphens=False)) <= lines)  # fmt: skip


def _groups(rows: Mapping[str, Mapping[str, str]], room: int) -> Iterator[dict[str, Mapping[str, str]]]:
    """The rows, as many at a time as have room as columns beside each other."""
    group, left = {}, room
    for name, texts in rows.items():
        width = _width(name, texts.values(), lines=3) + _EDGES
        if group and width > left:
            yield group
            group, left = {}, room
        group[name], left = texts, left - width
    yield group


def _table(rows: Mapping[str, Mapping[str, str]], widths: Sequence[int]) -> Table:
    made = Table()
    made.add_column("")
    for heading, width in zip(next(iter(rows.values())), widths, strict=True):
        made.add_column(heading, justify="right", width=width)
    for name, texts in rows.items():
        made.add_row(name, *texts.values())
    return made
