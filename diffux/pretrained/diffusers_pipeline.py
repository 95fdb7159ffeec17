"""Whole pipelines of diffusers as runs, and runs as pipelines: DDPMPipeline and DDIMPipeline, and StableDiffusionPipeline of Stable
Diffusion 1 and 2."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from diffux import parameterizations
from diffux.codecs._latents import Latents
from diffux.codecs._pixels import Pixels
from diffux.conditions.parts import Encoded
from diffux.errors import UserError
from diffux.fields import Field, Image, Text
from diffux.fields.text import of_folder
from diffux.grids import Discrete
from diffux.guidance.threshold import StaticThreshold
from diffux.networks.clip import ClipText
from diffux.networks.stable import Stable
from diffux.pretrained import _stored, _table, diffusers_unet, transformers_clip
from diffux.pretrained import diffusers_autoencoder as autoencoder
from diffux.processes.gaussian import Posterior, Upper
from diffux.schedules import cosine_betas, scaled_linear_betas
from diffux.solvers import ddim, dpm_solver_pp_2m, plms
from diffux.solvers._ancestral import Ancestral


class Described(NamedTuple):
    """A model of others as a run of ours: its config, the fields of its data, its parameters, and what became of their tensors."""

    config: dict[str, Any]
    fields: dict[str, Field]
    params: dict[str, Any]
    report: _table.Report


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
    config = {"system": {"name": "ldm"} | _network(net.module) | _schedule(path)}
    channels = settings.get("in_channels", 3)
    if net.module.out_channels != channels or net.module.text_width is not None or net.module.classes is not None:
        raise UserError(f"the U-Net in {path} is given {channels} channels, gives {net.module.out_channels} and reads "
                        f"{', '.join(net.module.reads) or 'nothing'}: read are models of pixels alone, and as many")  # fmt: skip
    image = Image((*_sides(settings, 1), channels))
    return Described(config, {"image": image}, {"network": net.weights}, report)


def _stable(path: pathlib.Path) -> Described:
    """A model of latents that looks at a text."""
    settings, stage = _stored.said(path / "unet"), _stored.said(path / "vae")
    net, report = diffusers_unet.read(path / "unet")
    encoder, *_ = autoencoder.built(stage)
    if net.module.text_width is None or settings.get("in_channels", 4) != encoder.latent:
        raise UserError(f"the U-Net in {path} is of {settings.get('in_channels', 4)} channels, and its first stage's latents of "
                        f"{encoder.latent}: models of a picture beside the latents are not read")  # fmt: skip
    words = _stored.said(path / "text_encoder")
    caption = of_folder(path / "tokenizer", words.get("max_position_embeddings", 77))
    system = {"name": "ldm", "empty": caption.encode([""])[0].tolist()} | _network(net.module) | _schedule(path)
    config = {"system": system, "nets": {"first_stage": str(path / "vae"), "text": str(path / "text_encoder")}}
    sides = _sides(settings, 2 ** (len(encoder.widths) - 1))
    image = Image((*sides, stage.get("in_channels", 3)))
    return Described(config, {"image": image, "caption": caption}, {"network": net.weights}, report)


PIPELINES: dict[str, Callable[[pathlib.Path], Described]] = {
    "DDPMPipeline": _pixels, "DDIMPipeline": _pixels, "PNDMPipeline": _pixels, "StableDiffusionPipeline": _stable,
}  # fmt: skip


def _sides(settings: Mapping[str, Any], factor: int) -> tuple[int, int]:
    side = settings.get("sample_size")
    sides = side if isinstance(side, list) else [side, side]
    if not all(isinstance(side, int) and side > 0 for side in sides):
        raise UserError(f"a U-Net's sample_size is one or two whole numbers, got {side!r}")
    return (factor * sides[0], factor * sides[1])


def _network(network: Stable) -> dict[str, Any]:
    """The fields of the network that differ from its defaults, as a config has them."""
    plain = Stable()
    skipped = ("parent", "name", "dtype", "param_dtype", "remat")
    own = {name: getattr(network, name) for name in Stable.__dataclass_fields__ if name not in skipped}
    own = {name: value for name, value in own.items() if value != getattr(plain, name)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in own.items()}


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


def _scheduler(path: pathlib.Path) -> tuple[str, dict[str, Any]]:
    """(the class, its settings) of a pipeline's scheduler."""
    settings = _stored.said(path / "scheduler", "scheduler_config.json")
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
    table, predicts = said["beta_schedule"], said["prediction_type"]
    if table not in BETAS or predicts not in PREDICTIONS:
        raise UserError(f"{name} with beta_schedule={table!r} and prediction_type={predicts!r} is not built here, only "
                        f"{', '.join(BETAS)} and {', '.join(PREDICTIONS)}")  # fmt: skip
    steps, spacing = said["num_train_timesteps"], said["timestep_spacing"]
    offset = said["steps_offset"] if spacing == "leading" else 0
    ratio = steps / 1000 if table == "linear" else 1  # our table is stretched to other numbers of steps
    named = BETAS[table].format(ratio * said["beta_start"], ratio * said["beta_end"])
    found = {"steps": steps, "betas": said.get("trained_betas", named),
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


# --- the way back -----------------------------------------------------------------------------------------------------

BACK = {"DDIMScheduler": ddim(), "PNDMScheduler": plms(), "DPMSolverMultistepScheduler": dpm_solver_pp_2m()}
"""Our solvers of schedulers but DDPM's, whose solver has the process in it."""


def written(system: Any, fields: Mapping[str, Field]) -> dict[str, Any]:
    """{file of the folder: a JSON object, a text, or (name, array) of tensors} of a frozen system of latents or of pixels.

    Raises UserError for a system that none of their pipelines is.
    """
    net, image = system.network, fields[system.data]
    if not isinstance(net.module, Stable):
        raise UserError(f"a pipeline of diffusers is on the network stable, and this model is on a {type(net.module).__name__}")
    latent = isinstance(system.codec, Latents)
    texts = [part for part in system.given.parts if isinstance(part, Encoded)]
    if latent != bool(texts) or not (latent or isinstance(system.codec, Pixels)):
        raise UserError("the pipelines of diffusers that can be written are of pixels alone, or of latents and a text")
    first = system.codec.encoder.module if latent else None
    factor, channels = (2 ** (len(first.widths) - 1), first.latent) if latent else (1, image.shape[-1])
    settings, tensors = diffusers_unet.written(net, channels)
    files = _files("unet", settings | {"sample_size": [side // factor for side in image.shape[:2]]}, tensors)
    files["scheduler/scheduler_config.json"] = walk = _walked(system)
    name = "DDIMPipeline" if walk["_class_name"] == "DDIMScheduler" else "DDPMPipeline"
    index: dict[str, Any] = {"_class_name": name, "unet": ["diffusers", settings["_class_name"]],
                             "scheduler": ["diffusers", walk["_class_name"]]}  # fmt: skip
    if latent:
        settings, tensors = autoencoder.written(system.codec, image.shape[-1])
        files |= _files("vae", settings, tensors)
        files |= _spoken(texts[0], fields)
        index |= {"_class_name": "StableDiffusionPipeline", "vae": ["diffusers", settings["_class_name"]],
                  "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
                  "safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False}  # fmt: skip
    return files | {"model_index.json": index}


def _files(folder: str, settings: dict[str, Any], tensors: Any, stem: str = "diffusion_pytorch_model") -> dict[str, Any]:
    return {f"{folder}/config.json": settings, f"{folder}/{stem}.safetensors": tensors}


def _spoken(part: Encoded, fields: Mapping[str, Field]) -> dict[str, Any]:
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
    if None in (name, predicts, variance) or not fits or not hasattr(chain, "betas"):
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
