"""What a run survives: kill -9 at random moments, damaged working directories, full disks, and configs that make no sense.

  python experiments/benchmarks/faults.py --kills 25
  python experiments/benchmarks/faults.py --damage 100
  python experiments/benchmarks/faults.py --mutations 300
  python experiments/benchmarks/faults.py --disks 8

Each part prints its counts and exits with 1 where something was not as docs/faults.md promises; --seed draws other cases.
"""

from __future__ import annotations

import collections
import contextlib
import copy
import faulthandler
import hashlib
import io
import json
import math
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

EXPERIMENTS = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(EXPERIMENTS))
import command_line  # noqa: E402 - finds the library of a clone that is not installed

# The smallest U-Net with everything random that a run has, and a save every other step: half of the time is writing.
TRAINING = [
    *("--config", str(EXPERIMENTS / "configs" / "ddpm_digits.py")),
    "--config.system.channels=16",
    "--config.system.multipliers=(1,)",
    "--config.system.dropout=0.1",
    "--config.data.batch_size=16",
    "--config.data.crop=1",
    "--config.data.dequantize=True",
    "--config.optimizer.schedule=constant",
    "--config.training.log_every=5",
    "--config.training.checkpoint_every=2",
    "--config.training.sample_every=20",
    "--config.training.eval_every=0",
    "--config.training.eval_examples=16",
    "--config.sample.n=4",
    "--config.sample.steps=2",
]


class Failed(Exception):
    """Something was not as promised."""


def weights(workdir: pathlib.Path) -> list[bytes]:
    """The raw and the averaged parameters of the newest checkpoint, as bytes."""
    import jax
    import numpy as np

    from diffux import training

    runs = [training.load(workdir, raw=raw).variables for raw in (True, False)]
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves([runs[0].params, runs[1].ema])]


def readable(workdir: pathlib.Path) -> int | None:
    """The step that can be sampled from in a directory, or None where it says that there is none yet.

    Raises Failed where it says anything else, and where the rows of metrics cannot be read.
    """
    from diffux import training
    from diffux.training import metrics

    metrics.read(workdir)
    try:
        return training.load(workdir, warn=lambda message: None).step
    except training.UserError as error:
        if any(words in str(error) for words in ("no checkpoint yet", "holds no run", "there is no folder")):
            return None
        raise Failed(f"{workdir} is unreadable: {error}") from error


# ------------------------------------------------------------------------------------------------------------- kill -9

AIMS = ("anywhere", "a start", "a checkpoint", "its last files", "the compilation cache")


class Process:
    """A training in a process group of its own, whose output goes to a file."""

    def __init__(self, arguments: list[str], log: pathlib.Path, environment: dict[str, str]):
        self.log, self._file, self.began = log, open(log, "w"), time.time()
        command = [sys.executable, str(EXPERIMENTS / "train.py"), *arguments]
        self._process = subprocess.Popen(
            command, env=environment, stdout=self._file, stderr=subprocess.STDOUT, start_new_session=True
        )

    def status(self) -> int | None:
        return self._process.poll()

    def kill(self) -> bool:
        """Kill the whole group; false where the process had ended before."""
        if self.status() is not None:
            return False
        os.killpg(self._process.pid, signal.SIGKILL)
        return self._process.wait() == -signal.SIGKILL

    def wait(self, until, seconds: float = 300) -> bool:
        """Wait until `until()` is true; false where the process ended first. Raises Failed after `seconds`."""
        end = time.monotonic() + seconds
        while not until():
            if self.status() is not None:
                return False
            if time.monotonic() > end:
                self.kill()
                raise Failed(f"a hang: nothing came for {seconds} s, see {self.log}")
            time.sleep(0.001)
        return True

    def said(self, words: str) -> bool:
        return words in self.log.read_text()


def unfinished(workdir: pathlib.Path, since: float = 0.0) -> list[pathlib.Path]:
    """The folders of checkpoints that are being written, or were when a process was killed, touched after `since`."""
    found = []
    for path in workdir.glob("checkpoints/*.orbax-checkpoint-tmp*"):
        with contextlib.suppress(FileNotFoundError):  # it just got its final name
            found += [path] if path.stat().st_ctime > since else []
    return found


