"""Configs as earlier versions saved them are the same runs today."""

import jax
import numpy as np
import pytest

from diffux.cli import _config
from diffux.config import parts, schema
from diffux.config.plan import plan
from diffux.errors import UserError

# The sections and keys that a config had then; all of them were saved.
THEN = {
    "data": {"split", "held_out", "size", "channels", "flip", "crop", "dequantize", "workers", "name", "batch_size"},
    "optimizer": {"name", "learning_rate", "schedule", "warmup", "clip", "accumulate", "options"},
    "ema": {"decay", "warmup", "power", "snapshot_every", "samples_from"},
    "training": {"steps", "log_every", "sample_every", "eval_every", "eval_examples", "checkpoint_every", "keep", "keep_best",
                 "keep_every"},
    "sample": {"n", "solver", "steps", "eta", "grid", "guidance", "options"},
}  # fmt: skip
# The systems' arguments as they were said then, with the defaults that the command filled in.
BUILT = {"mean": 0.0, "std": 1.0, "threshold": 0.5, "network": None, "first": 1e-3, "learned": True}
SYSTEMS = {
    "diffusion2015_mnist": {
        "name": "diffusion2015", "field": "image", "kind": "gaussian", "steps": 1000, "mean": 0.1307, "std": 0.3081,
        "network": "multiscale", "scales": 3, "convolutions": [20, 20, 20, 20], "dense": [500, 500, 500, 500], "dense_out": 2,
        "upper": [20, 20], "basis": 10,
    },
    "diffusion2015_digits": {
        "name": "diffusion2015", "field": "image", "kind": "binomial", "steps": 200, "convolutions": [24, 24, 24],
        "dense": [256, 256], "upper": [24, 24],
    },
    "diffusion2015_heartbeats": {
        "name": "diffusion2015", "field": "sequence", "kind": "binomial", "steps": 2000, "network": "mlp", "widths": [50, 50, 50],
    },
    "diffusion2015_swiss_roll": {
        "name": "diffusion2015", "field": "point", "kind": "gaussian", "steps": 40, "network": "rbf", "units": 64,
    },
}  # fmt: skip


def then(name):
    """The config of a name as a run of then had saved it."""
    now = schema.check(parts.filled(_config.read(name, [])))
    old = {section: {key: value for key, value in now[section].items() if key in keys} for section, keys in THEN.items()}
    system = (BUILT | SYSTEMS[name]) if name in SYSTEMS else now["system"]
    return old | {"seed": now["seed"], "system": system, **{key: now[key] for key in ("compute", "sharding", "faults")}}


@pytest.mark.parametrize("name", [*SYSTEMS, "ddpm_digits", "classifier_digits", "ncsn_digits", "score_sde_vp_digits"])
def test_a_saved_config_is_the_run_that_it_was(name):
    old, now = parts.filled(then(name)), parts.filled(_config.read(name, []))
    schema.refuse_another_run(old, now, "the run")
    one, other = plan(old), plan(now)
    assert jax.tree.structure(one.system) == jax.tree.structure(other.system)
    for a, b in zip(jax.tree.leaves(one.system), jax.tree.leaves(other.system), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(UserError, match=r"training.eval_examples \(.*\) differ"):
        schema.refuse_another_run(old, now | {"training": now["training"] | {"eval_examples": 3}}, "the run")


def test_numbers_of_the_data_became_a_codec():
    """x -> (x - mean) / std takes [0, 1] to what the codec says; a threshold and points likewise."""
    codec = parts.filled({"system": SYSTEMS["diffusion2015_mnist"]})["system"]["codec"]
    low, high = (float(number) for number in codec.removeprefix("pixels(").removesuffix(")").split(", "))
    assert (low, high) == pytest.approx(((0 - 0.1307) / 0.3081, (1 - 0.1307) / 0.3081))
    own = lambda **said: parts.filled({"system": {"name": "diffusion2015", **said}})["system"]  # noqa: E731
    assert own(field="point", mean=2.0, std=0.5)["codec"] == "standardized(2.0, 0.5)"
    assert own(field="image", kind="binomial", threshold=0.25)["codec"] == "binarized(0.25)"
    assert (own(field="sequence")["data"], own(field="sequence")["network"]) == ("bits", "mlp")
    assert own(field="point", network=None)["network"] == "rbf" and own(data="point", network="mlp")["network"] == "mlp"
