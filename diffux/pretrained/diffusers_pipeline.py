"""Whole pipelines of diffusers as runs, and runs as pipelines: DDPMPipeline and DDIMPipeline, those of Stable Diffusion 1 and 2,
also for inpainting and for enlarging by 4, and DiTPipeline."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from diffux import parameterizations
from diffux.codecs._latents import Latents
from diffux.codecs._pasted import Pasted
from diffux.codecs._pixels import Pixels
from diffux.conditions.parts import Augmented, Worded
from diffux.errors import UserError
from diffux.fields import Field, Image, Label, Text
from diffux.fields.text import of_folder
from diffux.grids import Discrete
from diffux.guidance.threshold import StaticThreshold
from diffux.networks.clip import ClipText
from diffux.networks.dit import DiT
from diffux.networks.network import Network
from diffux.networks.stable import Stable
from diffux.pretrained import _stored, diffusers_dit, diffusers_unet, transformers_clip
from diffux.pretrained import diffusers_autoencoder as autoencoder
from diffux.pretrained._described import Described
from diffux.processes.gaussian import Posterior, Upper
from diffux.schedules import cosine_betas, scaled_linear_betas
from diffux.solvers import ddim, dpm_solver_pp_2m, plms
from diffux.solvers._ancestral import Ancestral


def holds(path: pathlib.Path) -> bool:
    """Whether a folder holds a pipeline, of these or another class."""
    return (pathlib.Path(path) / "model_index.json").is_file()


def described(path: pathlib.Path) -> Described:
    """The pipeline in a folder; UserError for one that is not known or not whole."""
    path = pathlib.Path(path)
    index = _stored.said(path, "model_index.json")
    name = index.get("_class_name")
    if name not in PIPELINES:
        raise UserError(f"{path} holds a {name}, and the pipelines that can be read are {', '.join(PIPELINES)}")
    return PIPELINES[name](path)


def _pixels(path: pathlib.Path) -> Described:
    """An unconditional model of pixels."""
    settings = _stored.said(path / "unet")
    net, report = diffusers_unet.read(path / "unet")
    config = {"system": _system(path, net.module)}
    channels = settings.get("in_channels", 3)
    if net.module.out_channels != channels or net.module.text_width is not None or net.module.classes is not None:
        raise UserError(f"the U-Net in {path} is given {channels} channels, gives {net.module.out_channels} and reads "
                        f"{', '.join(net.module.reads) or 'nothing'}: read are models of pixels alone, and as many")  # fmt: skip
    image = Image((*_sides(settings, 1), channels))
    return Described(config, {"image": image}, {"network": net.weights}, report)


def _stable(path: pathlib.Path) -> Described:
    """A model of latents that looks at a text, and perhaps at pictures beside them."""
    settings, stage = _stored.said(path / "unet"), _stored.said(path / "vae")
    net, report = diffusers_unet.read(path / "unet")
    encoder, *_ = autoencoder.built(stage)
    factor, colours, channels = 2 ** (len(encoder.widths) - 1), stage.get("in_channels", 3), settings.get("in_channels", 4)
    enlarges = (path / "low_res_scheduler").is_dir()
    known = {encoder.latent: {}, 2 * encoder.latent + 1: {"problem": "inpainting", "beside": list(HOLES)}}
    if enlarges:
        known = {encoder.latent + colours: {"problem": _enlarging(path, factor), "beside": list(LOW)}}
    if net.module.text_width is None or channels not in known:
        raise UserError(f"the U-Net in {path} is of {channels} channels, and its first stage's latents of {encoder.latent}: read "
                        f"are U-Nets of {' or '.join(map(str, known))} that look at a text")  # fmt: skip
    words = _stored.said(path / "text_encoder")
    caption = of_folder(path / "tokenizer", words.get("max_position_embeddings", 77))
    system = _system(path, net.module) | known[channels] | {"empty": caption.encode([""])[0].tolist()}
    config = {"system": system, "nets": {"first_stage": str(path / "vae"), "text": str(path / "text_encoder")}}
    image = Image((*_sides(settings, factor), colours))
    return Described(config, {"image": image, "caption": caption}, {"network": net.weights}, report)


HOLES, LOW = ("holes", "source"), ("low",)
"""The pictures beside latents of models for inpainting and for enlarging."""
NOISE = 20
"""The number of the noise level that the pipeline adds to small pictures unless it is told another."""


def _enlarging(path: pathlib.Path, factor: int) -> dict[str, Any]:
    """The problem of a model that is given a small picture with noise."""
    name, said = _scheduler(path, "low_res_scheduler")
    steps, most = said["num_train_timesteps"], _stored.said(path, "model_index.json").get("max_noise_level", 350)
    if not isinstance(most, int) or not NOISE <= most < steps:
        raise UserError(f"the max_noise_level of {path} is a whole number from {NOISE} to {steps - 1}, got {most!r}")
    return {"name": "enlarging", "by": factor, "betas": _betas_of(name, said), "steps": steps, "most": (most + 1) / steps,
            "level": (NOISE + 1) / steps}  # fmt: skip


def _dit(path: pathlib.Path) -> Described:
    """A model of latents and classes."""
    settings, stage = _stored.said(path / "transformer"), _stored.said(path / "vae")
    net, report = diffusers_dit.read(path / "transformer")
    encoder, *_ = autoencoder.built(stage)
    channels = diffusers_dit.channels(settings)
    if channels != encoder.latent:
        raise UserError(f"the transformer in {path} is of {channels} channels, and its first stage's latents of {encoder.latent}")
    config = {"system": _system(path, net.module), "nets": {"first_stage": str(path / "vae")}}
    sides, classes = _sides(diffusers_dit.DEFAULTS | settings, 2 ** (len(encoder.widths) - 1)), net.module.classes
    image = {"image": Image((*sides, stage.get("in_channels", 3)))}
    return Described(config, image | {"label": Label(classes, _names(path, classes))}, {"network": net.weights}, report)


def _names(path: pathlib.Path, classes: int) -> tuple[str, ...] | None:
    """The first of the names that a pipeline says for each class; None where it does not for all."""
    named = _stored.said(path, "model_index.json").get("id2label")
    if not isinstance(named, dict) or not all(isinstance(named.get(str(i)), str) for i in range(classes)):
        return None
    return tuple(named[str(i)].partition(",")[0].strip() for i in range(classes))


PIPELINES: dict[str, Callable[[pathlib.Path], Described]] = {
    "DDPMPipeline": _pixels, "DDIMPipeline": _pixels, "PNDMPipeline": _pixels, "StableDiffusionPipeline": _stable,
    "StableDiffusionInpaintPipeline": _stable, "StableDiffusionUpscalePipeline": _stable, "DiTPipeline": _dit,
}  # fmt: skip


def _sides(settings: Mapping[str, Any], factor: int) -> tuple[int, int]:
    side = settings.get("sample_size")
    sides = side if isinstance(side, list) else [side, side]
    if not all(isinstance(side, int) and side > 0 for side in sides):
        raise UserError(f"a U-Net's sample_size is one or two whole numbers, got {side!r}")
    return (factor * sides[0], factor * sides[1])


def network(module: Network) -> dict[str, Any]:
    """A network as a config has it: its name, and its fields that differ from their defaults."""
    plain = type(module)()
    skipped = ("parent", "name", "dtype", "param_dtype", "remat", "variance")
    own = {name: getattr(module, name) for name in module.__dataclass_fields__ if name not in skipped}
    own = {name: value for name, value in own.items() if value != getattr(plain, name)}
    fields = {name: list(value) if isinstance(value, tuple) else value for name, value in own.items()}
    return {"network": type(module).__name__.lower()} | fields


def _system(path: pathlib.Path, module: Network) -> dict[str, Any]:
    """The system as a config has it: the network, the schedule and the walk."""
    learned = {"variance": "interpolated"} if getattr(module, "variance", False) else {}
    return {"name": "ldm"} | network(module) | _schedule(path) | learned


# --- schedulers -------------------------------------------------------------------------------------------------------

BETAS = {"linear": "linear({},{})", "scaled_linear": "scaled_linear({},{})", "squaredcos_cap_v2": "cosine"}
PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x_start"}
SOLVERS = {
    "DDPMScheduler": "ancestral", "DDIMScheduler": "ddim", "PNDMScheduler": "plms", "EulerDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "euler_ancestral", "DPMSolverMultistepScheduler": "dpm_solver_pp_2m(variant='midpoint')",
}  # fmt: skip
"""Our solver of a scheduler."""
KEPT, ABOVE = ("DDIMScheduler",), ("DPMSolverMultistepScheduler",)
"""Those that go on with the noise of the estimate before it is clipped, and whose levels are `grids.discrete(above=True)`."""
_DIVIDED, _SHIFTED = ("leading", "trailing"), ("leading",)
SPACINGS = {
    "DDPMScheduler": _DIVIDED, "DDIMScheduler": _DIVIDED, "PNDMScheduler": _DIVIDED, "EulerDiscreteScheduler": _SHIFTED,
    "EulerAncestralDiscreteScheduler": _SHIFTED, "DPMSolverMultistepScheduler": ("linspace", *_DIVIDED),
}  # fmt: skip
"""Of their levels, those that ours are: by linspace the first three step to others than the next, and Euler's lie between steps."""
ONLY = {
    "rescale_betas_zero_snr": (False,), "thresholding": (False,), "skip_prk_steps": (True,),
    "use_karras_sigmas": (False, None), "use_exponential_sigmas": (False, None), "use_beta_sigmas": (False, None),
    "use_lu_lambdas": (False, None), "use_flow_sigmas": (False, None), "algorithm_type": ("dpmsolver++",), "solver_order": (2,),
    "solver_type": ("midpoint",), "final_sigmas_type": ("zero", None), "interpolation_type": ("linear",),
    "timestep_type": ("discrete",), "euler_at_final": (False,), "lower_order_final": (True,), "use_dynamic_shifting": (False,),
    "clip_sample_range": (1, 1.0),
}  # fmt: skip
"""Settings that have another value in walks that are not built here."""
DEFAULTS = {
    "DDPMScheduler": {"clip_sample": True, "timestep_spacing": "leading", "variance_type": "fixed_small"},
    "DDIMScheduler": {"clip_sample": True, "timestep_spacing": "leading", "set_alpha_to_one": True},
    "PNDMScheduler": {"timestep_spacing": "leading", "set_alpha_to_one": False, "skip_prk_steps": False},
    "EulerDiscreteScheduler": {"timestep_spacing": "linspace"},
    "EulerAncestralDiscreteScheduler": {"timestep_spacing": "linspace"},
    "DPMSolverMultistepScheduler": {"timestep_spacing": "linspace"},
}  # fmt: skip
VARIANCES = {"fixed_small": "posterior", "fixed_large": "upper"}


