"""The table of an evaluation in terminals of any width: every figure whole, and in one line with what it is compared with."""

import pytest
from rich.console import Console

from diffux import evaluation
from diffux.evaluation import Figure, Result

NAMES = {"generated": "generated samples", "held_out": "held-out real data", "gaussian": "Gaussian of the same pixels",
         "noise": "uniform noise"}  # fmt: skip
TEXTS = {
    "recognisable": ("95.1%", "96.9%", "26.0%", "0.0%"),
    "frechet_at_common_count": ("1.34", "0.92", "34.50", "312.51"),
    "classes": ("8.8% - 11.1%", "8.9% - 11.2%", "2.0% - 25.3%", "0.0% - 100.0%"),
    "nearest_train": ("2.17", "2.05", "6.11", "12.33"),
}
RESULT = Result(
    "digits",
    "test",
    (*(Figure(row, name, 0, text) for name, texts in TEXTS.items() for row, text in zip(NAMES, texts, strict=True)),
     Figure("generated", "smallest_class", 0.1), Figure("", "features", 0, "Features: of the digits classifier v1.")),
    NAMES,
)  # fmt: skip


def printed(width):
    console = Console(width=width)
    with console.capture() as capture:
        console.print(evaluation.table(RESULT))
    return [line.rstrip() for line in capture.get().splitlines()]


@pytest.mark.parametrize("width", [140, 110, 80, 60, 40])
def test_no_figure_is_cut_or_broken(width):
    lines = printed(width)
    text, cells = "\n".join(lines), [cell.strip() for line in lines for cell in line.split("│")]
    assert max(map(len, lines)) <= width and "…" not in text
    assert all(cells.count(figure) == 1 for texts in TEXTS.values() for figure in texts)
    assert "Features: of" in text and "smallest" not in text


def test_a_set_has_a_row_and_in_a_narrow_terminal_a_column():
    """As many columns as there is room for; the table goes on below with the others."""
    (row,) = [line for line in printed(110) if "Gaussian of the same pixels" in line]
    assert all(texts[2] in row for texts in TEXTS.values())
    (row,) = [line for line in printed(80) if "classes" in line]
    assert all(figure in row for figure in TEXTS["classes"])
    first, second = [line for line in printed(60) if "classes" in line]
    assert all(figure in first for figure in TEXTS["classes"][:2]) and all(figure in second for figure in TEXTS["classes"][2:])
