"""What the stress tests share: the trainings that they disturb, and what a run must still give afterwards.

Not a script: see run.py.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import pathlib
import shutil

EXPERIMENTS = pathlib.Path(__file__).resolve().parents[1]

import door  # noqa: E402, F401 - finds the library of a clone that is not installed

from diffux import cli  # noqa: E402

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
    from diffux.runs import metrics

    metrics.read(workdir)
    try:
        return training.load(workdir, warn=lambda message: None).step
    except training.UserError as error:
        if any(words in str(error) for words in ("no checkpoint yet", "holds no run", "there is no folder")):
            return None
        raise Failed(f"{workdir} is unreadable: {error}") from error


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


def call(command: str, *arguments: str) -> tuple[int, str, str]:
    """The status, the output and the errors of a command, run in this process."""
    out, err = io.StringIO(), io.StringIO()
    # A hang ends everything, with a traceback that says where.
    faulthandler.dump_traceback_later(120, exit=True)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = cli.main([command, *arguments])
    except Exception as error:
        raise Failed(f"a traceback: {type(error).__name__}: {error}") from error
    finally:
        faulthandler.cancel_dump_traceback_later()
    return status, out.getvalue(), err.getvalue()


def one_sentence(status: int, err: str) -> bool:
    return status in (2, 4) and err.startswith("error: ") and err.count("\n") == 1 and "Traceback" not in err


def remove(folder: pathlib.Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