def kill_at(process: Process, aim: str, draw: random.Random, workdir: pathlib.Path, cache: pathlib.Path, start: float) -> bool:
    """Kill a process at the moment that `aim` names; false where it came to its end before."""
    if aim == "a start":
        end = time.monotonic() + draw.uniform(0, start)
        process.wait(lambda: time.monotonic() > end)
    elif aim == "the compilation cache":
        # Entries are written one after the other: stop at some of them while the youngest is still growing.
        number = draw.randint(1, 12)
        process.wait(lambda: len(list(cache.glob("compilation/*-cache"))) >= number)
    else:
        process.wait(lambda: process.said("first step after"))
        saves, seen = draw.randint(1, 6), set()

        def begun(name: str = ""):
            folders = {path.name for path in unfinished(workdir, process.began) if not name or (path / name).exists()}
            new = folders - seen
            seen.update(new)
            return bool(new) and len(seen) >= saves

        if aim == "anywhere":
            end = time.monotonic() + draw.uniform(0, 1.5)
            process.wait(lambda: time.monotonic() > end)
        else:
            process.wait(begun if aim == "a checkpoint" else lambda: begun("checksums.json"))
            time.sleep(draw.uniform(0, 0.03) if aim == "a checkpoint" else draw.uniform(0, 0.002))
    return process.kill()


def kills(count: int, seed: int, folder: pathlib.Path, steps: int = 40) -> collections.Counter:
    """Kill trainings `count` times and count the moments; every run that was killed ends as the undisturbed one."""
    draw, counts = random.Random(seed), collections.Counter()
    environment = os.environ | {"DIFFUX_CACHE": str(folder / "cache"), "JAX_PLATFORMS": "cpu"}
    os.environ["DIFFUX_CACHE"] = environment["DIFFUX_CACHE"]

    def begin(workdir, name, cache=None):
        arguments = [*TRAINING, "--workdir", str(workdir), f"--config.steps={steps}"]
        return Process(arguments, folder / f"{name}.log", environment | ({"DIFFUX_CACHE": str(cache)} if cache else {}))

    for name in ("cold", "undisturbed"):  # the first fills the cache, and the second says how long a start takes
        since, process, start = time.monotonic(), begin(folder / name, name), None
        while process.status() is None:
            if start is None and process.said("first step after"):
                start = time.monotonic() - since
            time.sleep(0.01)
        if process.status():
            raise Failed(f"the undisturbed run failed: {process.log.read_text()[-1000:]}")
    wanted = weights(folder / "undisturbed")
    print(f"undisturbed: {steps} steps, {start:.1f} s to the first of them", flush=True)

    aims = [AIMS[i % len(AIMS)] for i in range(count)]
    draw.shuffle(aims)
    run, number = 0, 0
    while aims:
        workdir, run, ended = folder / f"run{run}", run + 1, False
        while aims and not ended:
            aim, number = aims[-1], number + 1
            # A cache of its own is empty at the first start, and half-written at the next.
            cache = folder / "small" if aim == "the compilation cache" else None
            if cache is not None and draw.random() < 0.5:
                _remove(cache / "compilation")
            process = begin(workdir, f"{workdir.name}-{number}", cache)
            ended = not kill_at(process, aim, draw, workdir, cache or folder / "cache", start)
            if ended and process.status():
                raise Failed(f"a restart failed: {process.log.read_text()[-1000:]}")
            step = readable(workdir)
            if ended:
                continue
            aims.pop()
            writing = unfinished(workdir, process.began)
            phase = "training" if process.said("first step after") else "starting"
            if writing:
                sealed = any((path / "checksums.json").exists() for path in writing)
                phase = "writing a checkpoint" + ", its last files" * sealed
            elif phase == "starting" and aim == "the compilation cache":
                phase = "filling the compilation cache"
            counts[phase] += 1
            print(f"kill {sum(counts.values()):3}: while {phase}; readable at step {step}", flush=True)
        while not ended:  # left alone, the run comes to its end
            process = begin(workdir, f"{workdir.name}-last")
            process.wait(lambda: False)
            ended = True
            if process.status():
                raise Failed(f"the last restart failed: {process.log.read_text()[-1000:]}")
        if weights(workdir) != wanted:
            raise Failed(f"{workdir} ended with other parameters than the undisturbed run")
        if unfinished(workdir):
            raise Failed(f"{workdir} still holds {unfinished(workdir)}")
        print(f"{workdir.name} ended as the undisturbed run did, bit for bit", flush=True)
    return counts


