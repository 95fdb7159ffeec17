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
POINTS = {"generated": "generated samples", "real": "real training data", "gaussian": "Gaussian of the same moments"}
SEQUENCES = {"generated": "generated samples", "held_out": "held-out real data", "independent": "independent bits"}


def table(result: dict[str, Any]) -> Table:
    """The rows of `evaluate`'s result as a table for a terminal, with a caption that says what the figures mean."""
    return {"swiss_roll": _points, "heartbeats": _sequences}.get(result["dataset"], _images)(result)


def _empty(result, caption, *headings) -> Table:
    shown = Table(title=f"{result['dataset']}: samples and what they are to be compared with", caption=caption)
    shown.caption_justify = "left"
    for heading in ("", *headings):
        shown.add_column(heading, justify="left" if not heading else "right")
    return shown


def _points(result) -> Table:
    rows = result["rows"]
    caption = (
        f"Sliced Wasserstein: W2 to {rows['generated']['count']:,} held-out points, root mean square over"
        f" {result['directions']} directions; it falls as the count grows, which is one for all rows. By chance: the share of"
        f" {result['permutations']} random splits of a row's and the held-out points that are at least as far apart."
    )
    if "gaussian" in rows:
        ratio = rows["gaussian"]["sliced_wasserstein"] / rows["generated"]["sliced_wasserstein"]
        caption += f" The Gaussian is {ratio:.1f} times as far away as the samples."
    shown = _empty(result, caption, "points", "sliced Wasserstein", "by chance")
    for name, row in rows.items():
        shown.add_row(POINTS[name], f"{row['count']:,}", f"{row['sliced_wasserstein']:.4f}", f"{row['chance']:.3f}")
    return shown


def _sequences(result) -> Table:
    caption = (
        f"Periodic: the share with a one in every {result['period']}th bin and nowhere else; phases: the share of each of these"
        f" {result['period']} sequences; off by: the share at so many flipped bits from the nearest. Independent bits with"
        f" the real share of ones are periodic with probability {result['independent_share']:.2e}."
    )
    shown = _empty(result, caption, "sequences", "periodic", "phases", "off by 1", "2", "more", "ones")
    for name, row in result["rows"].items():
        off = [*row["off_by"], 0, 0][1:3]
        shares = [f"{share:.1%}" for share in (*off, 1 - row["periodic"] - sum(off))]
        phases = f"{min(row['phases']):.1%} - {max(row['phases']):.1%}"
        shown.add_row(SEQUENCES[name], f"{row['count']:,}", f"{row['periodic']:.2%}", phases, *shares, f"{row['ones']:.1%}")
    return shown


def _images(result) -> Table:
    headings = ("images", "recognisable", "Frechet", f"at {result['common_count']}", "class shares", "nearest train")
    shown = _empty(result, caption(result), *headings)
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
