"""A trace of a few training steps, as TensorBoard and Perfetto read it."""

from __future__ import annotations

import importlib.util
import pathlib
from collections.abc import Callable

import jax

from diffux.errors import UserError

WARM_UP = 3
"""Steps of a run before the trace begins: the first waits for the compiler, the next fill the queues."""


def check(left: int) -> None:
    """Raise UserError where none of the steps that are `left` would be traced, and where a trace would end the process: libtpu's
    part of the profiler crashes on a host without TPUs."""
    if left <= WARM_UP:
        raise UserError(f"a trace begins after {WARM_UP} steps, and {left} are left of this run: a larger training.steps, or no "
                        "--profile")  # fmt: skip
    if importlib.util.find_spec("libtpu") and jax.default_backend() != "tpu" and not jax.config.jax_platforms:
        raise UserError("libtpu is installed and this host has no TPU, which crashes JAX's profiler: set JAX_PLATFORMS="
                        f"{jax.default_backend()} for --profile, or pip uninstall libtpu")  # fmt: skip


class Profile:
    """Traces `steps` steps into `path` after `WARM_UP` of a run; a context manager that ends an unfinished trace."""

    def __init__(self, path: pathlib.Path, steps: int, say: Callable[[str], None]):
        self.path, self.steps, self.say = path, steps, say
        self._done, self._tracing = 0, False

    def __enter__(self) -> Profile:
        return self

    def before_step(self) -> None:
        if self.steps and self._done == WARM_UP:
            jax.profiler.start_trace(self.path, create_perfetto_trace=True)
            self._tracing = True

    def after_step(self, values) -> None:
        """`values` are results of the step, which is waited for only where the trace ends."""
        self._done += 1
        if self._tracing and self._done == WARM_UP + self.steps:
            jax.block_until_ready(values)
            self._stop()

    def _stop(self) -> None:
        self._tracing = False
        jax.profiler.stop_trace()
        traced = self._done - WARM_UP
        self.say(f"trace of {traced} step{'s' * (traced != 1)} in {self.path}: tensorboard --logdir {self.path}, or its "
                 "perfetto_trace.json.gz in ui.perfetto.dev")  # fmt: skip

    def __exit__(self, *_) -> None:
        if self._tracing:
            self._stop()