# ------------------------------------------------------------------------------------------------------------- damages

# Points, radial units and a few steps: a program that compiles in a moment.
POINTS = [
    *("--config", str(EXPERIMENTS / "configs" / "diffusion2015_swiss_roll.py")),
    "--config.system.units=8",
    "--config.system.steps=8",
    "--config.data.batch_size=32",
    "--config.optimizer.schedule=constant",
    "--config.training.checkpoint_every=2",
    "--config.training.eval_every=0",
    "--config.training.eval_examples=32",
    "--config.training.sample_every=0",
    "--config.training.keep=9",
    "--config.sample.n=20",
]
# What a JSON file may hold instead of what it should.
NONSENSE = ["", "null", "[]", "{}", "3", '"words"', "{\"run\": []}", "[" * 100_000, "NaN", "{\"step\": \"six\"}", "\x00" * 64]


def _damage_file(path: pathlib.Path, draw: random.Random, how: str) -> None:
    content = path.read_bytes()
    if how == "truncated":
        path.write_bytes(content[: draw.randrange(max(1, len(content)))])
    elif how == "emptied":
        path.write_bytes(b"")
    elif how == "with a flipped bit":
        place = draw.randrange(max(1, len(content)))
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :])
    elif how == "overwritten":
        path.write_bytes(draw.randbytes(len(content)))
    elif how == "longer":
        path.write_bytes(content + draw.randbytes(10))
    elif how == "without permissions":  # which does not keep the superuser from reading
        path.chmod(0)
    else:
        path.unlink()
        if how == "a folder":
            path.mkdir()
        elif how == "a link to itself":
            path.symlink_to(path.name)
        elif how == "a link to nowhere":
            path.symlink_to("nowhere")
        elif how == "a pipe":
            os.mkfifo(path)


FILES = ["truncated", "emptied", "with a flipped bit", "overwritten", "longer", "without permissions", "deleted",
         "a folder", "a link to itself", "a link to nowhere", "a pipe"]  # fmt: skip


def _damage_json(path: pathlib.Path, draw: random.Random) -> str:
    text = draw.choice(NONSENSE)
    path.write_text(text)
    return f"{path.name} says {text[:20]!r}"


def _reseal(step: pathlib.Path) -> None:
    from diffux.training import checksums

    checksums.write(step)


