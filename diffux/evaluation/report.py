"""An evaluation for people: the table with its caption."""

from __future__ import annotations

from typing import Any

from rich.table import Table

NAMES = {
    "generated": "generated samples",
    "held_out": "held-out real data",
    "gaussian": "Gaussian of the same pixels",
    "noise": "uniform noise",
}


def table(result: dict[str, Any]) -> Table:
    """The rows of `evaluate`'s result as a table for a terminal, with `caption` below it."""
    common = result["common_count"]
    shown = Table(title=f"{result['dataset']}: samples and what they are to be compared with", caption=caption(result))
    shown.caption_justify = "left"
    for heading in ("", "images", "recognisable", "Frechet", f"at {common}", "class shares", "nearest train"):
        shown.add_column(heading, justify="left" if not heading else "right")
    for name, row in result["rows"].items():
        shown.add_row(
            NAMES[name],
            f"{row['count']:,}",
            f"{row['recognisable']:.1%}",
            f"{row['frechet']:.2f}",
            f"{row['frechet_at_common_count']:.2f}",
            f"{row['smallest_class']:.1%} - {row['largest_class']:.1%}",
            f"{row['nearest_train']:.2f}",
        )
    return shown


def caption(result: dict[str, Any]) -> str:
    """What the figures mean and what they were made with: net, reference and counts."""
    rows, split = result["rows"], result["reference"]
    return (
        f"Features: {result['features']}, {result['held_out_accuracy']:.1%} right on held-out data. Recognisable: it gives"
        f" one class at least {result['recognisable_at']:.0%}. Frechet: squared distance of its features to those of"
        f" the {split['count']:,} images of the {split['split']} split. It falls as the count grows: of"
        f" {rows['generated']['count']:,} samples, {rows['held_out']['count']:,} held-out images, and of the first"
        f" {result['common_count']:,} of each row in the column beside. Nearest train: median L2 distance to the nearest"
        " train image in [-1, 1] pixels; 0 is a copy."
    )
