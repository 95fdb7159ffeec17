"""A text encoder of others beside a U-Net: of its weights the header alone is looked at, and every device holds a part of them."""

import pathlib
import sys

import pytest

from diffux.errors import UserError
from diffux.networks.t5 import T5
from diffux.pretrained import _table, by_shapes, transformers_t5

sys.path.append(str(pathlib.Path(__file__).parents[2] / "experiments" / "benchmarks"))

import frozen

NETWORK = T5(width=64, layers=2, heads=4, head=16, inner=128, vocabulary=100)
NET = {"name": "ldm", "network": "stable", "widths": (32, 64), "blocks": 1, "kinds": ("cross", "plain"), "heads": (2, 2),
       "depth": (1, 1), "text_width": 64, "groups": 8, "steps": 100, "draws": 10}  # fmt: skip
DATA = {"name": "captioned_shapes:32", "batch_size": 16, "options": {"objects": 1}}


def test_shapes_are_checked_and_nothing_is_read(tmp_path):
    frozen.header_and_hole(tmp_path / "t5", NETWORK)
    with by_shapes():
        found = transformers_t5.load(tmp_path / "t5")
    assert all(not hasattr(leaf, "__array__") for leaf in _table.flat(found.weights).values())
    frozen.header_and_hole(tmp_path / "cut", NETWORK, 4)
    with by_shapes(), pytest.raises(UserError, match="cannot be read as safetensors"):
        transformers_t5.load(tmp_path / "cut")


@pytest.mark.slow
def test_each_of_eight_devices_holds_an_eighth(compiled, tmp_path):
    numbers = frozen.header_and_hole(tmp_path / "t5", NETWORK)
    split = {"data": 1, "fsdp": 8, "smallest": 1}
    config = {"system": NET, "nets": {"text": str(tmp_path / "t5")}, "data": DATA, "sharding": split}
    made = f"from ml_collections import ConfigDict\n\ndef get_config():\n    return ConfigDict({config!r})\n"
    (tmp_path / "config.py").write_text(made)
    status, _, errors, report = compiled(str(tmp_path / "config.py"), "--topology", "cpu:8")
    assert status == 0, errors
    assert 4 * numbers / 8 <= report["memory"]["frozen"] <= 1.1 * 4 * numbers / 8
