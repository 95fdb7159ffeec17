"""What a config may say: its sections and their defaults, the checks before anything compiles, and what may change.

A config is data: a (nested) mapping of numbers, strings and tuples. `complete` adds what it leaves out, so the config
that is saved beside a run says everything; `check` refuses what cannot work, in one sentence.
"""

from __future__ import annotations

import copy
import fnmatch
import json
from collections.abc import Mapping
from typing import Any

from diffux import averages as ema
from diffux.devices import mesh as sharding
from diffux.errors import UserError, unknown

DEFAULTS: dict[str, Any] = {
    "seed": 0,
    # name of a module of diffux.systems, and the arguments of its build(...)
    "system": {"name": "ddpm"},
    # a data set by name; the last five are those of diffux.data.load and diffux.data.loader
    "data": {
        "name": "digits",
        "split": "train",
        "held_out": "test",
        "batch_size": 128,
        "size": None,
        "channels": None,
        "flip": False,
        "crop": None,
        "dequantize": False,
        "workers": 0,
    },
    # any optax optimizer; the rate rises over `warmup` steps and follows `schedule` to the end of the run
    "optimizer": {
        "name": "adam",
        "learning_rate": 1e-3,
        "schedule": "constant",
        "warmup": 0,
        "clip": 1.0,
        "accumulate": 1,
        "options": {},
    },
    # one average for every number: exponential ones by their decay (`warmup` bounds it early in a run) and power functions of
    # the step by their relative width; the latter are stored every `snapshot_every` steps (0: never), so that other widths can
    # be had afterwards. `samples_from` names the average that samples and the held-out loss take, None is the first.
    "ema": {"decay": [0.999], "warmup": True, "power": [], "snapshot_every": 0, "samples_from": None},
    "training": {
        "steps": 1000,
        "log_every": 50,
        "sample_every": 500,
        "eval_every": 500,
        "eval_examples": 256,
        "checkpoint_every": 500,
        # the last `keep` checkpoints stay, the `keep_best` with the lowest held-out loss, and every `keep_every`-th step (0: none)
        "keep": 2,
        "keep_best": 1,
        "keep_every": 0,
    },
    # the pictures drawn while training; None is the system's own, `options` are the solver's arguments
    "sample": {
        "n": 64,
        "solver": None,
        "steps": None,
        "eta": 0.0,
        "grid": None,
        "guidance": None,
        "options": {},
    },
    # the network's arithmetic (parameters, norms' statistics, softmax and loss stay float32), and what is computed anew in the
    # backward pass instead of being kept: "none", "blocks" or "contractions" (all but convolutions and matrix products)
    "compute": {"dtype": "float32", "remat": "none"},
    # the mesh of devices, -1 for what is left: the batch is split over data x fsdp, parameters over fsdp, channels over tensor;
    # `rules`, (pattern, rule) pairs, come before the default ones, and arrays of fewer than `smallest` numbers stay whole;
    # `optimizer` "sharded" splits its state over data x fsdp, whatever the parameters are; `gradients`: the type in which they
    # cross devices where the network computes in bfloat16
    "sharding": {
        "data": -1,
        "fsdp": 1,
        "tensor": 1,
        "rules": [],
        "smallest": 16384,
        "optimizer": "with_parameters",
        "gradients": "float32",
    },
    # a step is at fault where its loss or gradient is not finite or above these; it changes nothing, and the run stops, or
    # skips it (but not more than `most_skips` in a row)
    "faults": {"action": "stop", "largest_loss": None, "largest_gradient": None, "most_skips": 10},
}

MAY_CHANGE = (
    "training.steps",
    "training.log_every",
    "training.sample_every",
    "training.eval_every",
    "training.checkpoint_every",
    "training.keep",
    "training.keep_best",
    "training.keep_every",
    "ema.snapshot_every",
    "ema.samples_from",
    "sample.*",
    "sharding.*",
    "compute.remat",
    "faults.*",
    "data.workers",
)
"""Keys that may get another value when a run is continued; with any other it would be another run."""

# Sections whose keys are arguments of a function that is looked up by name, and checked against its signature.
_OPEN = ("system", "optimizer.options", "sample.options")
_AT_LEAST = {
    "data.batch_size": 1,
    "data.workers": 0,
    "optimizer.learning_rate": 0,
    "optimizer.warmup": 0,
    "optimizer.clip": 0,
    "optimizer.accumulate": 1,
    "ema.snapshot_every": 0,
    "training.steps": 1,
    "training.log_every": 1,
    "training.sample_every": 0,
    "training.eval_every": 0,
    "training.eval_examples": 1,
    "training.checkpoint_every": 1,
    "training.keep": 1,
    "training.keep_best": 0,
    "training.keep_every": 0,
    "sample.n": 1,
    "sample.steps": 1,
    "sharding.smallest": 0,
    "faults.most_skips": 0,
    "seed": 0,
}
# Nobody means more, and much more would take the machine down before anything else could be said.
_AT_MOST = {"data.workers": 1024, "sample.steps": 1_000_000, "seed": 2**32 - 1}
_LARGEST = 2**31 - 1  # of whole numbers: what counts on a device is an int32
# The types of what is None by default.
_OR_NONE = {
    "data.held_out": str,
    "data.size": int,
    "data.channels": int,
    "data.crop": int,
    "optimizer.clip": float,
    "sample.solver": str,
    "sample.steps": int,
    "sample.grid": str,
    "sample.guidance": float,
    "faults.largest_loss": float,
    "faults.largest_gradient": float,
}
_ONE_OF = {
    "sharding.optimizer": ("with_parameters", "sharded"),
    "sharding.gradients": ("float32", "bfloat16"),
    "faults.action": ("stop", "skip"),
}