def damage(workdir: pathlib.Path, kind: str, draw: random.Random) -> str:
    """Damage a copy of a run with checkpoints 2, 4 and 6 in the way of a `kind`; what was done, in words."""
    folder = workdir / "checkpoints"
    newest = folder / "6"
    hit = [newest, folder / "4", folder / "2"][: draw.choice([1, 1, 1, 2, 2, 3])]
    names = ", ".join(step.name for step in hit)
    if kind == "file":
        how = draw.choice(FILES)
        for step in hit:
            path = draw.choice(sorted(p for p in step.rglob("*") if p.is_file()))
            _damage_file(path, draw, how)
        return f"a file of {names} {how} ({path.relative_to(folder)})"
    if kind == "checksums":
        table = json.loads((newest / "checksums.json").read_text())
        name = draw.choice(sorted(table))
        change = draw.choice([
            {"../../config.json": table[name]}, {"/etc/hostname": table[name]}, {name: [10**30, table[name][1]]},
            {name: [-1, table[name][1]]}, {name: [table[name][0], None]}, {name: 3}, {name: None}, {"a\x00b": [1, "0"]},
            {"x" * 5000: [1, "0"]}, {"": [1, "0"]},
        ])  # fmt: skip
        (newest / "checksums.json").write_text(json.dumps(table | change))
        return f"6/checksums.json changed: {str(change)[:60]}"
    if kind == "fewer checksums":
        table = json.loads((newest / "checksums.json").read_text())
        kept = {} if draw.random() < 0.5 else {name: table[name] for name in table if not name.startswith("run/")}
        (newest / "checksums.json").write_text(json.dumps(kept))
        return f"6/checksums.json with {len(kept)} of {len(table)} names"
    if kind == "no checksums":
        for step in hit:
            (step / "checksums.json").unlink()
        return f"no checksums in {names}"
    if kind == "step json":
        for step in hit:
            said = _damage_json(step / draw.choice(["checksums.json", "run/metadata", "state/_METADATA"]), draw)
            if draw.random() < 0.5 and "checksums" not in said:
                _reseal(step)
                said += ", with fitting checksums"
        return f"in {names}: {said}"
    if kind == "run json":
        return _damage_json(workdir / draw.choice(["config.json", "data.json", "versions.json"]), draw)
    if kind == "run file":
        path = workdir / draw.choice(["config.json", "data.json", "versions.json", "metrics.jsonl", ".lock", "samples.png",
                                      "losses.png"])  # fmt: skip
        _damage_file(path, draw, how := draw.choice(FILES))
        return f"{path.name} {how}"
    if kind == "run folder":
        path = workdir / draw.choice(["checkpoints", "tensorboard", "samples", "checkpoints.damaged"])
        shutil.rmtree(path, ignore_errors=True)
        how = draw.choice(["a file", "a link to itself", "gone"])
        if how == "a file":
            path.write_text("not a folder")
        elif how == "a link to itself":
            path.symlink_to(path.name)
        if path.name == "checkpoints.damaged":
            (newest / "checksums.json").unlink()
        return f"{path.name} {how}"
    if kind == "metrics":
        rows = ["{", "3", "null", '{"step": "x"}', '{"step": 3, "loss": "much"}', '{"step": [1]}', "\x00", '{"step": 1e400}']
        with open(workdir / "metrics.jsonl", "ab") as file:
            file.write(draw.randbytes(50) + b"\n" + "\n".join(draw.sample(rows, 4)).encode())
        return "metrics.jsonl with rows of nonsense, the last not ended"
    if kind == "emptied step":
        for step in hit:
            shutil.rmtree(step)
            step.mkdir()
        return f"emptied {names}"
    if kind == "step is a file":
        shutil.rmtree(newest)
        newest.write_text("not a folder")
        return "6 is a file"
    if kind == "step is a link":
        shutil.rmtree(newest)
        newest.symlink_to(draw.choice(["6", "nowhere", "4", "../.."]))
        return f"6 is a link to {os.readlink(newest)}"
    if kind == "steps swapped":
        newest.rename(folder / "x")
        (folder / "4").rename(newest)
        (folder / "x").rename(folder / "4")
        return "4 and 6 swapped"
    if kind == "files swapped":
        part = draw.choice(["state", "run", "checksums.json", "state/_METADATA", "state/manifest.ocdbt", "state/ocdbt.process_0"])
        (newest / part).rename(folder / "x")
        (folder / "4" / part).rename(newest / part)
        (folder / "x").rename(folder / "4" / part)
        return f"{part} of 4 and 6 swapped"
    if kind == "copy":
        name = draw.choice(["7", "8", "100", "006", "6 (copy)", "٧", "²", "-6", "6.0", "+6", "6_0", "9" * 30])
        shutil.copytree(newest, folder / name)
        return f"6 copied to {name}"
    if kind == "garbage names":
        for name in draw.sample(["latest", "-1", "1e9", "9" * 30, "6.orbax-checkpoint", "٣", "²", " 7", "a\nb", "x" * 200], 4):
            (folder / name).mkdir()
        (folder / "8").touch()
        return "folders and files of garbage names"
    if kind == "extra files":
        for step in hit:
            (step / draw.choice([".DS_Store", "state/extra", "run/process_7.json", "run/.nfs1", "state/d/extra"])).write_text("?")
        return f"extra files in {names}"
    if kind == "leftovers":
        shutil.copytree(newest, folder / "8.orbax-checkpoint-tmp")
        (folder / "8.orbax-checkpoint-tmp" / "checksums.json").unlink()
        (folder / "7.orbax-checkpoint-tmp-1234").mkdir()
        for name in (".config.json.part", ".data.json.part", ".samples.png.part", ".writable"):
            (workdir / name).write_text("half")
        return "what a killed process leaves behind"
    if kind == "library's files":
        name = draw.choice(["_CHECKPOINT_METADATA", "commit_success.txt", "state/commit_success.txt"])
        for step in hit:
            _damage_file(step / name, draw, how := draw.choice(FILES))
        return f"{name} of {names} {how}"
    raise ValueError(kind)


