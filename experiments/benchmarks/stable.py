"""Stable Diffusion 1 in its own shapes, with random weights: what loading the folder costs, and one guided step.

  python experiments/benchmarks/stable.py --folder runs/stable

Writes the folder, 4.3 GB, unless it is there, as diffusers would have saved it, and results/stable_cpu.json. "load" is
`training.load` alone; "step" is the command for one picture of 512x512 pixels in one step, start and compilation included. Memory
is the most that the process held, "own" without mapped files; "share" is what loading adds to the latter, over the weights' size.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
from typing import Any

import harness
import jax
import numpy as np
from safetensors.numpy import save_file

from diffux.codecs import latents
from diffux.networks import clip, stable
from diffux.networks.autoencoder import ImageDecoder, ImageEncoder
from diffux.pretrained import diffusers_autoencoder, diffusers_unet, transformers_clip
from diffux.types import Net

SCHEDULER = {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
             "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}  # fmt: skip


def random(shapes: Any) -> Any:
    """Weights that keep the scale of what goes through them."""
    rng = np.random.default_rng(0)
    scale = lambda like: math.prod(like.shape[:-1]) ** -0.5 if len(like.shape) > 1 else 0.02  # noqa: E731
    return jax.tree.map(lambda like: np.float32(scale(like)) * rng.standard_normal(like.shape, np.float32), shapes)


def write(folder: pathlib.Path) -> None:
    """The folder of a whole pipeline."""
    unet, text, stages = stable.stable_1(), clip.clip_text_l(), (ImageEncoder(), ImageDecoder())
    shapes = diffusers_autoencoder.shapes(*stages, None)
    nets = [Net(module, random(shapes[name])) for module, name in zip(stages, ("encoder", "decoder"), strict=True)]
    parts = {
        "unet": diffusers_unet.written(Net(unet, random(diffusers_unet.shapes(unet, {"_class_name": "UNet2DConditionModel"}))), 4),
        "vae": diffusers_autoencoder.written(latents(*nets, scale=0.18215)),
        "text_encoder": transformers_clip.written(Net(text, random(transformers_clip.shapes(text)))),
    }
    for name, (settings, tensors) in parts.items():
        (folder / name).mkdir(parents=True)
        save_file(dict(tensors), folder / name / "model.safetensors")
        (folder / name / "config.json").write_text(json.dumps(settings | ({"sample_size": 64} if name == "unet" else {})))
    signs = [chr(i) for i in range(33, 127)]
    words = [*signs, *(f"{sign}</w>" for sign in signs), "<|startoftext|>", "<|endoftext|>"]
    files = {"tokenizer/vocab.json": json.dumps({word: i for i, word in enumerate(words)}),
             "tokenizer/merges.txt": "#version: 0.2\n", "scheduler/scheduler_config.json": json.dumps(SCHEDULER)}  # fmt: skip
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))


def measure(folder: pathlib.Path) -> dict[str, Any]:
    if not (folder / "model_index.json").exists():
        write(folder)
    start = "import sys; sys.path.insert(0, sys.argv[1]); from diffux import training; import jax; jax.devices(); "
    root = str(harness.EXPERIMENTS.parent)
    asked = ["--given", "caption=a red cat", "--guidance", "classifier_free(7.5)", "--steps", "1", "--n", "1", "--batch", "1"]
    step = ["-m", "diffux", "sample", "--pretrained", str(folder), *asked, "--out", str(folder / "one.png")]
    found = {
        "start": harness.cost(["-c", start, root]),
        "load": harness.cost(["-c", start + "training.load(sys.argv[2])", root, str(folder)]),
        "step": harness.cost(step),
    }
    weights = sum(file.stat().st_size for file in folder.rglob("*.safetensors")) / 1e9
    harness.CONSOLE.print(f"weights {weights:.2f} GB", found)
    return found | {"weights": weights, "share": (found["load"]["own"] - found["start"]["own"]) / weights}


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="where the pipeline is, or will be")
    parser.add_argument("--out", type=pathlib.Path, help="the JSON file, by default in results/")
    options = parser.parse_args(arguments)
    harness.record("stable", {"stable_1": lambda: measure(options.folder)}, options.out)


if __name__ == "__main__":
    main()
