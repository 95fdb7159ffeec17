"""Every key of a config, every argument of a system and every flag of a command, with values that make no sense: each is refused in
one sentence before anything compiles, or is legal, is recorded as given and gives finite numbers.

Keys, flags, their types and their bounds are read from the library's schema; what is legal is said by `rules.py`, apart from it.
Not a script: `run.py --mutations N`.
"""

from __future__ import annotations

import collections
import contextlib
import copy
import dataclasses
import functools
import inspect
import io
import json
import math
import os
import pathlib
import random
import time
import traceback
from typing import Any

from diffux import cli, systems
from diffux.cli import _config, _flags
from diffux.config.schema import KEYS, Key, flatten, plain
from diffux.errors import explained
from diffux.naming import literal
from stress import rules
from stress.harness import EXPERIMENTS, POINTS, one_sentence, remove

_MEMORY = 8 * 2**30  # what a refusal may take at most; a U-Net of 35.7 million parameters is traced in two
_SECONDS = 200  # of the processors; a hang is longer, and the largest networks are traced in a quarter of it
_PATIENCE = 1000  # seconds, also where nothing is computed

# ------------------------------------------------------------------------------------------------------ what can be said


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
    "guidance": ["2", "1e30", "classifier_free(3)", "classifier_free(nan)", "static_threshold(1)", "classifier(1)", "isotropic"],
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
    weights = [1 if read()[file]["data"]["name"] in _ABSENT else 6 for file in fitting]
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
           "--classifier-scale": {"--classifier": "run"}, "--process": {"--processes": "1"}}  # fmt: skip
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


# ------------------------------------------------------------------------------------------------------ what is right


def wrongs(case: Case, facts: dict[str, Any]) -> list[str]:
    """What is wrong with a case that was not refused."""
    found = ["a name that does not exist was taken"] * case.wrong
    for subject, value in case.changes:
        readings = [value] if case.config is not None else _readings(value)
        if not any(map(rules.of(subject.name), readings)):
            found.append(f"{subject.name} may not be {value!r:.60}")
        elif "config" in facts and not subject.flag and not case.wrong:
            recorded = functools.reduce(lambda node, part: node.get(part, {}), subject.name.split("."), facts["config"])
            if len(case.changes) == 1 and not any(_same(given, recorded) for given in readings):
                found.append(f"{subject.name} was given as {value!r:.60} and is recorded as {recorded!r:.60}")
    return found + facts.get("wrong", [])


def _readings(text: Any) -> list[Any]:
    """What a value of the command line may mean: the words as they stand, the number, tuple or None that they spell, and as
    absl has it yes or no."""
    text = f"{text}"
    said = {"1": [True], "true": [True], "0": [False], "false": [False]}.get(text.lower(), [])
    with contextlib.suppress(ValueError):
        return [text, literal(text), *said]
    return [text, *said]


def _same(given: Any, recorded: Any) -> bool:
    given = plain({"value": given})["value"]
    return given == recorded or [given] == recorded


# ------------------------------------------------------------------------------------------------------ the process of cases


class Reached(Exception):
    """The next thing would be to compile what is large, or to walk for long."""


# The sets of the configs that have to be downloaded; noise of their fields stands for them.
_ABSENT = ("cifar10", "mnist", "celeb_a", "folder:/path/to/ffhq")


class _Noise:
    """Examples of noise, in the place of those that are not there."""

    def __init__(self, fields):
        self._fields = fields

    def __len__(self):
        return 1000

    def read(self, index):
        import numpy as np

        draw = np.random.default_rng(index)
        return {name: draw.integers(0, field.categories or 256, field.shape).astype(field.dtype)
                for name, field in self._fields.items()}  # fmt: skip


