"""What the benchmarks share: interleaved timing, tables, diffusers' U-Net, and the JSON files in results/.

Not a script: see training.py and sampling.py.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

EXPERIMENTS = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(EXPERIMENTS))
import door  # noqa: E402, F401 - finds the library of a clone that is not installed

from diffux import data, training  # noqa: E402
from diffux.cli import _config  # noqa: E402
from diffux.data.captioned_shapes import scenes  # noqa: E402
from diffux.evaluation import judges  # noqa: E402
from diffux.evaluation.captioned_shapes import attributes  # noqa: E402
from diffux.evaluation.frechet import feature_distance, moments  # noqa: E402
from diffux.evaluation.images import CONFIDENT, eight_bit  # noqa: E402
from diffux.files import aside  # noqa: E402
from diffux.runs.run import Run  # noqa: E402

CONSOLE = Console()


def paired(functions: dict, repeats: int, title: str) -> dict:
    """Seconds (repeats,) of each function and of its reference, from {name: (function, reference)}.

    The two follow each other at once, in turn first, so that what slows the machine for a while slows both; a first
    round is not counted.
    """
    times: dict = {name: ([], []) for name in functions}
    for turn in track(range(-1, repeats), title, console=CONSOLE):
        for name, pair in functions.items():
            for place in (0, 1) if turn % 2 else (1, 0):
                begin = time.perf_counter()
                jax.block_until_ready(pair[place]())
                times[name][place].append(time.perf_counter() - begin)
    return {name: tuple(np.asarray(values[1:]) for values in both) for name, both in times.items()}


def spread(values) -> dict:
    low, median, high = np.percentile(values, [25, 50, 75])
    return {"median": float(median), "quartiles": [float(low), float(high)], "n": len(values)}


def shown(figures: dict, digits: int = 1) -> str:
    low, high = figures["quartiles"]
    return f"{figures['median']:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def cost(command: list[str]) -> dict[str, float]:
    """The seconds of a Python command, start included, and the most memory that it held, in GB; `own` is that without mapped files,
    which the system takes back when it needs room.

    Both are read from /proc while it runs: what the system says of an ended process includes its parent's.
    """
    begin, most = time.perf_counter(), {"VmHWM": 0, "RssAnon": 0}
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
    while process.poll() is None:
        with contextlib.suppress(OSError):
            lines = pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines()
            said = {name: rest for name, _, rest in (line.partition(":") for line in lines)}
            most = {name: max(before, int(said.get(name, "0").split()[0])) for name, before in most.items()}
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"`{' '.join(command)}` ended with {process.returncode}")
    memory, own = (kilobytes * 1024 / 1e9 for kilobytes in most.values())
    return {"seconds": time.perf_counter() - begin, "memory": memory, "own": own}


def verdict(met: bool) -> str:
    return "met" if met else "missed"


def table(title: str, *columns: str) -> Table:
    """A table of named rows, with these columns of figures."""
    made = Table(title=title)
    made.add_column(no_wrap=True)
    for column in columns:
        made.add_column(column, justify="right")
    return made


def peers():
    """(torch, diffusers, device of the torch side), or None with a sentence that says what is missing."""
    try:
        import diffusers
        import torch
    except ImportError as error:
        CONSOLE.print(f"{error.name} is not installed, so the comparison with diffusers is left out.")
        return None
    return torch, diffusers, "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"


def parser(doc: str) -> argparse.ArgumentParser:
    """The flags of a script that trains what it measures."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--runs", type=pathlib.Path, required=True, help="where the runs are, or will be")
    made.add_argument("--out", type=pathlib.Path, help="the JSON file, by default in results/")
    return made


def judged(dataset: str) -> tuple[Callable[[np.ndarray], dict], dict, str]:
    """(images in [0, 1] and, if known, their labels -> their figures, those of the held-out images, the judge's name) by the
    classifier of a data set: the Frechet distance of its features to the training split's, the share that it recognises, and the
    share that is what the labels say."""
    source = data.load(dataset, split="train")
    judge = judges.judge(source, print)
    train, test = (data.arrays(one, len(one)) for one in (source, data.load(dataset, split="test")))
    against = moments(judge(eight_bit(train["image"] / np.float32(255)))[1])

    def figures(images, labels=None):
        probabilities, features = judge(eight_bit(images))
        return {"frechet": float(feature_distance(moments(features), against)),
                "recognisable": float(np.mean(probabilities.max(1) >= CONFIDENT))} | (
                    {} if labels is None else {"as asked": float(np.mean(probabilities.argmax(1) == labels))})  # fmt: skip

    return figures, figures(test["image"] / np.float32(255), test["label"]), judge.name


