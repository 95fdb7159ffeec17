"""What a config and the commands' flags of numbers may say: a line for each, with its default, its bounds and one sentence; and the
checks of numbers and types.

A config is data: a nested mapping of numbers, strings and tuples. `complete` adds what it leaves out, so the config that is saved
beside a run says everything; `check` refuses what cannot work, in one sentence; `plan.plan` makes objects of it.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from diffux.errors import UserError, unknown

_LARGEST = 2**31 - 1  # of whole numbers: what counts on a device is an int32


@dataclasses.dataclass(frozen=True)
class Key:
    """One key of a config, or one flag of a command.

    - default, said: the value where the config says nothing, and what the key means.
    - kind: the type of values, where the default does not tell: of what may be None, or object for any.
    - least, most, above, below: bounds of numbers, the last two themselves outside; one_of: the words that it may be.
    - free: whether it may get another value when a run is continued; with another value of any other key it would be another run.
    - open: a section whose keys are arguments of a function that is looked up by name.
    """

    default: Any
    said: str
    kind: type | None = None
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    one_of: tuple[str, ...] = ()
    free: bool = False
    open: bool = False

    @property
    def or_none(self) -> bool:
        """Whether the value may be None."""
        return self.default is None or self.kind is not None


KEYS: dict[str, Key] = {
    # nobody means more than a seed of 32 bits, 1024 workers or a million steps, and much more would take the machine down
    "seed": Key(0, "seed of the weights, the noise and the order of the data", least=0, most=2**32 - 1),
    "system": Key({"name": "ddpm"}, "a system by name, and the arguments of its build(...)", open=True),
    "nets": Key({}, "frozen networks that the system names: a run's folder, an export, or weights of others, by path", open=True),
    "data.name": Key("digits", "a data set: digits, patches/16, cifar10, folder:/path, npz:/path, ..."),
    "data.split": Key("train", "the split that is trained on"),
    "data.held_out": Key("test", "the split that the held-out loss is of, or a share of the training examples (0.05 where there is "
                                 "no split test); None for none", kind=object),
    "data.batch_size": Key(128, "examples a step, over all devices", least=1),
    "data.size": Key(None, "the side of images in pixels, or (height, width); None as they are", kind=object),
    "data.channels": Key(None, "1 for grey images, 3 for colour; None as they are", kind=int),
    "data.options": Key({}, "further arguments of the data set", open=True),
    "data.flip": Key(False, "mirror half of the training examples left to right"),
    "data.crop": Key(None, "shift training examples by up to so many pixels", kind=int),
    "data.dequantize": Key(False, "uniform noise between the levels of pixels"),
    "data.workers": Key(0, "processes that read the data; 0 reads in threads", least=0, most=1024, free=True),
    "optimizer.name": Key("adam", "any optimizer of optax"),
    "optimizer.learning_rate": Key(1e-3, "the peak of the learning rate", least=0, most=1e6),
    "optimizer.schedule": Key("constant", "its shape after the warm-up: constant, cosine, linear, or halved(3) in three parts"),
    "optimizer.warmup": Key(0, "steps over which it rises", least=0),
    "optimizer.clip": Key(1.0, "the largest norm of a gradient; None for any", kind=float, above=0),
    "optimizer.accumulate": Key(1, "parts of a batch whose gradients are averaged, to save memory", least=1),
    "optimizer.options": Key({}, "further arguments of the optimizer", open=True),
    "optimizer.groups": Key([], "(pattern, settings or 'frozen') pairs: parameters whose path has the pattern, the first that fits",
                            kind=object),
    "ema.decay": Key([0.999], "exponential averages of the weights, one for every decay", kind=object),
    "ema.warmup": Key(True, "bound the decay early in a run, so that the average is not mostly the first weights"),
    "ema.power": Key([], "power-function averages, by their relative widths", kind=object),
    "ema.snapshot_every": Key(0, "steps between stored power-function averages, from which others are made; 0: never", least=0,
                              free=True),
    "ema.samples_from": Key(None, "the average that samples and the held-out loss take; None is the first", kind=object, free=True),
    "training.steps": Key(1000, "steps of the run", least=1, free=True),
    "training.log_every": Key(50, "steps between rows of metrics", least=1, free=True),
    "training.sample_every": Key(500, "steps between pictures of samples; 0: only at the end", least=0, free=True),
    "training.eval_every": Key(500, "steps between held-out losses; 0: only with checkpoints", least=0, free=True),
    "training.eval_examples": Key(256, "examples of a held-out loss", least=1),
    "training.checkpoint_every": Key(500, "steps between checkpoints", least=1, free=True),
    "training.keep": Key(2, "the last checkpoints that stay", least=1, free=True),
    "training.keep_best": Key(1, "the checkpoints of the lowest held-out loss that stay", least=0, free=True),
    "training.keep_every": Key(0, "every so many steps a checkpoint stays; 0: none", least=0, free=True),
    "training.start": Key(None, "a run or export whose weights it begins with, where path and shape agree", kind=str),
    "training.loggers": Key(["tensorboard"], "who is told of the metrics, beside metrics.jsonl: tensorboard, csv, or loggers of "
                                             "your own; () for nobody", kind=object, free=True),
    "sample.n": Key(64, "samples in the pictures that training draws", least=1, free=True),
    "sample.solver": Key(None, "their solver; None is the system's own", kind=str, free=True),
    "sample.steps": Key(None, "its steps; None is the system's own number", kind=int, least=1, most=1_000_000, free=True),
    "sample.eta": Key(0.0, "its share of noise, of solvers that have one", least=0, most=10, free=True),
    "sample.grid": Key(None, "where its steps are; None is the system's own", kind=str, free=True),
    "sample.guidance": Key(None, "a classifier-free scale, or transforms such as classifier_free(3), the first innermost",
                           kind=object, free=True),
    "sample.options": Key({}, "further arguments of the solver", open=True, free=True),
    "sample.given": Key({}, "what is asked, a word for a field; by default every class in turn, and held-out rows",
                        open=True, free=True),
    "compute.dtype": Key("float32", "the type that networks compute in; parameters, statistics and losses stay float32",
                         one_of=("float32", "bfloat16")),
    "compute.remat": Key("none", "what the backward pass computes anew instead of keeping it", free=True,
                         one_of=("none", "blocks", "contractions")),
    "sharding.data": Key(-1, "devices that the batch is split over; -1 for all that are left", free=True),
    "sharding.fsdp": Key(1, "devices that the parameters are split over, and the batch as well", free=True),
    "sharding.tensor": Key(1, "devices that channels are split over", free=True),
    "sharding.rules": Key([], "(pattern, rule) pairs that come before the networks' own", kind=object, free=True),
    "sharding.smallest": Key(16384, "arrays of fewer numbers stay whole", least=0, free=True),
    "sharding.optimizer": Key("with_parameters", "where the optimizer's state lives", free=True,
                              one_of=("with_parameters", "sharded")),
    "sharding.gradients": Key("float32", "the type in which gradients cross devices", one_of=("float32", "bfloat16"), free=True),
    "faults.action": Key("stop", "what a step at fault does to the run", one_of=("stop", "skip"), free=True),
    "faults.largest_loss": Key(None, "a step of a larger loss is at fault", kind=float, above=0, free=True),
    "faults.largest_gradient": Key(None, "a step of a gradient of a larger norm is at fault", kind=float, above=0, free=True),
    "faults.most_skips": Key(10, "skipped steps in a row that end the run", least=0, free=True),
}  # fmt: skip


def _like(name: str, said: str, **changes: Any) -> Key:
    """A flag with the type and bounds of a key of the config."""
    return dataclasses.replace(KEYS[name], said=said, **changes)


FLAGS: dict[str, Key] = {
    "n": _like("sample.n", "how many samples (64)"),
    "batch": _like("data.batch_size", "samples drawn at once (256)", default=256),
    "seed": _like("seed", "seed of the samples, or of the noise of a likelihood (0)"),
    "steps": _like("sample.steps", "steps of the walk; the model's own number by default"),
    "eta": _like("sample.eta", "share of noise of ddim, 0 (deterministic) to 1; 0 by default", default=None, kind=float),
    "classifier-scale": Key(None, "of its gradient; 0 is none (1)", kind=float, least=-1e6, most=1e6),
    "lora-scale": Key(None, "how much of the low-rank updates is added; 0 is none (1)", kind=float, least=-1e6, most=1e6),
    "frames": Key(10, "states of the trajectory (10)", least=1),
    "judged": Key(None, "how many samples, or held-out examples (512 images, 5000 points, 2000 sequences)", kind=int, least=2),
    "probes": Key(1, "of Hutchinson's estimate, an image (1)", least=1, most=1_000_000),
    "draws": Key(1, "of the dequantization noise, or of samples of a pair, an image (1)", least=1, most=1_000_000),
    "dequantizer-steps": Key(0, "train the dequantization noise for so many steps (0: uniform noise)", least=0),
    "start": Key(None, "the t of the density (1e-5, or a chain's first step)", kind=float, above=0, below=1),
    "tolerance": Key(1e-4, "of the integration (1e-4; the literature's is 1e-5)", least=1e-12, most=1),
    "profile": Key(0, "trace N steps into WORKDIR/profile", least=0, most=10_000),
    "processes": Key(None, "how many there are; 1: alone, whatever launched it", kind=int, least=1),
    "process": Key(None, "which one this is, from 0", kind=int, least=0),
    "start-timeout": Key(None, "how long to wait for the others at the start (300)", kind=float, above=0, most=1e6),
}  # fmt: skip


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{"a.b": 1} -> {"a": {"b": 1}}."""
    config: dict[str, Any] = {}
    for key, value in flat.items():
        section, _, name = key.rpartition(".")
        (config.setdefault(section, {}) if section else config)[name] = value
    return config


