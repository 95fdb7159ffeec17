"""What a config may say: every key with its default and bounds, and which keys make another run."""

import numpy as np
import pytest

from diffux.cli import _config
from diffux.config import schema
from diffux.errors import UserError

# What configs could say before the keys had a line each, with the defaults and whether a run may be continued with another value.
FREE = {
    "data.workers": 0, "ema.snapshot_every": 0, "ema.samples_from": None, "training.steps": 1000, "training.log_every": 50,
    "training.sample_every": 500, "training.eval_every": 500, "training.checkpoint_every": 500, "training.keep": 2,
    "training.keep_best": 1, "training.keep_every": 0, "sample.n": 64, "sample.solver": None, "sample.steps": None,
    "sample.eta": 0.0, "sample.grid": None, "sample.guidance": None, "sample.options": {}, "compute.remat": "none",
    "sharding.data": -1, "sharding.fsdp": 1, "sharding.tensor": 1, "sharding.rules": [], "sharding.smallest": 16384,
    "sharding.optimizer": "with_parameters", "sharding.gradients": "float32", "faults.action": "stop",
    "faults.largest_loss": None, "faults.largest_gradient": None, "faults.most_skips": 10,
}  # fmt: skip
FIXED = {
    "seed": 0, "system": {"name": "ddpm"}, "data.name": "digits", "data.split": "train", "data.held_out": "test",
    "data.batch_size": 128, "data.size": None, "data.channels": None, "data.flip": False, "data.crop": None,
    "data.dequantize": False, "optimizer.name": "adam", "optimizer.learning_rate": 1e-3, "optimizer.schedule": "constant",
    "optimizer.warmup": 0, "optimizer.clip": 1.0, "optimizer.accumulate": 1, "optimizer.options": {}, "ema.decay": [0.999],
    "ema.warmup": True, "ema.power": [], "training.eval_examples": 256, "compute.dtype": "float32",
}  # fmt: skip


def of(name, value):
    """A config that says one thing."""
    return schema.nested({name: value})


def test_defaults_are_complete_and_pass_their_own_check():
    checked = schema.check({})
    assert checked == schema.check(checked) == schema.DEFAULTS
    changed = schema.check({"training": {"steps": 7}, "sample": {"steps": 3}})
    schema.refuse_another_run(checked, changed, "run")
    with pytest.raises(UserError, match=r"data.batch_size \(128, now 64\) differ"):
        schema.refuse_another_run(checked, schema.check({"data": {"batch_size": 64}}), "run")


@pytest.mark.parametrize("name", schema.KEYS)
def test_every_key_passes_its_own_check_and_says_in_one_line_what_it_is(name):
    key = schema.KEYS[name]
    assert schema.check(of(name, key.default)) == schema.check({})
    assert key.said and "\n" not in key.said and len(key.said) < 140


def test_every_key_of_earlier_configs_is_still_there():
    for name, default in {**FREE, **FIXED}.items():
        assert name in schema.KEYS and schema.KEYS[name].default == default, name
        assert schema.KEYS[name].free == (name in FREE), name


def test_nothing_in_a_completed_config_is_shared_with_the_defaults():
    config = schema.complete({})
    config["ema"]["power"].append(0.1)
    config["system"]["name"] = "other"
    assert schema.DEFAULTS["ema"]["power"] == [] and schema.complete({})["system"] == {"name": "ddpm"}


@pytest.mark.parametrize("name", [name for name, key in schema.KEYS.items() if key.least is not None])
def test_least_values_are_taken_and_smaller_ones_refused(name):
    least = schema.KEYS[name].least
    accumulate = {"data.batch_size": 1} if name != "optimizer.accumulate" else {}
    config = schema.check(schema.nested(accumulate | {name: least}))
    assert schema.flatten(config)[name] == least
    with pytest.raises(UserError, match=rf"config.{name} must be at least {least}, got {least - 1}"):
        schema.check(of(name, least - 1))


@pytest.mark.parametrize("name", schema.FLAGS)
def test_flags_have_the_bounds_that_they_state(name):
    key = schema.FLAGS[name]
    step = 1 if int in (key.kind, type(key.default)) else 1e-9
    schema.check_value(f"--{name}", key, key.default)
    for end, outside in ((key.least, -step), (key.most, step)):
        if end is not None:
            schema.check_value(f"--{name}", key, end)
            with pytest.raises(UserError, match=rf"--{name} must be at (least|most) "):
                schema.check_value(f"--{name}", key, end + outside * max(1, abs(end)))
    for end in filter(None, (key.above, key.below)):
        with pytest.raises(UserError, match=rf"--{name} must be (a number above|below) {end}"):
            schema.check_value(f"--{name}", key, end)
    for value in (float("nan"), float("inf"), "3", 10**40):
        with pytest.raises(UserError, match=rf"--{name} must be (a|at most|a finite) "):
            schema.check_value(f"--{name}", key, value)