def _scheduler(path: pathlib.Path, folder: str = "scheduler") -> tuple[str, dict[str, Any]]:
    """(the class, its settings) of a pipeline's scheduler."""
    settings = _stored.said(path / folder, "scheduler_config.json")
    name = settings.get("_class_name")
    if name not in SOLVERS:
        raise UserError(f"{path} is walked by a {name}, and the schedulers that can be read are {', '.join(SOLVERS)}")
    both = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear", "steps_offset": 0,
            "prediction_type": "epsilon", "clip_sample": False, "variance_type": None}  # fmt: skip
    said = both | DEFAULTS[name] | {key: value for key, value in settings.items() if value is not None}
    _stored.check(name, said, ONLY | {"timestep_spacing": SPACINGS[name]})
    return name, said


def _schedule(path: pathlib.Path) -> dict[str, Any]:
    """The chain, what the network predicts, and the walk, as arguments of the system."""
    name, said = _scheduler(path)
    predicts, steps, spacing = said["prediction_type"], said["num_train_timesteps"], said["timestep_spacing"]
    if predicts not in PREDICTIONS:
        raise UserError(f"{name} with prediction_type={predicts!r} is not built here, only {', '.join(PREDICTIONS)}")
    offset = said["steps_offset"] if spacing == "leading" else 0
    found = {"steps": steps, "draws": min(50, steps), "betas": _betas_of(name, said),
             "parameterization": PREDICTIONS[predicts], "spacing": spacing, "offset": offset,
             "clip": said["clip_sample"], "kept": name in KEPT, "solver": SOLVERS[name]}  # fmt: skip
    if name in ABOVE:
        found["grid"] = f"discrete({steps},'{spacing}',{offset},{spacing != 'trailing'})"
    if not said.get("set_alpha_to_one", True):
        found["last"] = "first"
    if said["variance_type"] is not None:
        if said["variance_type"] not in VARIANCES:
            raise UserError(f"{name} with variance_type={said['variance_type']!r} is not built here, only {' or '.join(VARIANCES)}")
        found["variance"] = VARIANCES[said["variance_type"]]
    return found


