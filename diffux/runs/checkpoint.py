"""Checkpoints: saved while training goes on, verified before they are restored; the last, the best and every k-th kept.

`workdir/checkpoints/<step>/` holds the state and, in `run/`, the config; held-out losses are in metrics.jsonl, since a step is
saved before it is judged. The position in the data is the step: batch k is the k-th of the run for any number of processes,
devices and workers. The checksums are written before the folder gets its final name, so a folder without them was never
finished. A broken step is passed over for the one before it; nothing is deleted.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import pathlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax

from diffux.errors import StorageFailed, UserError, one_sentence
from diffux.runs import checksums, metrics, storage
from diffux.runs.storage import FOLDER, path, steps, writing

# A table of checksums without these would call a folder whole that lacks them.
_NEEDED = ("state/_METADATA", "run/metadata")


def fault(workdir: pathlib.Path, step: int) -> str | None:
    """What is wrong with a step's files, in a few words, or None where they are as they were written."""
    wrong = checksums.fault(path(workdir, step), _NEEDED)
    if wrong is not None:
        return wrong
    try:
        said = about(workdir, step)
    except UserError as error:
        return str(error)
    if said["step"] != step:
        return f"it is a copy of step {said['step']}"
    own = storage.about_data(workdir).get("run")
    return None if None in (own, said["run"]) or own == said["run"] else "it is another run's"


def newest_good(workdir: pathlib.Path, warn: Callable[[str], None]) -> int | None:
    """The newest step whose files are as written, after a warning for each newer one; None where there is no folder.

    Raises UserError where there are steps and none is whole.
    """
    found = steps(workdir)
    for step in reversed(found):
        wrong = fault(workdir, step)
        if wrong is None:
            return step
        warn(f"checkpoint {step} in {workdir} is damaged ({wrong}): falling back to the one before it")
    if found:
        raise UserError(f"no checkpoint in {workdir} is whole (steps {found}): restore a copy, or use another --workdir")
    return None


def set_aside(workdir: pathlib.Path, after: int) -> None:
    """Move the (damaged) steps after `after` to `checkpoints.damaged/`, so that new ones can take their names."""
    for step in steps(workdir):
        if step > after:
            target = pathlib.Path(workdir) / f"{FOLDER}.damaged" / str(step)
            number = 1
            while os.path.lexists(target):
                target, number = target.with_name(f"{step}-{number}"), number + 1
            with writing(workdir, target.parent.name):
                target.parent.mkdir(exist_ok=True)
                path(workdir, step).rename(target)


def about(workdir: pathlib.Path, step: int) -> dict[str, Any]:
    """What a step says about itself: {"step", "config", "run"}; UserError where it cannot be read."""
    file = path(workdir, step) / "run" / "metadata"
    try:
        said = json.loads(file.read_text())
        if not isinstance(said["config"], dict):
            raise TypeError(f"config is {type(said['config']).__name__}")
        return {key: said[key] for key in ("step", "config")} | {"run": said.get("run")}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{file} cannot be read: {one_sentence(error)}") from error


def best(workdir: pathlib.Path) -> int | None:
    """The whole step with the lowest held-out loss, or None where no step has one."""
    for _, step in sorted(_losses(workdir)):
        if fault(workdir, step) is None:
            return step
    return None


def _losses(workdir: pathlib.Path) -> list[tuple[float, int]]:
    """(held-out loss, step) of the steps that are there and were judged, which is after they are saved."""
    found = {row["step"]: row["held_out_loss"] for row in metrics.read(workdir) if "held_out_loss" in row}
    return [(found[step], step) for step in steps(workdir) if math.isfinite(found.get(step, math.nan))]


def stay(steps: Sequence[int], losses: Mapping[int, float], keep: int, keep_best: int, keep_every: int) -> set[int]:
    """Which of `steps` (increasing) are kept: the last `keep`, the `keep_best` of lowest held-out loss, the multiples of
    `keep_every` (0: none)."""
    ranked = sorted((losses[step], step) for step in steps if step in losses)
    every = {step for step in steps if keep_every and step % keep_every == 0}
    return {*steps[-max(1, keep) :], *(step for _, step in ranked[:keep_best])} | every


def _raised_elsewhere(record: logging.LogRecord) -> bool:
    # The storage library logs the traceback of every error that it raises as well, and of those of writes it gave up.
    _, error, trace = record.exc_info or (None, None, None)
    if "ocdbt" in str(error).lower():  # its format: these come without a trace
        return False
    while trace is not None:
        if "orbax" in trace.tb_frame.f_code.co_filename:
            return False
        trace = trace.tb_next
    return True


