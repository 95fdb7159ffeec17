"""What the storage library says of writes that failed is kept off the terminal; what others say is not."""

import logging
import shutil
import sys
import types
import warnings

import jax.numpy as jnp
import pytest

from diffux.errors import StorageFailed
from diffux.runs import checkpoint, storage


def record(error):
    said = "Future exception was never retrieved"
    return logging.LogRecord("asyncio", logging.ERROR, "", 0, said, (), (type(error), error, None))


def test_only_the_storage_librarys_own_words_are_kept_off(tmp_path):
    hook = sys.unraisablehook
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with checkpoint.Checkpoints(tmp_path):
            keep = logging.getLogger("asyncio").filter
            assert keep(record(ValueError("of a user's own")))
            for said in ('Error opening "zarr" driver [tensorstore_spec=\'{"driver":"ocdbt"}\']',
                         'Error writing "opt_state.0" in OCDBT database: No space left on device'):  # fmt: skip
                assert not keep(record(ValueError(f"RESOURCE_EXHAUSTED: {said}")))
            for name in ("async_serialize_from_host.<locals>.write_fragment", "mine"):
                warnings.warn(f"coroutine '{name}' was never awaited", RuntimeWarning, stacklevel=1)
    assert [str(one.message) for one in warned if one.category is RuntimeWarning] == ["coroutine 'mine' was never awaited"]
    assert sys.unraisablehook is hook


def test_folders_of_other_names_are_no_checkpoints(tmp_path):
    for name in ("7", "007", "-7", "7.0", "\u0667", "8.orbax-checkpoint-tmp", str(2**63 - 1), "1" + 19 * "0"):
        (tmp_path / checkpoint.FOLDER / name).mkdir(parents=True)
    assert checkpoint.steps(tmp_path) == [7, 2**63 - 1]  # a step is a number of 64 bits


def test_the_last_ten_are_named_as_kept(tmp_path):
    assert storage.kept(tmp_path) == "no checkpoint had been saved"
    (tmp_path / checkpoint.FOLDER / "100").mkdir(parents=True)
    assert storage.kept(tmp_path) == "checkpoint 100 is kept"
    for step in range(101, 112):
        (tmp_path / checkpoint.FOLDER / str(step)).mkdir()
    assert storage.kept(tmp_path) == "checkpoints 102, 103, 104, 105, 106, 107, 108, 109, 110, 111 are kept"


def test_what_is_still_being_written_counts_once_it_has_settled(tmp_path):
    with checkpoint.Checkpoints(tmp_path) as saved:
        saved.save(1, {"x": jnp.ones(10_000_000)}, {})  # 40 MB: long enough to be overtaken
        saved.settle()
        assert checkpoint.steps(tmp_path) == [1]


def test_the_last_two_and_the_best_stay_unless_said_otherwise(tmp_path):
    with checkpoint.Checkpoints(tmp_path) as saved:
        for step, loss in ((1, 0.3), (2, 0.1), (3, 0.2), (4, 0.4), (5, 0.5)):
            saved.save(step, {"x": jnp.ones(2)}, {})
            saved.judged(step, loss)
    assert checkpoint.steps(tmp_path) == [2, 4, 5]


def test_what_is_set_aside_gets_a_name_that_is_free(tmp_path):
    for _ in range(3):
        with checkpoint.Checkpoints(tmp_path) as saved:
            saved.save(2, {"x": jnp.ones(2)}, {})
        checkpoint.set_aside(tmp_path, 1)
        assert checkpoint.steps(tmp_path) == []
    assert sorted(path.name for path in (tmp_path / "checkpoints.damaged").iterdir()) == ["2", "2-1", "2-2"]


def test_what_a_killed_run_left_half_written_is_removed(tmp_path):
    with checkpoint.Checkpoints(tmp_path) as saved:
        saved.save(1, {"x": jnp.ones(2)}, {})
    half = tmp_path / checkpoint.FOLDER / "2.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / checkpoint.FOLDER / "1", half)
    with checkpoint.Checkpoints(tmp_path) as saved:
        saved.save(3, {"x": jnp.ones(2)}, {})
    assert not half.exists() and checkpoint.steps(tmp_path) == [1, 3]


def test_what_lies_damaged_in_the_folder_does_not_keep_a_run_from_saving(tmp_path):
    with checkpoint.Checkpoints(tmp_path) as saved:
        saved.save(1, {"x": jnp.ones(2)}, {})
    (tmp_path / checkpoint.FOLDER / "1" / "_CHECKPOINT_METADATA").write_text("[]")
    with checkpoint.Checkpoints(tmp_path) as saved:
        saved.save(2, {"x": jnp.ones(2)}, {})
    assert checkpoint.steps(tmp_path) == [1, 2]


def test_what_is_to_be_saved_is_saved_though_a_later_step_lies_there(tmp_path):
    """As where the later one is another run's, or damaged, and was passed over."""
    with checkpoint.Checkpoints(tmp_path) as saved:
        for step in (5, 3):
            saved.save(step, {"x": jnp.ones(2)}, {})
    assert checkpoint.steps(tmp_path) == [3, 5]


def fails(*_, **__):
    raise OSError("the disk is gone")


def test_a_save_that_failed_in_the_background_is_told_when_asked(tmp_path, monkeypatch):
    with checkpoint.Checkpoints(tmp_path) as saved:
        saved.check()
        monkeypatch.setattr(saved._manager, "check_for_errors", fails)
        with pytest.raises(StorageFailed, match="the disk is gone"):
            saved.check()


def test_what_ends_a_run_is_told_before_what_it_left_unfinished(tmp_path, monkeypatch):
    with pytest.raises(StorageFailed, match="the disk is gone"), checkpoint.Checkpoints(tmp_path) as saved:
        monkeypatch.setattr(saved._manager, "close", fails)
    with pytest.raises(ZeroDivisionError), checkpoint.Checkpoints(tmp_path) as saved:
        monkeypatch.setattr(saved._manager, "close", fails)
        1 / 0  # noqa: B018


def test_of_what_nobody_can_catch_only_writes_that_were_given_up_are_silent(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(sys, "unraisablehook", lambda raised: said.append(raised.exc_value))
    errors = [RuntimeError("Event loop is closed"), RuntimeError("mine"), ValueError("Event loop is closed")]
    with checkpoint.Checkpoints(tmp_path):
        for error in errors:
            sys.unraisablehook(types.SimpleNamespace(exc_value=error))
    assert said == errors[1:]
