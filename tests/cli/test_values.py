"""Values of flags and keys that cannot be: one sentence each, before anything compiles."""

import copy

import numpy as np
import pytest

from diffux import cli, training
from diffux.config.plan import plan
from diffux.errors import UserError
from tests.small import SMALL, Tiny

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """{"labelled", "plain", "sure"}: with label dropout, without labels, and with labels that are never dropped."""
    folder = tmp_path_factory.mktemp("values")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffux.systems.ddpm.UNet", Tiny)
        for name, system in {"labelled": {"classes": 10}, "plain": {}, "sure": {"classes": 10, "label_dropout": 0.0}}.items():
            config = copy.deepcopy(SMALL)
            config["system"] |= system
            config["training"] |= {"steps": 2}
            training.train(config, folder / name)
    return folder


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr("diffux.systems.ddpm.UNet", Tiny)


@pytest.mark.full
@pytest.mark.parametrize(("command", "said"), [
    ("sample --guidance nan", "--guidance is a finite scale"),
    ("sample --guidance inf", "--guidance is a finite scale"),
    ("sample --n 1000000000000", "n must be below 2147483648"),
    ("sample --n 2147483648", "n must be below 2147483648"),
    ("sample --n 2147483647", "n = 2147483647 samples would take"),
    ("sample --seed 4294967303", "--seed must be at most 4294967295, got 4294967303"),
    ("sample --seed -1", "--seed must be at least 0, got -1"),
    ("evaluate --seed 4294967303", "--seed must be at most 4294967295"),
    ("sample --checkpoint ²", "has no checkpoint of step ²"),
    ("sample --eta 0.5", "eta 0.5 needs the name of a solver that has one"),
    ("sample --eta 0.5 --solver heun", "solver heun has no eta, got 0.5"),
    ("sample --eta -1 --solver ddim", "--eta must be at least 0"),
    ("sample --eta nan --solver ddim", "--eta must be at least 0"),
    ("sample --steps 1000001", "--steps must be at most 1000000"),
    ("evaluate --likelihood --solver nonsense", "--solver is of samples, and --likelihood draws none"),
    ("evaluate --likelihood --label 3", "--label is of samples"),
    ("evaluate --likelihood --guidance 2", "--guidance is of samples"),
])  # fmt: skip
def test_flags(runs, tmp_path, capsys, command, said):
    name, *flags = command.split()
    out = ["--out", str(tmp_path / "x.npz")] if name == "sample" else []
    assert cli.main([name, "--workdir", str(runs / "labelled"), *flags, *out]) == 2
    error = capsys.readouterr().err
    assert said in error and error.startswith("error: ") and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.full
def test_guidance_needs_a_null_that_was_trained(runs, tmp_path, capsys):
    out = ["--n", "1", "--out", str(tmp_path / "x.npz"), "--guidance", "2"]
    assert cli.main(["sample", "--workdir", str(runs / "sure"), *out]) == 2
    assert "its system needs a label_dropout above 0" in capsys.readouterr().err
    assert cli.main(["sample", "--workdir", str(runs / "plain"), *out]) == 2
    assert cli.main(["sample", "--workdir", str(runs / "labelled"), *out]) == 0


def test_samples_that_are_not_finite_are_not_written_without_a_word(runs, tmp_path, capsys, monkeypatch):
    from diffux.sampling import files

    draw = files.draw

    def poisoned(*args, **options):
        for drawn in draw(*args, **options):
            yield {name: np.where(np.arange(len(values)).reshape(-1, *[1] * (values.ndim - 1)) == 1, np.nan, values)
                   for name, values in drawn.items()}  # fmt: skip

    monkeypatch.setattr(files, "draw", poisoned)
    assert cli.main(["sample", "--workdir", str(runs / "plain"), "--n", "3", "--out", str(tmp_path / "x.npz")]) == 0
    assert "1 of the 3 samples are not finite" in capsys.readouterr().out


@pytest.mark.full
def test_class_names_are_kept_with_samples(runs, tmp_path):
    """Of data with names: npz of one's own, whose labels are words."""
    rng = np.random.default_rng(0)
    config = copy.deepcopy(SMALL)
    config["system"] |= {"classes": 2}
    config["training"] |= {"steps": 2}
    source = {"image": rng.integers(0, 256, (64, 8, 8, 1), dtype=np.uint8), "label": np.array(["cat", "dog"] * 32)}
    training.train(config, tmp_path / "run", source=source)
    assert cli.main(["sample", "--workdir", str(tmp_path / "run"), "--n", "4", "--given", "label=dog,cat",
                     "--out", str(tmp_path / "x.npz")]) == 0  # fmt: skip
    with np.load(tmp_path / "x.npz") as found:
        assert found["labels"].tolist() == [1, 0, 1, 0] and found["label_names"].tolist() == ["cat", "dog"]


@pytest.mark.parametrize(("key", "value", "said"), [
    ("system.dropout", 1.5, r"dropout"), ("system.dropout", -0.1, "dropout"), ("system.dropout", 1.0, "dropout"),
    ("system.blocks", 0, "blocks"), ("system.attention", (-5,), "attention"), ("system.multipliers", (0,), "multipliers"),
    ("system.multipliers", (), "multipliers"), ("system.channels", 0, "channels"),
    ("system.label_dropout", 1.5, "a probability 0 <= p < 1"),
    ("optimizer.learning_rate", 3e38, "learning_rate"), ("ema.decay", 1.0, "decay"), ("ema.decay", -0.1, "decay"),
])  # fmt: skip
def test_keys(monkeypatch, key, value, said):
    monkeypatch.undo()  # the U-Net itself
    section, name = key.split(".")
    config = {"system": {"name": "ddpm", "channels": 16, "multipliers": (1,), "attention": (), "classes": 10}}
    config.setdefault(section, {})[name] = value
    with pytest.raises(UserError, match=said):
        plan(config)
