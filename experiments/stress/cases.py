"""What `mutations.py` says to the library: keys of configs, arguments of systems and flags of commands, given values at, inside and
outside their bounds, of other types, or out of this world.

Keys, flags, their types and their bounds are read from the library's schema.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import math
import pathlib
import random
from typing import Any

from diffux import cli, systems
from diffux.cli import _config
from diffux.config.schema import KEYS, Key
from stress.harness import EXPERIMENTS, POINTS

# The sets of the configs that have to be downloaded or installed.
ABSENT = ("cifar10", "mnist", "emoji", "celeb_a", "imagenet_resized/64x64", "folder:/path/to/ffhq", "folder:/path/to/patches")


@dataclasses.dataclass(frozen=True)
class Subject:
    """What a case changes: a key or a system's argument (`of` "config" or the system's name), or a flag (`of` the command)."""

    of: str
    name: str
    key: Key

    @property
    def flag(self) -> bool:
        return self.name.startswith("--")


def keys() -> list[Subject]:
    """All keys of configs, and the arguments of the systems of all of `files`, as their signatures have them."""
    found = [Subject("config", name, key) for name, key in KEYS.items() if name != "system"]
    arguments = {(config["system"]["name"], name): value for config in read().values() for name, value in config["system"].items()}
    for (system, name), value in sorted(arguments.items()):
        parameter = inspect.signature(systems.module(system).build).parameters.get(name)
        kind = {"int": int, "float": float, "bool": bool, "str": str, "int | None": int, "float | None": float}
        kind = kind.get(str(parameter and parameter.annotation), type(value) if isinstance(value, int | float | str) else object)
        found.append(Subject(system, f"system.{name}", Key(value, "", kind=kind)))
    return found


def flags() -> list[Subject]:
    """All flags of all commands."""
    found = []
    for command, module in cli.commands().items():
        parser = module.load().parser()
        for action in parser._actions:
            (name,) = action.option_strings[-1:] or [f"--{action.dest}"]
            kind = bool if action.nargs == 0 else str
            if name not in ("--help", "--config.KEY"):
                found.append(Subject(command, name, parser.keys.get(name[2:]) or Key(None, "", kind=kind)))
    return found


@functools.cache
def read() -> dict[pathlib.Path, dict]:
    """Every config of the repository."""
    return {file: _config.read(str(file), []) for file in sorted((EXPERIMENTS / "configs").glob("*.py"))}


_NONSENSE = [None, math.nan, math.inf, -math.inf, -1, -(10**12), -0.5, 0, 0.0, 1, 2, 3, 1e-30, 1e30, 1e300, 10**5, 10**12,
             2**31, 2**63, 10**400, True, False, "", " ", "nonsense", "\u00e9\u4e2d\U0001f600", "a\x00b", "../..", "1", "None",
             [], [0], [1, 2], [-1], [10**12], [None], [[1]], ["a"], {}, {"a": 1}, {"name": "adam"}, [math.nan],
             "x" * 10_000]  # fmt: skip

# Words that may well be meant, by the last part of a name: they get past the look-up, to what comes behind it.
_PLAUSIBLE: dict[str, list[Any]] = {
    "solver": ["ddim", "heun", "ancestral", "dpm_solver(order=3)", "dpm_solver(order=9)", "lms(4)", "unipc", "ddim(eta=2)"],
    "grid": ["uniform", "log_snr", "karras(rho=5)", "karras(rho=-5)", "karras(rho=nan)", "uniform(3)", "ddim"],
    "guidance": ["2", "1e30", "classifier_free(3)", "classifier_free(nan)", "static_threshold(1)", "classifier(1)", "isotropic",
                 "classifier_free_pp(0.5)", "adaptive_projected(3, momentum=2)", "perturbed_attention(1, '(')", "added(3, 2)",
                 "classifier_free([1, 2])", "temperature(0)"],
    "option": ["order=2", "order=-2", "order", "=2", "order=2=3", "eta=0.5", "nonsense=1", "order=nan"],
    "task": ["once", "vote(draws=2)", "vote(draws=0)", "best_of", "cascade", "once(3)"],
    "given": ["label=3", "label=3,4", "label=11", "label=-1", "label=", "nonsense=3", "label=nan"],
    "label": ["3", "3,8", "10", "-1", ",", "cat", "1e3"],
    "checkpoint": ["last", "best", "2", "3", "-1", "\u00b2", "1e3", "9" * 40],
    "average": ["0.9", "power_0.1", "power_0.2", "power_9", "power_nan", "power_", "0.5", "inf"],
    "samples_from": ["0.9", "power_0.1", 0.995], "schedule": ["cosine", "linear", "geometric"], "weighting": ["min_snr(3)"],
    "betas": ["cosine", "linear", "zero"], "parameterization": ["v", "x_start", "edm(0.5)", "edm(nan)"],
    "held_out": ["train[:10%]", 0.1, 1.5, 0.0], "split": ["test", "train[:10%]", "train[:0]", "train[5:2]"],
    "trace": ["exact", "gaussian"], "dtype": ["bfloat16", "float16", "float64"],
    "memory": ["16GB", "1GiB", "-1GB", "9" * 400, "0B"],
    "topology": ["cpu:2", "cpu:0", "cpu:-1", "v5e:4x4", "cpu:" + "9" * 30], "what": ["systems", "solvers", "data", "system"],
    "coordinator": ["localhost:1", "localhost", ":1", "localhost:99999"], "net": ["classifier=runs/none", "judge", "=x"],
    "model": ["model=run", "base=run", "model"], "groups": [[["network", "frozen"]], [["(", "frozen"]], [["x", {"clip": -1}]]],
    "rules": [[["kernel", "split"]], [["kernel", "rows"]], [["(", "rows"]]], "crop": [1, 8, 100], "size": [8, [8, 8], [8, 0]],
    "out": ["x.npz", "x.png", "x.gif", "x.safetensors", "run", "run/config.json/y.npz", "/dev/full", "n" * 300 + ".npz",
            "~nosuchuser/x.npz"],
    "trajectory": ["t.png", "t.gif", "t.npz", "/dev/full.gif"], "json": ["r.json", "none/r.json", "run"],
    "samples": ["run/samples.npz", "run", "none.npz", "run/config.json"], "workdir": ["run", "none", "run/config.json", "n" * 300],
    "weights": ["run", "none", "run/config.json", "w.safetensors"], "use": ["none.py", "run", "run/config.json"],
    "config": ["ddpm_digits", "none", "run/config.json"], "classifier": ["run", "none"],
}  # fmt: skip


def values(subject: Subject, draw: random.Random) -> Any:
    """A value for a key or flag: at, just inside or just outside a bound, of another type, or out of this world."""
    key, name = subject.key, subject.name.replace("--", "").rpartition(".")[2]
    kind, how = key.kind or type(key.default), draw.randrange(10)
    if how < 4 and name in _PLAUSIBLE:
        return draw.choice(_PLAUSIBLE[name])
    if how < 6 and kind in (int, float):
        step = 1 if kind is int else 1e-3
        ends = [end for end in (key.least, key.most, key.above, key.below) if end is not None] or [0, 1, 2**31]
        end = draw.choice(ends)
        return draw.choice([end, end - step, end + step, kind(end) if kind is float else float(end) + 0.5, str(end), [end]])
    if how == 6 and isinstance(key.default, str):
        return misspelt(key.default, draw)
    if how == 7 and isinstance(key.default, int | float) and not isinstance(key.default, bool):
        now = key.default
        return draw.choice([-now, now + 1, now * 2, now * 1000, now * 10**9, float(now) + 0.5, now])
    if how == 8 and isinstance(key.default, list):
        return draw.choice([[], [0], [1], [1, 1], [0.5], [0.1, 0.1], [1.0], [-1], [2**31], [[0.1]], ["0.9"], [None], 0.5, "0.5"])
    if how == 9 and key.one_of:
        return draw.choice([draw.choice(key.one_of), key.one_of[0].upper(), [key.one_of[0]]])
    return copy.deepcopy(draw.choice(_NONSENSE))


def misspelt(word: str, draw: random.Random) -> str:
    place = draw.randrange(len(word) + 1)
    return draw.choice([word[:place] + word[place + 1 :], word[:place] + "x" + word[place:], word.upper(), word[::-1]])


# ------------------------------------------------------------------------------------------------------ cases


@dataclasses.dataclass
class Case:
    """What is started: a config (a mapping), or the words of a command line; `changes` are (subject, value given)."""

    base: str
    words: list[str] | None
    config: dict | None
    changes: list[tuple[Subject, Any]]
    wrong: bool = False  # a name that does not exist: to be refused
    carry: bool = False  # to be trained for a step, if it is legal and small

    def said(self) -> str:
        changes = "; ".join(f"{subject.name}={value!r:.60}" for subject, value in self.changes)
        return f"{self.base}{' ' + 'flags' * (self.config is None)} {'(misspelt) ' * self.wrong}{changes}"


def case(subject: Subject, second: Subject | None, draw: random.Random) -> Case:
    """A case that gives `subject` another value, and `second` as well."""
    changes = [(one, values(one, draw)) for one in filter(None, (subject, second))]
    if subject.flag:
        return _of_flags(changes, draw)
    fitting = [file for file, config in read().items() if subject.of in ("config", config["system"]["name"])]
    # the large ones, whose data are not here, take half a minute to trace
    weights = [1 if read()[file]["data"]["name"] in ABSENT else 6 for file in fitting]
    file, wrong = draw.choices(fitting, weights)[0], draw.random() < 0.08
    config = copy.deepcopy(read()[file])
    said = []
    for one, value in changes:
        *sections, name = one.name.split(".")
        inside = functools.reduce(dict.__getitem__, sections, config)
        if wrong and one is subject:
            name = misspelt(name, draw)
            wrong = ".".join([*sections, name]) not in (*KEYS, "steps") and name not in inside
        inside[name] = value
        said.append(f"--config.{'.'.join([*sections, name])}={value}")
    words = None
    if draw.random() < 0.4 and not any("\x00" in word for word in said):
        words, config = ["train", "--config", str(file), "--workdir", "new", *said], None
    return Case(file.stem, words, config, changes, wrong, carry=draw.random() < 0.4)


# What a command is given in any case; a flag that is changed takes the place of its own.
_BASE: dict[str, dict[str, str]] = {
    "train": {"--config": POINTS[1], "--workdir": "new"},
    "sample": {"--workdir": "run", "--out": "x.npz", "--n": "4"},
    "evaluate": {"--workdir": "run", "--n": "16"},
    "export": {"--workdir": "run", "--out": "w.safetensors"},
    "compile": {"--config": POINTS[1]},
    "list": {"--what": "systems"},
}
# What a flag needs beside it.
_BESIDE = {"--eta": {"--solver": "ddim"}, "--option": {"--solver": "unipc"}, "--frames": {"--trajectory": "t.png"},
           "--classifier-scale": {"--classifier": "run"}, "--lora-scale": {"--lora": "run"},
           "--process": {"--processes": "1"}}  # fmt: skip
_OF_LIKELIHOOD = ("--trace", "--probes", "--draws", "--dequantizer-steps", "--start", "--tolerance", "--reconstruct")


def _of_flags(changes: list[tuple[Subject, Any]], draw: random.Random) -> Case:
    command, given = changes[0][0].of, {}
    names = [subject.name for subject, _ in changes]
    for name in names:
        given |= _BESIDE.get(name, {}) if draw.random() < 0.8 else {}
    if draw.random() < 0.8 and any(name in _OF_LIKELIHOOD for name in names):
        given |= {"--likelihood": ""}
    given = {name: value for name, value in (_BASE[command] | given).items() if name not in names}
    words, changed = [], []
    for subject, value in changes:
        if subject.key.kind is bool:
            text, value = subject.name, draw.choice([True, True, "=1", "=", "=nan"])
            text += value if isinstance(value, str) else ""
        else:
            value = f"{value}".replace("\x00", "0")
            text = f"{subject.name}={value}" if subject.name != "--what" else value
        words += [text] * draw.choice([1, 1, 1, 2])
        changed.append((subject, value))
    if "--samples" in names:
        given.pop("--n", None)
    if "--weights" in names or "--model" in names:
        given.pop("--workdir", None)
    first = [given.pop("--what")] if "--what" in given else []
    base = [word for name, value in given.items() for word in ([name, value] if value else [name])]
    if command in ("train", "compile"):
        base += [word for word in POINTS if word.startswith("--config.")]
    return Case(command, [command, *first, *base, *words], None, changed)


def cases(count: int, seed: int) -> list[Case]:
    """`count` cases of a seed, in which every key, argument and flag has its turn."""
    order = [*keys(), *flags()]
    random.Random(f"{seed}").shuffle(order)
    found = []
    for number in range(count):
        draw = random.Random(f"{seed} {number}")
        subject = order[number % len(order)]
        others = [one for one in order if one is not subject and one.flag == subject.flag and one.of in (subject.of, "config")]
        second = draw.choice(others) if draw.random() < 0.4 and others else None
        found.append(case(subject, second, draw))
    return found
