"""Damaged working directories: each is continued, or refused in one sentence, and nothing good in it changes.

Not a script: `run.py --damage N`.
"""

from __future__ import annotations

import collections
import hashlib
import json
import os
import pathlib
import random
import re
import shutil

from stress.harness import POINTS, Failed, call, one_sentence, remove, weights

# What a JSON file may hold instead of what it should.
NONSENSE = ["", "null", "[]", "{}", "3", '"words"', '{"run": []}', "[" * 100_000, "NaN", '{"step": "six"}', "\x00" * 64]


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
    from diffux.runs import checksums

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


def damages(count: int, seed: int, folder: pathlib.Path) -> collections.Counter:
    """Damage copies of a run `count` times, continue each, and count how that ended."""
    counts = collections.Counter()
    for name, steps in (("straight", 8), ("base", 6)):
        status, _, err = call("train", *POINTS, "--workdir", str(folder / name), f"--config.steps={steps}")
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
            outcome = _continued(workdir, before, wanted)
        except Failed as failed:
            outcome = f"FAILED: {failed}"
        counts[outcome.partition(":")[0]] += 1
        print(f"{number:4} {did}: {outcome}", flush=True)
        if not outcome.startswith("FAILED"):
            remove(workdir)
    return counts


def _continued(workdir: pathlib.Path, before: dict[str, str], wanted) -> str:
    picture = str(workdir.with_suffix(".png"))
    status, out, err = call("sample", "--workdir", str(workdir), "--n", "2", "--out", picture)
    if status and not one_sentence(status, err):
        raise Failed(f"sampling ended with {status}: {out[-300:]} {err[-1000:]}")
    if contents(workdir) != before:
        raise Failed("sampling changed the working directory")
    status, out, err = call("train", *POINTS, "--workdir", str(workdir), "--config.steps=8")
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
