"""Every key of a config, every argument of a system and every flag of a command, with values that make no sense: each is refused in
one sentence before anything compiles, or is legal, is recorded as given and gives finite numbers.

What is given is drawn by `cases.py`; what is legal is said by `rules.py`, apart from the library.
Not a script: `run.py --mutations N`.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import io
import json
import math
import os
import pathlib
import time
import traceback
from typing import Any

from diffux import cli
from diffux.cli import _flags
from diffux.config.schema import flatten, plain
from diffux.errors import explained
from diffux.naming import literal
from stress import rules
from stress.cases import ABSENT, Case, cases, flags, keys
from stress.harness import one_sentence, remove

_MEMORY = 8 * 2**30  # what a refusal may take at most; a U-Net of 35.7 million parameters is traced in two
_SECONDS = 200  # of the processors; a hang is longer, and the largest networks are traced in a quarter of it
_PATIENCE = 1000  # seconds, also where nothing is computed

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
        if name not in ABSENT or split not in ("train", "test", "validation"):
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