def _without_long_work(facts: dict[str, Any]) -> None:
    """Stand in for what has to be downloaded, and end what is legal and would take long: `facts["carry"]` says what may compile."""
    from diffux import data
    from diffux.evaluation import likelihood
    from diffux.evaluation import runs as evaluation
    from diffux.sampling import files
    from diffux.training import loop, signals

    load, background, draw, held_out = data.load, loop.Background, files.draw, likelihood.held_out

    def stand_in(name, *, split="train", like=None, **options):
        if name not in _ABSENT or split not in ("train", "test", "validation"):
            return load(name, split=split, like=like, **options)
        fields = data.describe(name, split=split, **options)
        return data.Source(_Noise(fields), name=name, split=split, fields=fields)

    def compiling(compile_program):
        import jax

        program = compile_program.__self__
        plan = facts["plan"] = program.plan
        size = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(program.shapes.params))
        small = size < 1e6 and plan.data.batch_size <= 512 and plan.pictures <= 1000 and plan.training.eval_examples <= 2000
        if facts["carry"] and small and (plan.walk is None or (plan.walk["steps"] or plan.system.steps) <= 2000):
            facts["stepped"] = True
            return background(compile_program)
        with explained():  # as the loop does with what compiling raises
            program.lower()
        raise Reached

    def drawing(runs, n, **options):
        walk = next(iter(evaluation.sampling.named(runs).values()))
        evaluation.sampling.check(n, options.get("batch", 256))
        if n * walk.steps > 50_000 or min(n, options.get("batch", 256)) * walk.steps > 50_000:
            raise Reached
        return draw(runs, n, **options)

    def measuring(run, **options):
        if max(options["probes"], 1) * options["draws"] > 4 or options["dequantizer_steps"] > 20 or options["rtol"] < 1e-6:
            options |= {"n": 2, "draws": min(options["draws"], 2), "probes": min(options["probes"], 4)}
            options["dequantizer_steps"] = min(options["dequantizer_steps"], 2)
        return held_out(run, **options)

    data.load, loop.Background, files.draw, likelihood.held_out = stand_in, compiling, drawing, measuring
    evaluation.sampling.draw = drawing
    signals.Stop.agreed = lambda stop, step, every: True  # a step, saved and left: what a run of one step more would do


def _tiny_run() -> None:
    """A run of digits in "run", with two checkpoints, an exponential average and snapshots of power functions."""
    from diffux import training

    system = {"name": "ddpm", "steps": 8, "betas": "cosine", "channels": 8, "multipliers": (1,), "blocks": 1,
              "attention": (), "classes": 10}  # fmt: skip
    every = {"steps": 4, "log_every": 2, "checkpoint_every": 2, "sample_every": 0, "eval_examples": 16}
    training.train({"system": system | {"dropout": 0.0}, "data": {"name": "digits", "batch_size": 16, "dequantize": True},
                    "ema": {"decay": 0.9, "power": [0.05, 0.1], "snapshot_every": 2}, "training": every,
                    "sample": {"n": 2}}, "run")  # fmt: skip


def _judged(words: list[str] | None, facts: dict[str, Any], out: str) -> dict[str, Any]:
    """What the parent is told of a case that went through: the config as it is recorded, and what is wrong with what was made."""
    import numpy as np

    from diffux.runs import metrics

    told, wrong = {}, []
    if "plan" in facts:
        told["config"] = facts["plan"].config
    if facts.get("stepped") and os.path.isdir("new"):
        losses = [row["loss"] for row in metrics.read(pathlib.Path("new")) if "loss" in row]
        if not losses or not np.isfinite(losses).all():
            wrong.append(f"a step was taken and its losses are {losses}")
        told["stepped"] = True
        told["config"] = json.loads(pathlib.Path("new/config.json").read_text())
    for path in pathlib.Path().glob("*.npz"):
        with np.load(path) as file:
            values = next(file[name] for name in ("images", "samples") if name in file)
            if not np.isfinite(values).all() and "not finite" not in out:
                wrong.append(f"{path} has samples that are not finite, and nothing says so")
            told["samples"] = values.tobytes()
    for path in (pathlib.Path("run/evaluation.json"), pathlib.Path("run/likelihood.json")):
        if path.exists():
            figures = flatten({"x": _mapping(json.loads(path.read_text()))}).values()
            if not all(math.isfinite(figure) for figure in figures if isinstance(figure, float)) and "not finite" not in out:
                wrong.append(f"{path} has figures that are not finite, and nothing says so")
            path.unlink()
    return told | {"wrong": wrong}


def _mapping(value: Any) -> Any:
    """JSON with mappings for lists, so that all of it has paths."""
    if isinstance(value, list):
        value = {str(i): one for i, one in enumerate(value)}
    return {key: _mapping(one) for key, one in value.items()} if isinstance(value, dict) else value


