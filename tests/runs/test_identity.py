"""What a run is: its data, by what they hold and not by where they lie, and its own checkpoints."""

import shutil

import numpy as np
import pytest

from diffux import training
from diffux.errors import UserError
from diffux.runs import checkpoint

pytestmark = pytest.mark.usefixtures("quick")


def write(path, images, names):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, image=images, label=np.array(names))
    return path


@pytest.mark.full
def test_data_may_move_and_may_not_change(config, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1), dtype=np.uint8)
    names = ["cat", "dog"] * 32
    run = lambda path, steps: training.train(config(**{"data.name": f"npz:{path}", "training.steps": steps}), tmp_path / "run")  # noqa: E731
    assert run(write(tmp_path / "a/train.npz", images, names), 2).step == 2
    moved = write(tmp_path / "b/train.npz", images, names)
    shutil.rmtree(tmp_path / "a")
    assert run(moved, 3).step == 3
    assert run(tmp_path / "b", 4).step == 4 and run(f"{tmp_path / 'b'}/", 5).step == 5  # the folder of it, and with a slash
    renamed = [{"cat": "cow"}.get(name, name) for name in names]
    for number, (other, said) in enumerate({"inverted": (255 - images, names), "fewer": (images[:-1], names[:-1]),
                                            "renamed": (images, renamed)}.values()):  # fmt: skip
        with pytest.raises(UserError, match="holds other data than the run in"):
            run(write(tmp_path / f"{number}/train.npz", other, said), 6)


@pytest.mark.full
def test_another_runs_checkpoints_are_not_continued(config, tmp_path, capsys):
    training.train(config(**{"training.steps": 3}), tmp_path / "own")
    training.train(config(**{"training.steps": 6}), tmp_path / "other")
    shutil.copytree(tmp_path / "other/checkpoints/6", tmp_path / "own/checkpoints/6")
    assert checkpoint.fault(tmp_path / "own", 6) == "it is another run's"
    assert training.load(tmp_path / "own").step == 3
    training.train(config(**{"training.steps": 4}), tmp_path / "own")
    assert "checkpoint 6 in" in capsys.readouterr().out and checkpoint.steps(tmp_path / "own") == [3, 4]
    shutil.copytree(tmp_path / "own", tmp_path / "copied")  # a whole folder is the same run wherever it is
    (tmp_path / "copied/data.json").unlink()
    assert training.train(config(**{"training.steps": 5}), tmp_path / "copied").step == 5


def test_a_lock_that_is_a_link_is_refused_and_its_target_left_alone(config, tmp_path):
    (tmp_path / "mine.txt").write_text("not to be lost")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.lock").symlink_to(tmp_path / "mine.txt")
    with pytest.raises(UserError, match=r"\.lock cannot be locked: .*symbolic links"):
        training.train(config(), tmp_path / "run")
    assert (tmp_path / "mine.txt").read_text() == "not to be lost"


def test_a_refused_run_leaves_no_folder(config, tmp_path):
    (tmp_path / "there").mkdir()
    for name in ("new/deep", "there"):
        with pytest.raises(UserError, match="there is no folder"):
            training.train(config(**{"data.name": f"folder:{tmp_path}/nowhere"}), tmp_path / name)
    assert not (tmp_path / "new/deep").exists() and (tmp_path / "there").is_dir()


@pytest.mark.full
def test_a_run_that_goes_on_may_prune_what_is_being_read(config, tmp_path, monkeypatch):
    training.train(config(**{"training.steps": 3, "training.keep": 1, "training.keep_best": 0}), tmp_path)
    restore = checkpoint.restore

    def pruned(workdir, step, target):
        monkeypatch.setattr(checkpoint, "restore", restore)
        training.train(config(**{"training.steps": 6, "training.keep": 1, "training.keep_best": 0}), tmp_path)
        return restore(workdir, step, target)

    monkeypatch.setattr(checkpoint, "restore", pruned)
    assert training.load(tmp_path).step == 6
