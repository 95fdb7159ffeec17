"""A text encoder of 4.8 billion parameters, frozen, beside a U-Net: what a training step takes of each of 16 chips.

  python experiments/benchmarks/frozen.py --folder runs/t5_xxl

Needs libtpu and no TPU. Writes the folder, whose file of weights is a header and a hole of 19 GB that takes no room, and
results/frozen_cpu.json: weights of others are looked at by their shapes alone, as in `diffux compile`.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import struct
from typing import Any

import harness
import numpy as np

from diffux import cost
from diffux.networks.t5 import T5, t5_xxl
from diffux.pretrained import _table, transformers_t5
from diffux.types import Net

NETWORK = {"name": "ldm", "network": "stable", "widths": (320, 640), "blocks": 1, "kinds": ("cross", "cross"), "heads": (8, 8),
           "depth": (1, 1), "steps": 1000}  # fmt: skip
DATA = {"name": "captioned_shapes:64", "batch_size": 16, "options": {"objects": 1}}


def header_and_hole(folder: pathlib.Path, network: T5, cut: int = 0) -> int:
    """The numbers in a folder as transformers would have saved it, but for `cut` bytes at the end; nothing of them is written."""
    shapes = transformers_t5.shapes(network)
    settings, _ = transformers_t5.written(Net(network, {}))
    header, at = {}, 0
    for path, like in _table.flat(shapes).items():
        name, leaf = _table.theirs(transformers_t5.table(network), path)
        shape = list(leaf.whole(like.shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + 4 * math.prod(shape)]}
        at = header[name]["data_offsets"][1]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(settings))
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at - cut)
    return at // 4


def measure(folder: pathlib.Path) -> dict[str, Any]:
    text = t5_xxl()
    numbers = header_and_hole(folder, text)
    config = {"system": NETWORK | {"text_width": text.width}, "nets": {"text": str(folder)}, "data": DATA,
              "sharding": {"fsdp": 16, "data": 1}, "compute": {"dtype": "bfloat16"}}  # fmt: skip
    report = cost.measure(config, "v5e:4x4")
    harness.CONSOLE.print(str(report))
    return {"report": report.as_dict(), "numbers": numbers, "share": float(np.divide(report.memory.frozen, 4 * numbers / 16))}


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="where the encoder is, or will be")
    parser.add_argument("--out", type=pathlib.Path, help="the JSON file, by default in results/")
    options = parser.parse_args(arguments)
    harness.record("frozen", {"t5_xxl": lambda: measure(options.folder)}, options.out)


if __name__ == "__main__":
    main()