@pytest.mark.parametrize(
    ("name", "legal", "wrong"),
    [
        ("n", (1, 2), (0,)),
        ("batch", (1,), (0,)),
        ("seed", (0, 2**32 - 1), (-1, 2**32)),
        ("eta", (0.0, 0.3, 1.0), (-0.1,)),
        ("classifier-scale", (-3.0, 0.0, 0.5), ()),
        ("frames", (1,), (0,)),
        ("judged", (2,), (1,)),
        ("probes", (1,), (0,)),
        ("draws", (1,), (0,)),
        ("dequantizer-steps", (0, 1), (-1,)),
        ("start", (1e-6, 0.5), (0.0, 1.0)),
        ("tolerance", (1e-9, 0.5, 1.0), (0.0, 1.5)),
        ("profile", (0, 1), (-1,)),
        ("processes", (1,), (0,)),
        ("process", (0,), (-1,)),
        ("start-timeout", (0.5,), (0.0, -1.0)),
    ],
)
def test_what_a_flag_means_says_which_values_it_has(name, legal, wrong):
    """Counts begin at one and numbers of a process at zero, shares are not negative, times lie between the ends."""
    for value in legal:
        schema.check_value(f"--{name}", schema.FLAGS[name], value)
    for value in wrong:
        with pytest.raises(UserError, match=f"--{name} must be "):
            schema.check_value(f"--{name}", schema.FLAGS[name], value)


def test_a_batch_has_at_least_one_part():
    with pytest.raises(UserError, match=r"config.optimizer.accumulate must be at least 1, got 0"):
        schema.check({"optimizer": {"accumulate": 0}})


@pytest.mark.parametrize(
    ("name", "most"), [("seed", 2**32 - 1), ("data.workers", 1024), ("sample.steps", 10**6), ("training.steps", 2**31 - 1)]
)
def test_largest_values_are_taken_and_larger_ones_refused(name, most):
    assert schema.flatten(schema.check(of(name, most)))[name] == most
    with pytest.raises(UserError, match=rf"config.{name} must be at most {most}, got"):
        schema.check(of(name, most + 1))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (3, "a config is a mapping of sections, got int"),
        ({"trainin": {}}, "unknown section of the config 'trainin'; did you mean 'training'"),
        ({"training": 3}, "config.training is a section of settings, got 3"),
        ({"data": {"batch": 3}}, "unknown config key 'data.batch'; did you mean 'data.batch_size'"),
        ({"data": {"channels": {}}}, r"config.data.channels is a value, not a section, got \{\}"),
        ({"optimizer": {"options": 3}}, "config.optimizer.options is a section of settings, got 3"),
        ({"sample": {"given": "label=3"}}, "config.sample.given is a section of settings, got 'label=3'"),
        ({"nets": "runs/kl"}, "config.nets is a section of settings, got 'runs/kl'"),
        ({"data": {"flip": 3}}, "config.data.flip must be True or False, got 3"),
        ({"training": {"steps": True}}, "config.training.steps must be a whole number, got True"),
        ({"training": {"steps": 2.5}}, "config.training.steps must be a whole number, got 2.5"),
        ({"training": {"start": 3}}, "config.training.start must be a string, or None, got 3"),
        ({"sample": {"steps": "many"}}, "config.sample.steps must be a whole number, or None, got 'many'"),
        ({"sample": {"eta": None}}, "config.sample.eta must be a number, got None"),
        ({"optimizer": {"learning_rate": float("nan")}}, "config.optimizer.learning_rate must be a finite float32, got nan"),
        ({"optimizer": {"groups": [["x", {"learning_rate": 1e300}]]}}, "config.optimizer.groups must be a finite float32"),
        ({"sample": {"options": {"eta": 1e300}}}, "config.sample.options.eta must be a finite float32"),
        ({"system": {"steps": 10**400}}, "config.system.steps must be at most 2147483647, got about 1e400"),
        ({"faults": {"largest_loss": 0}}, "config.faults.largest_loss must be a number above 0, or None for no bound, got 0"),
        ({"faults": {"action": "ignore"}}, "unknown value of config.faults.action 'ignore'"),
        ({"compute": {"dtype": "bf16"}}, "unknown value of config.compute.dtype 'bf16'; did you mean 'bfloat16'"),
        ({"optimizer": {"accumulate": 3}}, "config.optimizer.accumulate is 3, which does not divide data.batch_size 128"),
        ({"steps": 3, "training": {"steps": 4}}, "config.steps is 3 and config.training.steps is 4: they are two names"),
        ({"data": {"name": np.zeros(3)}}, "a config holds only data"),
    ],
)
def test_what_is_no_config_is_refused_in_one_sentence(config, message):
    with pytest.raises(UserError, match=message) as raised:
        schema.check(config)
    assert "\n" not in str(raised.value)


