"""Training that begins with the weights of a pipeline."""

import jax
import numpy as np
import pytest

from diffux import cli, data, pretrained, training
from diffux.runs import export
from tests.pretrained.test_pipeline import folder  # noqa: F401

pytestmark = pytest.mark.usefixtures("quick")


@pytest.mark.slow
def test_training_begins_with_its_weights(folder, tmp_path):  # noqa: F811
    """Fine-tuned on pictures with captions, for two steps: the first stage and the text encoder stay as they are; drawn by other
    words, and given back."""
    model = pretrained.model(folder)
    images = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3)).astype(np.uint8)
    arrays = {"image": images, "caption": np.array(["a red cat"] * 8)}
    source = data.of_arrays(arrays, fields={"caption": model.fields["caption"]}, name="cats")
    config = model.config | {
        "data": {"batch_size": 4}, "optimizer": {"learning_rate": 1e-3}, "sample": {"n": 2, "steps": 2},
        "training": {"steps": 2, "start": str(folder), "eval_examples": 4, "sample_every": 0},
    }  # fmt: skip
    training.train(config, tmp_path / "run", source=(source, source))
    before, after = training.load(folder), training.load(tmp_path / "run", raw=True)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), before.variables.params, after.variables.params)
    assert 0 < max(jax.tree.leaves(moved)) < 0.01
    jax.tree.map(np.testing.assert_array_equal, before.system.codec, after.system.codec)
    asked = ["--workdir", str(tmp_path / "run"), "--given", "caption=a cat", "--steps", "2", "--n", "1"]
    assert cli.main(["sample", *asked, "--out", str(tmp_path / "cat.png")]) == 0
    again = training.load(export.write_folder(after, tmp_path / "pipeline"))
    jax.tree.map(np.testing.assert_array_equal, again.variables.params, after.variables.params)