def _betas_of(name: str, said: Mapping[str, Any]) -> Any:
    """The table of betas of a scheduler's settings, as a config has it."""
    table = said["beta_schedule"]
    if table not in BETAS:
        raise UserError(f"{name} with beta_schedule={table!r} is not built here, only {', '.join(BETAS)}")
    ratio = said["num_train_timesteps"] / 1000 if table == "linear" else 1  # our table is stretched to other numbers of steps
    return said.get("trained_betas", BETAS[table].format(ratio * said["beta_start"], ratio * said["beta_end"]))


# --- the way back -----------------------------------------------------------------------------------------------------

BACK = {"DDIMScheduler": ddim(), "PNDMScheduler": plms(), "DPMSolverMultistepScheduler": dpm_solver_pp_2m()}
"""Our solvers of schedulers but DDPM's, whose solver has the process in it."""


LAYOUT = "0.30.0"
"""The version of diffusers whose layout the folders have; it asks for one."""
NETWORKS: dict[type, tuple[str, Any]] = {Stable: ("unet", diffusers_unet), DiT: ("transformer", diffusers_dit)}
"""Their folder of a network, and its family."""
NAMES = {
    ("unet", False, False, ()): "DDPMPipeline", ("unet", True, True, ()): "StableDiffusionPipeline",
    ("unet", True, True, HOLES): "StableDiffusionInpaintPipeline", ("unet", True, True, LOW): "StableDiffusionUpscalePipeline",
    ("transformer", True, False, ()): "DiTPipeline",
}  # fmt: skip
"""The pipelines by the network's folder, whether they are of latents, whether of a text, and the pictures beside x."""