def captions(n: int, kinds: Sequence[str]) -> list[str]:
    """n captions of one thing, "a red circle", of each kind in turn."""
    asked = (kinds[(7 * i) % len(kinds)] for i in range(n))
    return [f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}" for kind in asked]


def obeyed(images: np.ndarray, asked: Sequence[str]) -> dict:
    """The shares of images of captioned_shapes with the colour, the shape, and both of what `captions` asked; the shape's for each
    shape, and the median of how well what is drawn is any shape at all."""
    seen = attributes(images)
    colour, shape = ([one.split()[at] for one in asked] for at in (1, 2))
    right = {"colour": np.array([tuple(scenes.COLOURS).index(one) for one in colour]) == seen["colour"],
             "shape": np.array([scenes.SHAPES.index(one) for one in shape]) == seen["shape"]}  # fmt: skip
    right["both"] = right["colour"] & right["shape"]
    each = {name: float(np.mean(right["shape"][[one == name for one in shape]])) for name in scenes.SHAPES if name in shape}
    shares = {name: float(np.mean(one)) for name, one in right.items()}
    return shares | {"shapes": each, "agreement": float(np.median(seen["agreement"]))}


def config_of(name: str, *overrides: str) -> dict:
    """A config of experiments/configs, with overrides as `train.py` has them."""
    file, colon, part = name.partition(":")
    return _config.read(str(EXPERIMENTS / "configs" / f"{file}.py") + colon + part, overrides)


def run(folder: pathlib.Path, name: str, config: str, *overrides: str) -> Run:
    """The trained run of a config, trained here if it is not in the folder; a run that is finished is left as it is."""
    training.train(config_of(config, *overrides), folder / name)
    return training.load(folder / name)


def unet_of_diffusers(diffusers, dropout: float = 0.0):
    """The 35.7 M network of DDPM (Ho et al., 2020), with random weights."""
    return diffusers.UNet2DModel(
        sample_size=32, layers_per_block=2, block_out_channels=(128, 256, 256, 256), downsample_padding=0, dropout=dropout,
        flip_sin_to_cos=False, freq_shift=1, attention_head_dim=None, norm_num_groups=32,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip


def device() -> str:
    return jax.devices()[0].device_kind


def processor() -> str:
    """The processor's name, where the system tells it."""
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())
    return platform.processor() or platform.machine()


def circumstances() -> dict:
    versions = {}
    for name in ("jax", "flax", "numpy", "torch", "diffusers"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"device": device(), "backend": jax.default_backend(), "processor": processor(), "processors": os.cpu_count(),
            "versions": versions,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "load": os.getloadavg()[0]}  # fmt: skip


def results(name: str, out: pathlib.Path | None = None) -> pathlib.Path:
    """The JSON file of a benchmark: `out`, or results/<name>_<device kind>.json beside this file."""
    return out or EXPERIMENTS / "benchmarks" / "results" / f"{name}_{device().replace(' ', '_').lower()}.json"


def recorded(name: str, out: pathlib.Path | None = None) -> dict:
    """What is in the JSON file of a benchmark."""
    file = results(name, out)
    return json.loads(file.read_text()) if file.exists() else {}


def record(name: str, parts: Mapping[str, Callable[[], dict]], out: pathlib.Path | None = None) -> dict:
    """Run the parts and write what each returns to the JSON file `results`; all that is in the file then. Parts that did not run
    stay as they are in it, and those that ran on another processor stay beside the new ones, as "<part> on <processor>"."""
    file, found = results(name, out), recorded(name, out)
    for part, run in parts.items():
        begin, before = circumstances(), found.pop(part, None)
        if before and (other := before.get("processor", "an unnamed processor")) != begin["processor"]:
            found[f"{part} on {other}"] = before
        found[part] = begin | {"load_after": None} | run()
        found[part]["load_after"] = os.getloadavg()[0]
        file.parent.mkdir(parents=True, exist_ok=True)
        with aside(file) as written:
            written.write_text(json.dumps(found, indent=1) + "\n")
    CONSOLE.print(f"written to {file}")
    return found
