"""What a run does between steps: a list of (every, action)."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from diffux import data
from diffux.console import Progress
from diffux.devices import mesh as sharding
from diffux.devices import together
from diffux.runs import checkpoint, snapshots
from diffux.runs.run import Run
from diffux.sampling import draw, pictures
from diffux.training.held_out import HeldOut
from diffux.training.program import Program
from diffux.training.state import TrainState


class Due(NamedTuple):
    """`action(step, state)` after every so many steps, of several numbers after any, 0 being never, and after the last step.

    leaving: whether it is done where a signal ends the run: True always, False never, None where it would be anyhow.
    """

    every: tuple[int, ...]
    action: Callable[[int, TrainState], None]
    leaving: bool | None = None


def due(work: Sequence[Due], step: int, last: bool, leaving: bool) -> list[Callable[[int, TrainState], None]]:
    """The actions that are due after `step`, in their order.

    Example:
        >>> save, draw = lambda step, state: None, lambda step, state: None
        >>> due([Due((2, 0), save), Due((3,), draw)], 4, last=False, leaving=False) == [save]
        True
    """

    def wanted(every, _, when_leaving):
        if leaving and when_leaving is not None:
            return when_leaving
        return last or any(interval > 0 and step % interval == 0 for interval in every)

    return [one.action for one in work if wanted(*one)]


def do(actions: Sequence[Callable[[int, TrainState], None]], step: int, state: TrainState) -> None:
    """What is due after `step`, one after the other."""
    for action in actions:
        together.at(f"{action.__name__} after step {step}", saving=True)
        action(step, state)


class Work:
    """What is kept of a run on its way: held-out losses, checkpoints, stored averages, pictures of samples.

    system: the program's, placed. held_out, or the source of its rows, may be None.
    """

    def __init__(self, program: Program, system: Any, path: pathlib.Path, saver: checkpoint.Checkpoints, log: Any,
                 progress: Progress, held_out: HeldOut | None, source: data.Source, test: data.Source | None):  # fmt: skip
        self.program, self.system, self.path, self.saver, self.log, self.progress = program, system, path, saver, log, progress
        self.held_out, self.source, self.test = held_out, source, test
        self.picture: pathlib.Path | None = None
        self._asked: dict[str, Any] | None = None

    def list(self) -> list[Due]:
        """Everything that this run does between steps, in the order in which it is done."""
        plan = self.program.plan
        training = plan.training
        return [
            Due((training.checkpoint_every,), self.save, leaving=True),  # first, whatever becomes of the others
            *([] if self.held_out is None else [Due((training.eval_every, training.checkpoint_every), self.judge, leaving=False)]),
            *([Due((plan.snapshot_every,), self.store)] if plan.snapshot_every else []),
            *([] if plan.walk is None else [Due((training.sample_every,), self.draw, leaving=False)]),
        ]

    def judge(self, step: int, state: TrainState) -> None:
        """The held-out loss."""
        loss = self.held_out(state)
        self.log.write(step, {"held_out_loss": loss})
        self.saver.judged(step, loss)
        self.progress.line(step, f"held-out loss {loss:.4f} ({self.program.plan.averages.said})")

    def save(self, step: int, state: TrainState) -> None:
        """A checkpoint."""
        self.saver.save(step, state, self.program.plan.config)

    def store(self, step: int, state: TrainState) -> None:
        """The averages from which others can be made after the run."""
        with self.saver.writing(f"the averages of step {step}"):
            snapshots.write(self.path, step, self.program.plan.averages.snapshot(state.ema), self.program.mesh)

    def draw(self, step: int, state: TrainState) -> None:
        """The picture of samples with averaged weights: the same seeds, so the same noise, at every step."""
        plan, mesh, system = self.program.plan, self.program.mesh, self.system
        variables = state.averaged(plan.averages)
        if jax.process_count() > 1:  # process 0 draws them all, by itself
            variables, mesh, system = sharding.on_this_process(variables, mesh), None, plan.system
        self.picture = self.path / "samples" / f"step_{step:06d}.png"
        if jax.process_index() == 0:
            run = Run(plan, system, variables, plan.data.fields(self.source), step, plan.averages.said, mesh, walk=plan.walk)
            with self.saver.writing("the picture of samples"):
                if self._asked is None:
                    self._asked = draw.request(run, plan.pictures, plan.given, rows=self.test or self.source)
                pictures.picture(self.picture, run, plan.pictures, seed=plan.seed, given=self._asked, real=self.source)
            self.log.picture(step, self.picture)
            self.progress.picture(self.picture)