def written(system: Any, fields: Mapping[str, Field]) -> dict[str, Any]:
    """{file of the folder: a JSON object, a text, or (name, array) of tensors} of a frozen system of latents or of pixels.

    Raises UserError for a system that none of their pipelines is.
    """
    net, image = getattr(system.network, "merged", system.network), fields[system.data]
    if type(net.module) not in NETWORKS:
        known = " or ".join(network.__name__ for network in NETWORKS)
        raise UserError(f"a pipeline of diffusers is on the network {known}, and this model is on a {type(net.module).__name__}")
    place, family = NETWORKS[type(net.module)]
    codec = system.codec.codec if isinstance(system.codec, Pasted) else system.codec
    latent, beside = isinstance(codec, Latents), tuple(getattr(net.module, "beside", ()))
    texts = [part for part in system.given.parts if isinstance(part, Worded)]
    name = NAMES.get((place, latent, bool(texts), beside))
    if name is None or not (latent or isinstance(codec, Pixels)):
        raise UserError("the pipelines of diffusers that can be written are of pixels alone, of latents and a text, also for "
                        "inpainting and enlarging, and a DiT's of latents and classes")  # fmt: skip
    factor, channels = (codec.factor, codec.encoder.module.latent) if latent else (1, image.shape[-1])
    settings, tensors = family.written(net, channels + {HOLES: channels + 1, LOW: image.shape[-1]}.get(beside, 0))
    files = _files(place, settings | {"sample_size": family.size([side // factor for side in image.shape[:2]])}, tensors)
    files["scheduler/scheduler_config.json"] = walk = _walked(system)
    if (name, walk["_class_name"]) == ("DDPMPipeline", "DDIMScheduler"):
        name = "DDIMPipeline"
    index: dict[str, Any] = {"_class_name": name, "_diffusers_version": LAYOUT, place: ["diffusers", settings["_class_name"]],
                             "scheduler": ["diffusers", walk["_class_name"]]}  # fmt: skip
    if latent:
        settings, tensors = autoencoder.written(codec, image.shape[-1])
        files |= _files("vae", settings, tensors)
        index["vae"] = ["diffusers", settings["_class_name"]]
    if texts:
        files |= _spoken(texts[0], fields)
        index |= {"text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
                  "safety_checker": [None, None], "feature_extractor": [None, None]}  # fmt: skip
        index |= {} if beside == LOW else {"requires_safety_checker": False}
    names = getattr(fields.get("label"), "names", None)
    index |= {"id2label": dict(enumerate(names))} if names else {}
    for part in system.given.parts:
        if isinstance(part, Augmented):
            betas = part.process.schedule.betas()
            low = {"_class_name": "DDPMScheduler", "num_train_timesteps": len(betas), **_betas(betas)}
            files["low_res_scheduler/scheduler_config.json"] = low
            index |= {"low_res_scheduler": ["diffusers", "DDPMScheduler"], "max_noise_level": round(part.most * len(betas)) - 1}
    return files | {"model_index.json": index}


def _files(folder: str, settings: dict[str, Any], tensors: Any, stem: str = "diffusion_pytorch_model") -> dict[str, Any]:
    return {f"{folder}/config.json": settings, f"{folder}/{stem}.safetensors": tensors}


def _spoken(part: Worded, fields: Mapping[str, Field]) -> dict[str, Any]:
    """The text encoder and its tokenizer."""
    caption, net = fields.get(part.name), part.net
    if not isinstance(net.module, ClipText) or not isinstance(caption, Text):
        raise UserError("a StableDiffusionPipeline reads its text by CLIP with a tokenizer, and this model by "
                        f"{type(net.module).__name__} and {type(caption).__name__}")  # fmt: skip
    settings, tensors = transformers_clip.written(net.replace(module=net.module.clone(only=None, projection=None)))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": caption.length} | caption.signs()
    return _files("text_encoder", settings, tensors, "model") | {
        "tokenizer/tokenizer.json": caption.tokenizer, "tokenizer/tokenizer_config.json": about}  # fmt: skip


def _walked(system: Any) -> dict[str, Any]:
    """Their scheduler of the system's chain and walk."""
    name = "DDPMScheduler" if isinstance(system.solver, Ancestral) else next(
        (name for name, solver in BACK.items() if system.solver == solver), None)  # fmt: skip
    grid, chain = system.grid, system.process.schedule
    predicts = {getattr(parameterizations, ours): theirs for theirs, ours in PREDICTIONS.items()}.get(
        getattr(system.parameterization, "parameterization", None))  # fmt: skip
    variance = {Posterior: "fixed_small", Upper: "fixed_large"}.get(type(system.process.variance))
    fits = isinstance(grid, Discrete) and grid.spacing in SPACINGS.get(name, ())
    fits = fits and grid.above == (name in ABOVE and grid.spacing != "trailing")
    fits = fits and (grid.last == "clean" or name in ("DDIMScheduler", "PNDMScheduler"))
    fits = fits and hasattr(chain, "betas") and not (variance is None and isinstance(system.solver, Ancestral))
    if None in (name, predicts) or not fits:
        raise UserError(f"a pipeline of diffusers walks a chain by a DDPMScheduler or {', '.join(BACK)}, and this one is walked by "
                        f"{type(system.solver).__name__} along {type(grid).__name__}")  # fmt: skip
    found: dict[str, Any] = {
        "_class_name": name, "num_train_timesteps": grid.steps, "prediction_type": predicts, "timestep_spacing": grid.spacing,
        "steps_offset": grid.offset, **_betas(chain.betas()),
    }  # fmt: skip
    clips = [part for part in system.guidance if isinstance(part, StaticThreshold)]
    if any(part.kept != (name in KEPT) for part in clips) or (clips and name not in ("DDPMScheduler", "DDIMScheduler")):
        raise UserError(f"a {name} does not clip as this model's walk does, see `kept` of static_threshold")
    if name in ("DDPMScheduler", "DDIMScheduler"):
        found["clip_sample"] = bool(clips)
    if name in ("DDIMScheduler", "PNDMScheduler"):
        found["set_alpha_to_one"] = grid.last == "clean"
    return found | ({"variance_type": variance} if name == "DDPMScheduler" else {}) | (
        {"skip_prk_steps": True} if name == "PNDMScheduler" else {})  # fmt: skip


def _betas(betas: np.ndarray) -> dict[str, Any]:
    """A table of betas by the name that they have for it, where they have one."""
    low, high = (float(f"{beta:.4g}") for beta in betas[[0, -1]])
    n = len(betas)
    tables = {"linear": np.linspace(low, high, n), "scaled_linear": scaled_linear_betas(n, low, high),
              "squaredcos_cap_v2": cosine_betas(n)}  # fmt: skip
    for name, table in tables.items():
        if np.allclose(table, betas, rtol=1e-3, atol=1e-6):
            return {"beta_schedule": name, "beta_start": low, "beta_end": high}
    return {"trained_betas": betas.tolist()}
