"""Configs and flags that make no sense: each is refused in one sentence before anything compiles, or is legal.

Not a script: `run.py --mutations N`.
"""

from __future__ import annotations

import collections
import contextlib
import copy
import io
import math
import pathlib
import random
import time
import traceback

from diffux.cli import _config, _flags
from diffux.config.schema import flatten
from diffux.errors import explained
from stress.harness import EXPERIMENTS, one_sentence, remove

_MEMORY = 8 * 2**30  # what a refusal may take at most; a U-Net of 35.7 million parameters is traced in two
_SECONDS = 120  # a hang is longer; the largest networks are traced in a third of it

VALUES = [None, math.nan, math.inf, -math.inf, -1, -(10**12), -0.5, 0, 0.0, 1, 2, 3, 1e-30, 1e30, 1e300, 10**5, 10**12,
           2**31, 2**63, 10**400, True, False, "", " ", "nonsense", "\u00e9\u4e2d\U0001f600", "a\x00b", "../..", "1", "None", [],
           [0], [1, 2], [-1], [10**12], [None], [[1]], ["a"], {}, {"a": 1}, {"name": "adam"}, [math.nan], "x" * 10_000]  # fmt: skip


def mutate(config: dict, others: list[dict], draw: random.Random) -> tuple[dict, list[str], list[str]]:
    """A config with one to three keys changed; the same changes as flags where flags can say them; and in words."""
    config, flags, said = copy.deepcopy(config), [], []
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        key = draw.choice(sorted(flatten(config)))
        *sections, name = key.split(".")
        inside = config
        for section in sections:
            inside = inside[section]
        value, how = inside.get(name), draw.randrange(10)
        if how == 0:  # a misspelt key
            wrong = _misspelt(name, draw)
            inside[wrong] = inside.pop(name)
            flags.append(f"--config.{'.'.join([*sections, wrong])}={value}")
        elif how == 1 and isinstance(value, str):
            inside[name] = _misspelt(value, draw)
            flags.append(f"--config.{key}={inside[name]}")
        elif how == 2:  # a value of another config
            other = flatten(draw.choice(others))
            inside[name] = copy.deepcopy(other[draw.choice(sorted(other))] if draw.random() < 0.5 else other.get(key))
            flags.append(f"--config.{key}={inside[name]}")
        elif how == 3 and sections:  # a value in the place of a section, or a section in the place of a value
            config[sections[0]] = draw.choice([None, 3, "ddpm", [], True])
            flags.append(f"--config.{sections[0]}={config[sections[0]]}")
        elif how == 4 and isinstance(value, int | float) and not isinstance(value, bool):
            inside[name] = draw.choice([-value, value + 1, value * 1000, value * 10**9, float(value) + 0.5, str(value), [value]])
            flags.append(f"--config.{key}={inside[name]}")
        else:
            inside[name] = copy.deepcopy(draw.choice(VALUES))
            flags.append(f"--config.{key}={inside[name]}")
        said.append(flags[-1].removeprefix("--config.")[:60])
    return config, flags, said


def _misspelt(word: str, draw: random.Random) -> str:
    place = draw.randrange(len(word) + 1)
    return draw.choice([word[:place] + word[place + 1 :], word[:place] + "x" + word[place:], word.upper(), word[::-1]])


class Reached(Exception):
    """The next thing would be to compile."""


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


def _reader_of_cases(pipe, folder: str) -> None:
    """Answer every (config file or None, config or flags) with (status, error, the most memory it took)."""
    import resource

    from diffux import data, training
    from diffux.training import loop

    load = data.load

    def stand_in(name, *, split="train", like=None, **options):
        if name not in _ABSENT or split not in ("train", "test", "validation"):
            return load(name, split=split, like=like, **options)
        fields = data.describe(name, split=split, **options)
        return data.Source(_Noise(fields), name=name, split=split, fields=fields)

    def reached(compile_program):
        with explained():  # as the loop does with what compiling raises
            compile_program.__self__.lower()
        raise Reached

    data.load, loop.Background = stand_in, reached
    pipe.send("ready")
    for number in iter(int, 1):
        file, config, flags = pipe.recv()

        def main(_, file=file, config=config, flags=flags, number=number):
            wanted = config if flags is None else _config.read(file, flags)
            training.train(wanted, pathlib.Path(folder) / f"run{number}")
            return 0

        err = io.StringIO()
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
                status = _flags.run(main, [])
            said = err.getvalue()
        except Reached:
            status, said = 0, ""
        except BaseException as error:
            status, said = 1, "".join(traceback.format_exception(error)[-3:])
        remove(pathlib.Path(folder) / f"run{number}")
        pipe.send((status, said, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))


def mutations(count: int, seed: int, folder: pathlib.Path) -> collections.Counter:
    """Start `count` changed configs up to the first compilation, and count how that ended."""
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    files = sorted((EXPERIMENTS / "configs").glob("*.py"))
    configs = {file: _config.read(str(file), []) for file in files}
    counts, process = collections.Counter(), None
    try:
        for number in range(count):
            draw = random.Random(f"{seed} {number}")
            file = files[number % len(files)]
            config, flags, said = mutate(configs[file], list(configs.values()), draw)
            flags = flags if draw.random() < 0.4 and not any("\x00" in flag for flag in flags) else None
            if process is None:
                pipe, theirs = context.Pipe()
                process = context.Process(target=_reader_of_cases, args=(theirs, str(folder)), daemon=True)
                process.start()
                theirs.close()
                pipe.recv()
            began = time.monotonic()
            pipe.send((str(file), config, flags))
            outcome = "FAILED: a hang"
            if pipe.poll(_SECONDS):
                try:
                    status, err, most = pipe.recv()
                except EOFError:
                    outcome = "FAILED: the process died"
                else:
                    if most > _MEMORY:
                        outcome = f"FAILED: it took {most / 2**30:.1f} GiB: {err}"
                    elif status == 0:
                        outcome = "legal"
                    else:
                        outcome = "one sentence" if one_sentence(status, err) else f"FAILED: status {status}"
                        outcome += f": {err.strip()}"
            if outcome.startswith("FAILED"):
                process.kill()
                process = None
            counts[outcome.partition(":")[0]] += 1
            took = f"{time.monotonic() - began:.1f} s"
            print(f"{number:4} {file.stem} {'flags ' * (flags is not None)}{'; '.join(said)}: {took}, {outcome[:1500]}", flush=True)
    finally:
        if process is not None:
            process.kill()
    return counts