def test_short_forms_are_written_out():
    config = schema.check({"steps": 7, "ema": {"decay": 0.9}, "system": {"name": "ncsn"}})
    assert config["training"]["steps"] == 7 and "steps" not in config
    assert config["ema"]["decay"] == [0.9] and config["system"] == {"name": "ncsn"}


# Another value of each key; what is left out here is no value but a section.
OTHER = {
    bool: True, int: 7, float: 0.25, str: "other", list: [0.1], type(None): 3,
}  # fmt: skip
WORDS = {"compute.dtype": "bfloat16", "compute.remat": "blocks", "sharding.optimizer": "sharded", "sharding.gradients": "bfloat16",
         "faults.action": "skip", "ema.warmup": False, "data.batch_size": 64, "data.held_out": "validation",
         "sample.solver": "ddim", "sample.grid": "karras", "training.start": "runs/other", "ema.samples_from": "0.999"}  # fmt: skip
SECTIONS = {"system": {"name": "ncsn"}, "nets": {"judge": "runs/judge"}, "data.options": {"length": 3},
            "optimizer.options": {"b1": 0.8}, "sample.options": {"order": 2}, "sample.given": {"label": "3"}}  # fmt: skip


@pytest.mark.parametrize("name", schema.KEYS)
def test_free_keys_may_change_and_others_make_another_run(name):
    key = schema.KEYS[name]
    value = SECTIONS.get(name) or WORDS.get(name, OTHER[type(key.default)] if not key.open else None)
    before, after = schema.check({}), schema.complete(of(name, value))
    assert before != after
    if key.free:
        schema.refuse_another_run(before, after, "run")
        return
    named = "|".join(f"{name}.{inner}" for inner in value) if key.open else name
    with pytest.raises(UserError, match=rf"^run holds a run of another config: ({named}) \(.*\) differ; use another --workdir"):
        schema.refuse_another_run(before, after, "run")


def test_a_net_that_moved_is_no_other_run_and_a_net_more_is():
    of_net = lambda **nets: schema.complete({"nets": nets})  # noqa: E731
    schema.refuse_another_run(of_net(kl="runs/kl"), of_net(kl="/elsewhere/kl"), "run")
    with pytest.raises(UserError, match=r"nets.text \(None, now 'runs/text'\) differ"):
        schema.refuse_another_run(of_net(kl="runs/kl"), of_net(kl="runs/kl", text="runs/text"), "run")
    with pytest.raises(UserError, match=r"nets.kl \('runs/kl', now None\) differ"):
        schema.refuse_another_run(of_net(kl="runs/kl"), of_net(), "run")


def test_many_differences_are_counted():
    other = {"seed": 1, "data": {"name": "a", "split": "b", "flip": True, "batch_size": 2, "crop": 1}, "ema": {"decay": 0.5}}
    with pytest.raises(UserError, match=r"data.batch_size \(128, now 2\), .* and 1 more differ; use another --workdir"):
        schema.refuse_another_run(schema.complete({}), schema.complete(other), "run")


@pytest.mark.parametrize(("flags", "key", "value"), [
    (["--config.data.held_out=None"], "data.held_out", None),
    (["--config.data.held_out=0.1"], "data.held_out", 0.1),
    (["--config.data.held_out=train[:10%]"], "data.held_out", "train[:10%]"),
    (["--config.data.size=(4, 8)"], "data.size", [4, 8]),
    (["--config.data.size", "16"], "data.size", 16),
    (["--config.optimizer.clip=None"], "optimizer.clip", None),
    (["--config.optimizer.clip=0.5"], "optimizer.clip", 0.5),
    (["--config.system.multipliers=(1,)"], "system.multipliers", [1]),
    (["--config.system.multipliers=1,2", "--config.system.multipliers=(1, 3)"], "system.multipliers", [1, 3]),  # the last one wins
    (["--config.system.attention=()"], "system.attention", []),
    (["--config.sample.solver=unipc"], "sample.solver", "unipc"),
    (["--config.sample.guidance=classifier_free(3)"], "sample.guidance", "classifier_free(3)"),
    (["--config.sample.guidance=2.5"], "sample.guidance", 2.5),
    (["--config.training.start=runs/other", "--config.training.start=None"], "training.start", None),
    (["--config.data.crop=1", "--config.seed=3"], "data.crop", 1),
])  # fmt: skip
def test_values_of_the_command_line(flags, key, value):
    section, name = key.split(".")
    found = _config.read("ddpm_digits", flags)
    assert found[section][name] == value and type(found[section][name]) is type(value)