KINDS = ["file", "file", "file", "file", "file", "checksums", "checksums", "fewer checksums", "no checksums", "step json",
         "step json", "step json", "run json", "run json", "run file", "run file", "run file", "run folder", "run folder",
         "metrics", "emptied step", "step is a file", "step is a link", "steps swapped", "files swapped", "files swapped", "copy",
         "copy", "garbage names", "extra files", "leftovers", "library's files", "library's files"]  # fmt: skip


def contents(workdir: pathlib.Path) -> dict[str, str]:
    """What every file holds, by its path; links and pipes by what they are."""
    found = {}
    for base, folders, files in os.walk(workdir):
        for name in [*folders, *files]:
            path = pathlib.Path(base) / name
            if path.is_symlink():
                found[str(path.relative_to(workdir))] = f"link to {os.readlink(path)}"
            elif path.is_file():
                found[str(path.relative_to(workdir))] = hashlib.sha256(path.read_bytes()).hexdigest()
            elif not path.is_dir():
                found[str(path.relative_to(workdir))] = "special"
    return found


def call(script, *arguments: str) -> tuple[int, str, str]:
    """The status, the output and the errors of a script's main function, run in this process."""
    out, err = io.StringIO(), io.StringIO()
    # A hang ends everything, with a traceback that says where.
    faulthandler.dump_traceback_later(120, exit=True)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = command_line.run(script.main, list(arguments))
    except Exception as error:
        raise Failed(f"a traceback: {type(error).__name__}: {error}") from error
    finally:
        faulthandler.cancel_dump_traceback_later()
    return status, out.getvalue(), err.getvalue()


def one_sentence(status: int, err: str) -> bool:
    return status in (2, 4) and err.startswith("error: ") and err.count("\n") == 1 and "Traceback" not in err


def damages(count: int, seed: int, folder: pathlib.Path) -> collections.Counter:
    """Damage copies of a run `count` times, continue each, and count how that ended."""
    import sample
    import train

    counts = collections.Counter()
    for name, steps in (("straight", 8), ("base", 6)):
        status, _, err = call(train, *POINTS, "--workdir", str(folder / name), f"--config.steps={steps}")
        if status:
            raise Failed(err)
    wanted = weights(folder / "straight")
    for number in range(count):
        draw = random.Random(f"{seed} {number}")
        workdir = folder / f"damaged{number}"
        shutil.copytree(folder / "base", workdir)
        kind = KINDS[number % len(KINDS)]
        did = damage(workdir, kind, draw)
        before = contents(workdir)
        try:
            outcome = _continued(workdir, before, wanted, train, sample)
        except Failed as failed:
            outcome = f"FAILED: {failed}"
        counts[outcome.partition(":")[0]] += 1
        print(f"{number:4} {did}: {outcome}", flush=True)
        if not outcome.startswith("FAILED"):
            _remove(workdir)
    return counts


