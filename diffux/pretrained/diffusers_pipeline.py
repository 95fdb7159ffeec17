"""Whole pipelines of diffusers as runs: DDPMPipeline and DDIMPipeline, and StableDiffusionPipeline of Stable Diffusion 1 and 2."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from diffux.errors import UserError
from diffux.fields import Field, Image
from diffux.fields.text import of_folder
from diffux.networks.stable import Stable
from diffux.pretrained import _stored, _table, diffusers_unet
from diffux.pretrained import diffusers_autoencoder as autoencoder


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
    sides = _sides(settings, 1)
    image = Image((*sides, settings.get("in_channels", 3)), None)
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
    image = Image((*sides, stage.get("in_channels", 3)), None)
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
ONLY = {
    "trained_betas": (None,), "rescale_betas_zero_snr": (False,), "thresholding": (False,), "skip_prk_steps": (True,),
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
    "PNDMScheduler": {"timestep_spacing": "leading", "set_alpha_to_one": False},
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
    _stored.check(name, settings, ONLY)
    both = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear", "steps_offset": 0,
            "prediction_type": "epsilon", "clip_sample": False, "variance_type": None}  # fmt: skip
    return name, both | DEFAULTS[name] | {key: value for key, value in settings.items() if value is not None}


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
    found = {"steps": steps, "betas": BETAS[table].format(ratio * said["beta_start"], ratio * said["beta_end"]),
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
