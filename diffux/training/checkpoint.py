"""Checkpoints: saved while training goes on, verified before they are restored, the last and the best kept.

`workdir/checkpoints/<step>/` holds the state and, in `run/`, the config and the held-out loss. The position in the data is the
step: batch k is the k-th of the run for any number of processes, devices and workers. The checksums are written before the
folder gets its final name, so a folder without them was never finished. A broken step is passed over for the one before it;
nothing is deleted.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax

from diffux.training import checksums
from diffux.training.errors import UserError, one_sentence

_FOLDER = "checkpoints"


def steps(workdir: pathlib.Path) -> list[int]:
    """The steps that have a folder, whole or not, in increasing order."""
    folder = pathlib.Path(workdir) / _FOLDER
    return sorted(int(p.name) for p in folder.iterdir() if p.is_dir() and p.name.isdigit()) if folder.is_dir() else []


def path(workdir: pathlib.Path, step: int) -> pathlib.Path:
    return pathlib.Path(workdir) / _FOLDER / str(step)


def fault(workdir: pathlib.Path, step: int) -> str | None:
    """What is wrong with a step's files, in a few words, or None where they are as they were written."""
    return checksums.fault(path(workdir, step))


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
            target = pathlib.Path(workdir) / f"{_FOLDER}.damaged" / str(step)
            number = 1
            while target.exists():
                target, number = target.with_name(f"{step}-{number}"), number + 1
            target.parent.mkdir(exist_ok=True)
            path(workdir, step).rename(target)


def about(workdir: pathlib.Path, step: int) -> dict[str, Any]:
    """What a step says about itself: {"step", "config", "held_out_loss" (or None)}."""
    return json.loads((path(workdir, step) / "run" / "metadata").read_text())


def best(workdir: pathlib.Path) -> int | None:
    """The whole step with the lowest held-out loss, or None where no step has one."""
    for _, step in sorted(_losses(workdir)):
        if fault(workdir, step) is None:
            return step
    return None


def _losses(workdir: pathlib.Path) -> list[tuple[float, int]]:
    pairs = []
    for step in steps(workdir):
        try:
            loss = about(workdir, step)["held_out_loss"]
        except (OSError, ValueError, KeyError):
            continue
        if loss is not None:
            pairs.append((loss, step))
    return pairs


class Checkpoints:
    """The checkpoints of one run, open for saving: the last `keep` and the best by held-out loss stay.

    Use it as a context manager: leaving waits for what is still being written and raises what went wrong with it.
    """

    def __init__(self, workdir: pathlib.Path, keep: int = 2):
        # The storage library takes a quarter of a second to import and is not needed to look at a run.
        import orbax.checkpoint as ocp

        self._ocp, self._workdir, self._keep = ocp, pathlib.Path(workdir), keep
        self._losses = {step: loss for loss, step in _losses(workdir)}
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self,
            cleanup_tmp_directories=True,
            save_interval_steps=1,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_checksums),
        )
        self._manager = ocp.CheckpointManager(
            (self._workdir / _FOLDER).absolute(),
            options=options,
            item_handlers={"state": ocp.StandardCheckpointHandler(), "run": ocp.JsonCheckpointHandler()},
        )

    def should_preserve(self, checkpoints, *, context):
        """Which of `checkpoints` (oldest first) stay: the interface of the storage library's preservation policies."""
        every = [info.step for info in checkpoints]
        keep = set(every[-max(1, self._keep) :])
        known = [step for step in every if step in self._losses]
        if known:
            keep.add(min(known, key=lambda step: self._losses[step]))
        return [step in keep for step in every]

    def _write_checksums(self) -> None:
        # Called by the writing thread when all data is on disk and the folder still has its temporary name.
        if jax.process_index() == 0:
            folders = list((self._workdir / _FOLDER).glob(f"{self._saving}.orbax-checkpoint-tmp*"))
            for folder in folders or [path(self._workdir, self._saving)]:
                checksums.write(folder)

    def save(self, step: int, state: Any, config: dict, held_out_loss: float | None) -> None:
        """Begin to save; the arrays may be donated as soon as this returns, the rest happens in the background.

        Raises what went wrong with the save before it.
        """
        self._manager.wait_until_finished()
        self._saving = step
        if held_out_loss is not None:
            self._losses[step] = held_out_loss
        run = {"step": step, "config": config, "held_out_loss": held_out_loss}
        items = {
            "state": self._ocp.args.StandardSave(state),
            "run": self._ocp.args.JsonSave(run),
        }
        self._manager.save(step, args=self._ocp.args.Composite(**items), force=True)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *error) -> None:
        self._manager.close()


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
        except (ValueError, KeyError, TypeError) as error:
            message = f"checkpoint {step} in {workdir} does not fit this system: {one_sentence(error)[:300]}"
            raise UserError(message) from error
    # A part that was never saved comes back as it went in.
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(restored)):
        raise UserError(f"checkpoint {step} in {workdir} does not fit this system: it lacks some of its parameters")
    return restored