def plain(config: Any) -> Any:
    """The config as JSON would return it: dictionaries, lists, numbers and strings.

    Raises UserError for a value that is none of these.
    """
    if hasattr(config, "to_dict"):
        config = config.to_dict()
    try:
        return json.loads(json.dumps(config))
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"a config holds only data (numbers, strings, tuples, sections): {error}") from error


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}; an empty section has no key."""
    flat = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def complete(config: Any) -> dict[str, Any]:
    """A plain copy of `config` with the defaults of what it leaves out.

    Raises UserError for a section or key that no part of the library reads.
    """
    config = plain(config)
    if not isinstance(config, dict):
        raise UserError(f"a config is a mapping of sections, got {type(config).__name__}")
    known = {name: value for name, value in DEFAULTS.items() if isinstance(value, dict)}
    full = copy.deepcopy(DEFAULTS)
    for section, values in config.items():
        # `steps` is another name of training.steps, for the command line
        if section not in DEFAULTS and section != "steps":
            raise unknown("section of the config", section, DEFAULTS)
        if section not in known:
            full[section] = values
            continue
        if not isinstance(values, dict):
            raise UserError(f"config.{section} is a section of settings, got {values!r}")
        for key, value in values.items():
            if key not in known[section] and section not in _OPEN:
                raise unknown("config key", f"{section}.{key}", [f"{section}.{name}" for name in known[section]])
            if isinstance(value, dict) != (f"{section}.{key}" in _OPEN) and section != "system":
                kind = "a value, not a section" if isinstance(value, dict) else "a section of settings"
                raise UserError(f"config.{section}.{key} is {kind}, got {value!r}")
            full[section][key] = value
    if not isinstance(full["ema"]["decay"], list):  # a number alone stands for one average
        full["ema"]["decay"] = [full["ema"]["decay"]]
    if "steps" in config:
        if config["steps"] != config.get("training", {}).get("steps", config["steps"]):
            raise UserError(
                f"config.steps is {config['steps']} and config.training.steps is {config['training']['steps']}: "
                "they are two names of one number"
            )
        full["training"]["steps"] = full.pop("steps")
    return full


def check(config: Any) -> dict[str, Any]:
    """The completed config, once every number is in its range and of its type.

    Names (system, data set, optimizer, solver) are checked where they are looked up.
    """
    config = complete(config)
    flat = flatten(config)
    for key, value in flat.items():
        _check_numbers(key, value)
    for key, default in flatten(DEFAULTS).items():
        value = flat[key]
        if value is None and key in _OR_NONE:
            continue
        kind = _OR_NONE.get(key, type(default))
        wanted = {int: int, float: (int, float), bool: bool, str: str}.get(kind)
        wrong_bool = isinstance(value, bool) and kind in (int, float)
        if wanted and (not isinstance(value, wanted) or wrong_bool):
            none = ", or None" if key in _OR_NONE else ""
            raise UserError(f"config.{key} must be {_article(kind.__name__)}{none}, got {value!r}")
        if key in _AT_LEAST and not value >= _AT_LEAST[key]:
            raise UserError(f"config.{key} must be at least {_AT_LEAST[key]}, got {value}")
        if key in _AT_MOST and not value <= _AT_MOST[key]:
            raise UserError(f"config.{key} must be at most {_AT_MOST[key]}, got {value}")
        if key in _ONE_OF and value not in _ONE_OF[key]:
            raise unknown(f"value of config.{key}", value, _ONE_OF[key])
    ema.from_config(config["ema"])
    for key in ("faults.largest_loss", "faults.largest_gradient"):
        if flat[key] is not None and not flat[key] > 0:
            raise UserError(f"config.{key} must be a number above 0, or None for no bound, got {flat[key]!r}")
    sharding.check_rules(flat["sharding.rules"])
    batch, parts = flat["data.batch_size"], flat["optimizer.accumulate"]
    if batch % parts:
        raise UserError(f"config.optimizer.accumulate is {parts}, which does not divide data.batch_size {batch}")
    return config


def _check_numbers(key: str, value: Any) -> None:
    """Raise UserError for numbers that float32 and int32 do not have."""
    if isinstance(value, list):
        for part in value:
            _check_numbers(key, part)
    elif isinstance(value, float) and not abs(value) <= 3.4e38:
        raise UserError(f"config.{key} must be a finite float32, got {value}")
    elif isinstance(value, int) and abs(value) > max(_LARGEST, _AT_MOST.get(key, 0)):
        raise UserError(f"config.{key} must be at most {_AT_MOST.get(key, _LARGEST)}, got about 1e{len(str(abs(value))) - 1}")


def _article(word: str) -> str:
    return {"int": "a whole number", "float": "a number", "bool": "True or False", "str": "a string"}[word]


def refuse_another_run(old: Mapping[str, Any], new: Mapping[str, Any], workdir: Any) -> None:
    """Raise UserError naming the keys that make `new` another run than the one that `workdir` holds."""
    old, new = flatten(complete(old)), flatten(new)
    different = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    fixed = [key for key in different if not any(fnmatch.fnmatch(key, pattern) for pattern in MAY_CHANGE)]
    if fixed:
        shown = ", ".join(f"{key} ({old.get(key)!r}, now {new.get(key)!r})" for key in fixed[:6])
        more = f" and {len(fixed) - 6} more" if len(fixed) > 6 else ""
        raise UserError(f"{workdir} holds a run of another config: {shown}{more} differ; use another --workdir")
