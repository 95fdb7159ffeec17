"""A trained model from its working directory: what sampling and evaluation begin with."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffux.systems.base import Variables, init
from diffux.training import checkpoint, parts, workdir
from diffux.training.cache import use_compilation_cache
from diffux.training.errors import UserError, explained


@dataclasses.dataclass(frozen=True)
class Run:
    """A run as it was saved: `shape` is that of an example, (H, W, C) of an image; `variables.ema` is None where raw
    weights were wanted."""

    config: dict[str, Any]
    system: Any
    variables: Variables
    shape: tuple[int, ...]
    step: int


def load(directory: Any, *, raw: bool = False, step: int | str = "last", warn: Callable[[str], None] = print) -> Run:
    """The system and the weights of the run in `directory`: the averaged ones, or the `raw` ones of the last step.

    step: "last", "best" (by held-out loss), or a step that has a checkpoint. Damaged checkpoints are passed over with
    a warning, and nothing is written. Raises UserError where the directory has no run or no such whole checkpoint.

    Example:
        >>> run = load("runs/digits")                                                    # doctest: +SKIP
        >>> generate(sample_keys(0, 0, 4), run.system, run.variables, (4, *run.shape)).x  # doctest: +SKIP
    """
    path = pathlib.Path(directory).expanduser().absolute()
    config = workdir.saved_config(path)
    if config is None:
        raise UserError(f"{path} holds no run" if path.is_dir() else f"there is no folder {path}")
    use_compilation_cache()
    step = _step(path, step, warn)
    config = checkpoint.about(path, step)["config"]
    system, about = parts.system(config["system"], config.get("compute")), workdir.data(path)
    shape = tuple(about["shape"])
    example = {about["field"]: jnp.zeros((1, *shape), about["dtype"])}
    batch = example | ({} if about["classes"] is None else {"label": jnp.zeros(1, jnp.int32)})
    with explained():
        variables = init(jax.random.key(0), system, batch)
    where = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=where), variables.params)
    name = "params" if raw else "ema"
    restored = checkpoint.restore(path, step, {name: target})[name]
    return Run(config, system, Variables(restored, variables.frozen, None if raw else restored), shape, step)


def _step(path: pathlib.Path, step: int | str, warn) -> int:
    if step == "best":
        chosen = checkpoint.best(path)
        if chosen is None:
            raise UserError(f"no whole checkpoint in {path} has a held-out loss")
        return chosen
    if step == "last":
        chosen = checkpoint.newest_good(path, warn)
        if chosen is None:
            raise UserError(f"the run in {path} has no checkpoint yet")
        return chosen
    if step not in checkpoint.steps(path):
        raise UserError(f"{path} has no checkpoint of step {step}; there are: {checkpoint.steps(path)}, 'last', 'best'")
    wrong = checkpoint.fault(path, step)
    if wrong is not None:
        raise UserError(f"checkpoint {step} in {path} is damaged: {wrong}")
    return step