DEFAULTS = nested({key: value.default for key, value in KEYS.items()})
_OPEN = tuple(key for key, value in KEYS.items() if value.open)


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}; an empty section has no key."""
    flat = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


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


def complete(config: Any) -> dict[str, Any]:
    """A plain copy of `config` with the defaults of what it leaves out.

    Raises UserError for a section or key that no part of the library reads.
    """
    config = plain(config)
    if not isinstance(config, dict):
        raise UserError(f"a config is a mapping of sections, got {type(config).__name__}")
    full = copy.deepcopy(DEFAULTS)
    for section, values in config.items():
        # `steps` is another name of training.steps, for the command line
        if section not in DEFAULTS and section != "steps":
            raise unknown("section of the config", section, DEFAULTS)
        if not isinstance(DEFAULTS.get(section), dict):
            full[section] = values
            continue
        if not isinstance(values, dict):
            raise UserError(f"config.{section} is a section of settings, got {values!r}")
        for key, value in values.items():
            name = f"{section}.{key}"
            if name not in KEYS and section not in _OPEN:
                raise unknown("config key", name, [known for known in KEYS if known.startswith(f"{section}.")])
            if isinstance(value, dict) != (name in _OPEN) and section not in _OPEN:
                kind = "a value, not a section" if isinstance(value, dict) else "a section of settings"
                raise UserError(f"config.{name} is {kind}, got {value!r}")
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


def saved_whole(config: Mapping[str, Any]) -> bool:
    """Whether a saved config says of which system and data it is: one without them is no config that was saved."""
    return all(isinstance(config.get(section), dict) and "name" in config[section] for section in ("system", "data"))


def check(config: Any) -> dict[str, Any]:
    """The completed config, once every number is in its range and of its type.

    Names (system, data set, optimizer, solver) are checked where they are looked up.
    """
    config = complete(config)
    flat = flatten(config)
    for name, value in flat.items():
        _check_numbers(f"config.{name}", value, KEYS.get(name))
    for name, key in KEYS.items():
        if not key.open:
            check_value(f"config.{name}", key, flat[name])
    held_out = config["data"]["held_out"]
    if not (held_out is None or isinstance(held_out, str) or (isinstance(held_out, float) and 0 < held_out < 1)):
        raise UserError(f"config.data.held_out is a split, a share such as 0.05, or None, got {held_out!r}")
    batch, parts = config["data"]["batch_size"], config["optimizer"]["accumulate"]
    if batch % parts:
        raise UserError(f"config.optimizer.accumulate is {parts}, which does not divide data.batch_size {batch}")
    return config


def check_value(name: str, key: Key, value: Any) -> None:
    """Raise UserError, in which the value is called `name`, for one of another type or out of the bounds of `key`."""
    or_none = key.or_none
    if value is None and or_none:
        return
    kind = key.kind or type(key.default)
    wanted = {int: int, float: (int, float), bool: bool, str: str}.get(kind)
    if wanted and (not isinstance(value, wanted) or (isinstance(value, bool) and kind in (int, float))):
        none = ", or None" if or_none else ""
        raise UserError(f"{name} must be {_ARTICLES[kind]}{none}, got {value!r}")
    _check_numbers(name, value, key)
    for fits, words in ((key.least is None or value >= key.least, f"at least {key.least}"),
                        (key.most is None or value <= key.most, f"at most {key.most}"),
                        (key.above is None or value > key.above, f"a number above {key.above}, or None for no bound"),
                        (key.below is None or value < key.below, f"below {key.below}")):  # fmt: skip
        if not fits:
            raise UserError(f"{name} must be {words}, got {value}")
    if key.one_of and value not in key.one_of:
        raise unknown(f"value of {name}", value, key.one_of)


_ARTICLES = {int: "a whole number", float: "a number", bool: "True or False", str: "a string"}


def _check_numbers(name: str, value: Any, key: Key | None) -> None:
    """Raise UserError for numbers that float32 and int32 do not have."""
    most = max(_LARGEST, (key and key.most) or 0)
    if isinstance(value, list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            _check_numbers(name, part, key)
    elif isinstance(value, float) and not abs(value) <= 3.4e38:
        raise UserError(f"{name} must be a finite float32, got {value}")
    elif isinstance(value, int) and abs(value) > most:
        shown = value if abs(value) < 10**15 else f"about 1e{len(str(abs(value))) - 1}"
        raise UserError(f"{name} must be at most {most}, got {shown}")


def refuse_another_run(old: Mapping[str, Any], new: Mapping[str, Any], workdir: Any, known: Sequence[str] = ()) -> None:
    """Raise UserError naming the keys that make `new` another run than the one that `workdir` holds; those that are `known` to mean
    the same are no matter."""
    old, new = flatten(complete(old)), flatten(new)
    different = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    free = (*known, *(name for name, key in KEYS.items() if key.free))
    fixed = [name for name in different if name not in free and not name.startswith(tuple(f"{key}." for key in free))]
    # the networks that it names are known by what they hold, wherever they lie
    fixed = [name for name in fixed if not name.startswith("nets.") or name not in old or name not in new]
    if fixed:
        shown = ", ".join(f"{name} ({old.get(name)!r}, now {new.get(name)!r})" for name in fixed[:6])
        more = f" and {len(fixed) - 6} more" if len(fixed) > 6 else ""
        raise UserError(f"{workdir} holds a run of another config: {shown}{more} differ; use another --workdir")