class Checkpoints:
    """The checkpoints of one run, open for saving; `stay` says which of them are kept.

    Use it as a context manager: leaving waits for what is still being written.
    Raises StorageFailed, in `save` or on leaving, where a checkpoint could not be written; those before it are untouched.
    """

    def __init__(self, workdir: pathlib.Path, keep: int = 2, keep_best: int = 1, keep_every: int = 0):
        # The storage library takes a quarter of a second to import and is not needed to look at a run.
        import orbax.checkpoint as ocp

        self._ocp, self._workdir, self._policy, self._saving = ocp, pathlib.Path(workdir), (keep, keep_best, keep_every), None
        self._losses = {step: loss for loss, step in _losses(workdir)}
        for logger in ("absl", "asyncio"):
            logging.getLogger(logger).addFilter(_raised_elsewhere)
        warnings.filterwarnings("ignore", "coroutine '.*serialize.*' was never awaited", RuntimeWarning)  # a write it gave up
        self._hook, sys.unraisablehook = sys.unraisablehook, self._unraisable
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self,
            cleanup_tmp_directories=True,
            save_interval_steps=1,
            lightweight_initialize=True,  # it would read what it finds in the folder, and stop at what is damaged
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_checksums),
        )
        with self._explained(f"the folder {FOLDER}"):
            self._manager = ocp.CheckpointManager(
                (self._workdir / FOLDER).absolute(),
                options=options,
                item_handlers={"state": ocp.StandardCheckpointHandler(), "run": ocp.JsonCheckpointHandler()},
            )

    def _explained(self, what: str | None = None):
        # The storage library raises whatever its parts do: OSError, ValueError, and types of its own.
        return writing(self._workdir, what or f"checkpoint {self._saving}", Exception)

    def should_preserve(self, checkpoints, *, context):
        """Which of `checkpoints` (oldest first) stay: the interface of the storage library's preservation policies."""
        every = [info.step for info in checkpoints]
        kept = stay(every, self._losses, *self._policy)
        return [step in kept for step in every]

    def _write_checksums(self) -> None:
        # Called by the writing thread when all data is on disk and the folder still has its temporary name.
        if jax.process_index() == 0:
            folders = list((self._workdir / FOLDER).glob(f"{self._saving}.orbax-checkpoint-tmp*"))
            for folder in folders or [path(self._workdir, self._saving)]:
                checksums.write(folder)

    def save(self, step: int, state: Any, config: dict) -> None:
        """Begin to save; the arrays may be donated as soon as this returns, the rest happens in the background.

        Raises StorageFailed where this or the save before it went wrong.
        """
        with self._explained():
            self._manager.wait_until_finished()
        self._saving = step
        items = {
            "state": self._ocp.args.StandardSave(state),
            "run": self._ocp.args.JsonSave({"step": step, "config": config, "run": storage.about_data(self._workdir).get("run")}),
        }
        with self._explained():
            self._manager.save(step, args=self._ocp.args.Composite(**items), force=True)

    def judged(self, step: int, held_out_loss: float) -> None:
        """The held-out loss of a step that is saved: the checkpoints that stay from the next save on are chosen by it."""
        if math.isfinite(held_out_loss):
            self._losses[step] = held_out_loss

    def check(self) -> None:
        """Raise StorageFailed where the save that is on its way is known to have failed, without waiting for it."""
        with self._explained():
            self._manager.check_for_errors()

    def wait(self, step: int) -> None:
        """Return once the save of `step` is on disk. Raises StorageFailed where it cannot be, and KeyboardInterrupt, which says
        what is kept, where somebody cannot wait."""
        try:
            with self._explained():
                self._manager.wait_until_finished()
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"step {step} was not saved; {storage.kept(self._workdir)}") from None

    def settle(self) -> None:
        """Wait for what is still being written, so that `kept` counts it; what went wrong with it is raised by the next call."""
        with contextlib.suppress(Exception):
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def writing(self, what: str) -> Iterator[None]:
        """The module's `writing` while a checkpoint may be on its way."""
        with writing(self._workdir, what):
            try:
                yield
            except OSError:
                self.settle()
                raise

    def __enter__(self) -> Checkpoints:
        return self

    def _unraisable(self, raised) -> None:
        # Writes that end after one that failed find the storage library gone, in threads of their own.
        if not (isinstance(raised.exc_value, RuntimeError) and str(raised.exc_value) == "Event loop is closed"):
            self._hook(raised)

    def __exit__(self, kind, error, traceback) -> None:
        if kind is KeyboardInterrupt:  # nobody waits any longer
            sys.unraisablehook = self._hook
            return
        try:
            with self._explained():
                self._manager.close()
            sys.unraisablehook = self._hook
        except StorageFailed:
            # What ends the run already is what should be read, not what it left unfinished.
            if error is None:
                raise


def restore(workdir: pathlib.Path, step: int, target: Any) -> Any:
    """The arrays of a (verified) step as `target` wants them: ShapeDtypeStructs with shardings, any device count.

    `target` may be a part of what was saved, as a dictionary of some of the state's fields.
    Raises UserError where the saved arrays are not those of `target`.
    """
    import orbax.checkpoint as ocp

    with ocp.PyTreeCheckpointer() as checkpointer:
        try:
            restored = checkpointer.restore(
                (path(workdir, step) / "state").absolute(),
                args=ocp.args.PyTreeRestore(
                    item=target,
                    restore_args=ocp.checkpoint_utils.construct_restore_args(target),
                    partial_restore=True,
                ),
            )
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            message = f"checkpoint {step} in {workdir} does not fit this system: {one_sentence(error)[:300]}"
            raise UserError(message) from error
    # A part that was never saved comes back as it went in.
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(restored)):
        raise UserError(f"checkpoint {step} in {workdir} does not fit this system: it lacks some of its parameters")
    return restored