def _continued(workdir: pathlib.Path, before: dict[str, str], wanted, train, sample) -> str:
    picture = str(workdir.with_suffix(".png"))
    status, out, err = call(sample, "--workdir", str(workdir), "--n", "2", "--out", picture)
    if status and not one_sentence(status, err):
        raise Failed(f"sampling ended with {status}: {out[-300:]} {err[-1000:]}")
    if contents(workdir) != before:
        raise Failed("sampling changed the working directory")
    status, out, err = call(train, *POINTS, "--workdir", str(workdir), "--config.steps=8")
    after = contents(workdir)
    if status:
        if not one_sentence(status, err):
            raise Failed(f"training ended with {status}: {out[-300:]} {err[-1000:]}")
        changed = sorted(name for name in before if before[name] != after.get(name) and name != ".lock")
        if changed:
            raise Failed(f"an error, and changed: {changed[:5]}: {err}")
        return f"one sentence, status {status}: {err.strip()[:200]}"
    if weights(workdir) != wanted:
        raise Failed("the run went on and ended with other parameters")
    started = re.search(r"continuing the run in .* at step (\d+)", out)
    started = int(started[1]) if started else 0
    warned = {int(step) for step in re.findall(r"checkpoint (\d+) in .* is damaged", out)}
    lost = {name for name, content in before.items() if name.startswith("checkpoints/") and after.get(name) != content}
    # A damaged step is moved aside as it is; a leftover of a write is no checkpoint.
    moved = {name for name in lost if _aside(name, warned, before, after)}
    if lost - moved:
        raise Failed(f"changed: {sorted(lost - moved)[:5]}")
    if not (metrics_file := workdir / "metrics.jsonl").is_file() or not metrics_file.stat().st_size:
        raise Failed("no metrics")
    how = {6: "nothing lost", 0: "begun anew"}.get(started, "an older checkpoint")
    return f"continued, {how}" + (f": warned of {sorted(warned)}" if warned else ": no warning")


def _aside(name: str, warned: set[int], before: dict[str, str], after: dict[str, str]) -> bool:
    step, _, rest = name.removeprefix("checkpoints/").partition("/")
    if ".orbax-checkpoint-tmp" in step:
        return True
    return step.isdecimal() and int(step) in warned and after.get(f"checkpoints.damaged/{step}/{rest}".rstrip("/")) == before[name]


# ----------------------------------------------------------------------------------------------------------- mutations

_MEMORY = 8 * 2**30  # what a refusal may take at most; a U-Net of 35.7 million parameters is traced in two
_SECONDS = 120  # a hang is longer; the largest networks are traced in a third of it
_VALUES = [None, math.nan, math.inf, -math.inf, -1, -(10**12), -0.5, 0, 0.0, 1, 2, 3, 1e-30, 1e30, 1e300, 10**5, 10**12,
           2**31, 2**63, 10**400, True, False, "", " ", "nonsense", "\u00e9\u4e2d\U0001f600", "a\x00b", "../..", "1", "None", [],
           [0], [1, 2], [-1], [10**12], [None], [[1]], ["a"], {}, {"a": 1}, {"name": "adam"}, [math.nan], "x" * 10_000]  # fmt: skip