def _reader_of_cases(pipe, folder: str) -> None:
    """Answer every (words or None, config, carry) with (status, error, facts, the most memory it took)."""
    import resource
    import shutil

    from diffux import training

    os.environ |= {"DIFFUX_START_TIMEOUT": "2", "COLUMNS": "100"}
    place = pathlib.Path(folder) / "a" / "b" / "c"  # what climbs up with ../.. stays inside
    remove(place)
    place.mkdir(parents=True)
    os.chdir(place)
    with contextlib.redirect_stdout(io.StringIO()):
        _tiny_run()
        cli.main(["sample", "--workdir", "run", "--n", "8", "--out", "run/samples.npz"])
    kept, facts = pathlib.Path(folder) / "kept", {}
    remove(kept)
    shutil.move("run", kept)
    _without_long_work(facts)
    pipe.send("ready")
    while True:
        words, config, carry = pipe.recv()
        remove(place)
        place.mkdir()
        os.chdir(place)
        shutil.copytree(kept, "run")
        facts.clear()
        facts["carry"] = carry

        def main(arguments, config=config):
            if config is None:
                return cli._dispatch(arguments)
            training.train(config, "new")
            return 0

        out, err = io.StringIO(), io.StringIO()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                status = _flags.run(main, words)
            told = _judged(words, facts, out.getvalue()) if status != 2 else {}
            if status == 130:  # left after a step, as `agreed` says
                status = 0
            said = err.getvalue()
        except Reached:
            status, said, told = 0, "", _judged(words, facts, out.getvalue())
        except SystemExit as error:  # --help
            status, said, told = int(error.code or 0), err.getvalue(), {}
        except BaseException as error:
            status, said, told = 1, "".join(traceback.format_exception(error)[-3:]), {}
        pipe.send((status, said, told, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))


# ------------------------------------------------------------------------------------------------------ the count


def mutations(count: int, seed: int, folder: pathlib.Path) -> collections.Counter:
    """Start `count` cases and count how each ended; outcomes that an earlier start left in the folder are taken from there, but for
    failures, which are tried again."""
    drawn, counts, process, pipe = cases(count, seed), collections.Counter(), None, None
    kept = folder / f"outcomes_{seed}.jsonl"
    done = {row["number"]: row for row in map(json.loads, kept.read_text().splitlines())} if kept.exists() else {}
    try:
        for number, one in enumerate(drawn):
            row = done.get(number)
            if row is None or row["outcome"].startswith("FAILED"):
                if process is None:
                    process, pipe = _started(folder)
                began = time.monotonic()
                outcome = _outcome(one, process, pipe)
                row = {"number": number, "outcome": outcome, "seconds": round(time.monotonic() - began, 1)}
                if outcome.startswith("FAILED"):
                    process.kill()
                    process.join()
                    process = None
                with open(kept, "a") as file:
                    print(json.dumps(row), file=file)
            counts[row["outcome"].partition(":")[0]] += 1
            print(f"{number:4} {one.said()}: {row['seconds']} s, {row['outcome'][:1500]}", flush=True)
    finally:
        if process is not None:
            process.kill()
    met = {(subject.of, subject.name) for one in drawn for subject, _ in one.changes}
    for what, subjects in (("keys and arguments of systems", keys()), ("flags", flags())):
        missed = [f"{one.of} {one.name}" for one in subjects if (one.of, one.name) not in met]
        print(f"met: {len(subjects) - len(missed)} of {len(subjects)} {what}")
        if missed and count >= len(keys()) + len(flags()):
            counts["FAILED"] += len(missed)
            print(f"FAILED: never met {', '.join(missed)}")
    return counts


def _started(folder: pathlib.Path) -> tuple[Any, Any]:
    """A process of cases, once it is ready, and the pipe to it."""
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=_reader_of_cases, args=(theirs, str(folder)))  # no daemon, which may have no data workers
    process.start()
    theirs.close()
    pipe.recv()
    return process, pipe


def _processor_seconds(pid: int) -> float:
    """What a process has computed so far (Linux; elsewhere 0): on a busy machine a clock says little."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _outcome(one: Case, process: Any, pipe: Any) -> str:
    """How a case ended, in a word or two and more after a colon."""
    pipe.send((one.words, one.config, one.carry))
    begun, until = _processor_seconds(process.pid), time.monotonic() + _PATIENCE
    while not pipe.poll(5):
        if _processor_seconds(process.pid) - begun > _SECONDS or time.monotonic() > until:
            return "FAILED: a hang"
    try:
        status, err, facts, most = pipe.recv()
    except EOFError:
        return "FAILED: the process died"
    if most > _MEMORY:
        return f"FAILED: it took {most / 2**30:.1f} GiB: {err}"
    if status == 0:
        wrong = wrongs(one, facts)
        if wrong:
            return f"FAILED: {'; '.join(wrong)}"
        return "legal, and a step taken" if facts.get("stepped") else "legal"
    known = one_sentence(status, err) or (status in (3, 5, 75) and err.startswith("error: ") and err.count("\n") == 1)
    return f"{'one sentence' if known else f'FAILED: status {status}'}: {err.strip()}"