def _flat(config: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in config.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def mutate(config: dict, others: list[dict], draw: random.Random) -> tuple[dict, list[str], list[str]]:
    """A config with one to three keys changed; the same changes as flags where flags can say them; and in words."""
    config, flags, said = copy.deepcopy(config), [], []
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        key = draw.choice(sorted(_flat(config)))
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
            other = _flat(draw.choice(others))
            inside[name] = copy.deepcopy(other[draw.choice(sorted(other))] if draw.random() < 0.5 else other.get(key))
            flags.append(f"--config.{key}={inside[name]}")
        elif how == 3 and sections:  # a value in the place of a section, or a section in the place of a value
            config[sections[0]] = draw.choice([None, 3, "ddpm", [], True])
            flags.append(f"--config.{sections[0]}={config[sections[0]]}")
        elif how == 4 and isinstance(value, int | float) and not isinstance(value, bool):
            inside[name] = draw.choice([-value, value + 1, value * 1000, value * 10**9, float(value) + 0.5, str(value), [value]])
            flags.append(f"--config.{key}={inside[name]}")
        else:
            inside[name] = copy.deepcopy(draw.choice(_VALUES))
            flags.append(f"--config.{key}={inside[name]}")
        said.append(flags[-1].removeprefix("--config.")[:60])
    return config, flags, said


def _misspelt(word: str, draw: random.Random) -> str:
    place = draw.randrange(len(word) + 1)
    return draw.choice([word[:place] + word[place + 1 :], word[:place] + "x" + word[place:], word.upper(), word[::-1]])


class Reached(Exception):
    """The next thing would be to compile."""


def _stand_ins() -> dict[str, tuple]:
    """The shapes and classes of the sets of the configs that have to be downloaded."""
    return {"cifar10": ((32, 32, 3), 10), "mnist": ((28, 28, 1), 10), "celeb_a": ((64, 64, 3), None),
            "folder:/path/to/ffhq": ((256, 256, 3), None)}  # fmt: skip


class _Noise:
    """Images of noise, in the place of those that are not there."""

    def __init__(self, shape, classes):
        self._shape, self._classes = shape, classes

    def __len__(self):
        return 1000

    def read(self, index):
        import numpy as np

        draw = np.random.default_rng(index)
        return draw.integers(0, 256, self._shape, dtype=np.uint8), None if self._classes is None else index % self._classes


def _reader_of_cases(pipe, folder: str) -> None:
    """Answer every (config file or None, config or flags) with (status, error, the most memory it took)."""
    import resource

    from diffux import data, training
    from diffux.training import loop

    load = data.load

    def stand_in(name, *, split="train", size=None, channels=None, **options):
        known = _stand_ins().get(name)
        if known is None or split not in ("train", "test", "validation") or channels is not None or (size is not None and size < 1):
            return load(name, split=split, size=size, channels=channels, **options)
        shape, classes = known
        shape = shape if size is None else (size, size, shape[2])
        return data.Source(_Noise(shape, classes), name=name, split=split, shape=shape, classes=classes)

    def reached(compile_program):
        with loop.explained():  # as the loop does with what compiling raises
            compile_program.__self__.lower()
        raise Reached

    loop.data.load, loop.Background = stand_in, reached
    pipe.send("ready")
    for number in iter(int, 1):
        file, config, flags = pipe.recv()

        def main(_, file=file, config=config, flags=flags, number=number):
            wanted = config if flags is None else command_line.read_config(file, flags)
            training.train(wanted, pathlib.Path(folder) / f"run{number}")
            return 0

        err = io.StringIO()
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
                status = command_line.run(main, [])
            said = err.getvalue()
        except Reached:
            status, said = 0, ""
        except BaseException as error:
            status, said = 1, "".join(traceback.format_exception(error)[-3:])
        _remove(pathlib.Path(folder) / f"run{number}")
        pipe.send((status, said, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))


def mutations(count: int, seed: int, folder: pathlib.Path) -> collections.Counter:
    """Start `count` changed configs up to the first compilation, and count how that ended."""
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    files = sorted((EXPERIMENTS / "configs").glob("*.py"))
    configs = {file: command_line.read_config(str(file), []) for file in files}
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


# --------------------------------------------------------------------------------------------------------------- disks

# In a mount namespace of its own: a small file system that fills up, then the same one with room; or one that is read only.
_FULL = """
set -u; folder=$1; size=$2; shift 2
mount -t tmpfs -o size=$size none "$folder"
"$@"; echo "status $?" >&2
mount -o remount,size=64m "$folder"
"$@"; echo "status $?" >&2
cp -a "$folder/." "$folder.left"
"""
_READ_ONLY = """
set -u; folder=$1; shift 1
mount -t tmpfs -o size=8m none "$folder"
mount -o remount,ro "$folder"
"$@"; echo "status $?" >&2
"""


def disks(count: int, seed: int, folder: pathlib.Path) -> collections.Counter:
    """Train on `count` file systems that fill up at another point each, and on one that cannot be written; then make room."""
    environment = os.environ | {"DIFFUX_CACHE": os.environ.get("DIFFUX_CACHE", str(folder / "cache"))}
    counts, draw = collections.Counter(), random.Random(seed)
    longer = ("--config.steps=20", "--config.training.keep=99")

    def train(mounted: str, name: str, *arguments: str) -> list[tuple[int, str]]:
        (folder / name).mkdir(parents=True)
        command = [sys.executable, str(EXPERIMENTS / "train.py"), *POINTS, *longer]
        done = subprocess.run(
            ["unshare", "-rm", "sh", "-c", mounted, "sh", str(folder / name), *arguments, *command, "--workdir",
             str(folder / name / "run")], env=environment, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        if "unshare:" in done.stderr or "mount:" in done.stderr:
            raise Failed(f"file systems cannot be mounted here: {done.stderr[:200]}")
        *parts, rest = re.split(r"status (\d+)\n", done.stderr)
        if rest:
            raise Failed(f"{name}: {rest[-300:]}")
        return [(int(status), err) for err, status in zip(parts[::2], parts[1::2], strict=True)]

    import train as script

    straight = folder / "straight"
    status, _, err = call(script, *POINTS, *longer, "--workdir", str(straight))
    if status:
        raise Failed(err)
    wanted, size = weights(straight), sum(path.stat().st_size for path in straight.rglob("*") if path.is_file())
    for number in range(count):
        # From too small for the first files to nearly enough.
        kib = int(size / 1024 * draw.uniform(number, number + 1) / count) + 4
        full, continued = train(_FULL, f"disk{number}", f"{kib}k")
        outcome = "one sentence, and continued with room" if full[0] else "it fitted"
        if full[0] and not one_sentence(*full):
            outcome = f"FAILED: status {full[0]}: {full[1][-1500:]}"
        elif continued[0] or weights(folder / f"disk{number}.left" / "run") != wanted:
            outcome = f"FAILED: with room, status {continued[0]}: {continued[1][-500:]}"
        counts[outcome.partition(":")[0]] += 1
        print(f"{number:4} {kib} KiB: status {full[0]}, {outcome}: {full[1].strip()[:300]}", flush=True)
    ((status, err),) = train(_READ_ONLY, "read_only")
    outcome = "read only: one sentence" if one_sentence(status, err) else f"FAILED: read only, status {status}: {err}"
    counts[outcome] += 1
    print(outcome, err.strip(), flush=True)
    return counts


def _remove(folder: pathlib.Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def report(title: str, counts: collections.Counter) -> None:
    print(f"\n{title}: {sum(counts.values())}")
    for name, number in sorted(counts.items()):
        print(f"  {number:4}  {name}")


def main(arguments) -> int:
    parser = command_line.Parser(__doc__)
    parser.add_argument("--kills", type=int, default=0, metavar="N", help="kill a training N times")
    parser.add_argument("--damage", type=int, default=0, metavar="N", help="continue a run N times whose folder was damaged")
    parser.add_argument("--mutations", type=int, default=0, metavar="N", help="start N configs with keys changed at random")
    parser.add_argument("--disks", type=int, default=0, metavar="N", help="train on N disks that fill up (Linux, needs mount)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", metavar="DIR", help="leave the runs and their output in a folder")
    flags = parser.parse_args(arguments)

    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(flags.keep or stack.enter_context(tempfile.TemporaryDirectory())).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        failed = False
        for name, part in (("damage", damages), ("mutations", mutations), ("disks", disks), ("kills", kills)):
            count = getattr(flags, name)
            if not count:
                continue
            (folder / name).mkdir(exist_ok=True)
            try:
                counts = part(count, flags.seed, folder / name)
            except Failed as error:
                print(f"FAILED: {error}", file=sys.stderr)
                failed = True
            else:
                report(name, counts)
                failed = failed or any(outcome.startswith("FAILED") for outcome in counts)
    return int(failed)


if __name__ == "__main__":
    sys.exit(command_line.run(main))
