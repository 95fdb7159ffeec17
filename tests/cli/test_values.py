"""Values of flags and keys that cannot be: one sentence each, before anything compiles."""

import copy
import functools

import numpy as np
import pytest
from PIL import Image

from diffux import cli, training
from diffux.cli import sample
from diffux.config.plan import plan
from diffux.errors import UserError
from tests.small import SMALL, Tiny

pytestmark = pytest.mark.usefixtures("quick")


SYSTEMS = {"labelled": {"classes": 10}, "plain": {}, "sure": {"classes": 10, "label_dropout": 0.0}}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run with label dropout, without labels, or with labels that are never dropped, by its name."""
    folder = tmp_path_factory.mktemp("values")

    @functools.cache
    def trained(name):
        config = copy.deepcopy(SMALL)
        config["system"] |= SYSTEMS[name]
        config["training"] |= {"steps": 2}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("diffux.systems.ddpm.UNet", Tiny)
            return training.train(config, folder / name).workdir

    return trained


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr("diffux.systems.ddpm.UNet", Tiny)


@pytest.mark.full
@pytest.mark.parametrize(("command", "said"), [
    ("sample --guidance nan", "--guidance is a finite scale"),
    ("sample --guidance inf", "--guidance is a finite scale"),
    ("sample --n 1000000000000", "--n must be at most 2147483647"),
    ("sample --n 2147483648", "--n must be at most 2147483647"),
    ("sample --n 2147483647", "n = 2147483647 samples would take"),
    ("sample --seed 4294967303", "--seed must be at most 4294967295, got 4294967303"),
    ("sample --seed -1", "--seed must be at least 0, got -1"),
    ("evaluate --seed 4294967303", "--seed must be at most 4294967295"),
    ("sample --checkpoint ²", "has no checkpoint of step ²"),
    ("sample --eta 0.5", "eta 0.5 needs the name of a solver that has one"),
    ("sample --eta 0.5 --solver heun", "solver heun has no eta, got 0.5"),
    ("sample --eta -1 --solver ddim", "--eta must be at least 0"),
    ("sample --eta nan --solver ddim", "--eta must be a finite float32, got nan"),
    ("sample --steps 1000001", "--steps must be at most 1000000"),
    ("evaluate --likelihood --solver nonsense", "--solver is of samples, and --likelihood draws none"),
    ("evaluate --likelihood --label 3", "--label is of samples"),
    ("evaluate --likelihood --guidance 2", "--guidance is of samples"),
    ("evaluate --likelihood --task once", "--task is of samples"),
    ("sample --steps 0", "--steps must be at least 1, got 0"),
    ("sample --classifier-scale nan --classifier x", "--classifier-scale must be a finite float32, got nan"),
    ("evaluate --n 2147483647", "n = 2147483647 samples would take"),
    ("evaluate --n 1", "--n must be at least 2, got 1"),
    ("evaluate --likelihood --tolerance inf", "--tolerance must be a finite float32, got inf"),
    ("evaluate --likelihood --tolerance 0", "--tolerance must be at least 1e-12, got 0.0"),
    ("evaluate --likelihood --start 1", "--start must be below 1, got 1.0"),
    ("evaluate --likelihood --start 0", "--start must be a number above 0"),
    ("evaluate --likelihood --draws 0", "--draws must be at least 1, got 0"),
    # what would change nothing
    ("sample --frames 3", "--frames belongs to --trajectory"),
    ("sample --classifier-scale 2", "--classifier-scale belongs to --classifier"),
    ("sample --lora-scale 2", "--lora-scale belongs to --lora"),
    ("evaluate --probes 1", "--probes belongs to --likelihood"),
    ("evaluate --reconstruct", "--reconstruct belongs to --likelihood"),
    ("evaluate --likelihood --trace exact --probes 3", "--probes is of an estimate, and --trace exact makes none"),
    ("evaluate --samples x.npz --seed 0", "--seed is of the drawing, and the --samples are drawn"),
    ("evaluate --samples x.npz --checkpoint best", "--checkpoint is of the drawing"),
])  # fmt: skip
def test_flags(run, tmp_path, capsys, command, said):
    name, *flags = command.split()
    out = ["--out", str(tmp_path / "x.npz")] if name == "sample" else []
    assert cli.main([name, "--workdir", str(run("labelled")), *flags, *out]) == 2
    error = capsys.readouterr().err
    assert said in error and error.startswith("error: ") and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("flags", "said"), [
    ("--profile -1", "--profile must be at least 0, got -1"),
    ("--profile 2", "a trace begins after 3 steps, and 2 are left of this run"),
    ("--start-timeout inf", "--start-timeout must be a finite float32, got inf"),
    ("--process -1", "--process must be at least 0"),
])  # fmt: skip
def test_flags_of_training(tmp_path, capsys, flags, said):
    config = ["--config", "ddpm_digits", "--config.steps=2", "--config.system.channels=4"]
    assert cli.main(["train", *config, "--workdir", str(tmp_path / "new"), *flags.split()]) == 2
    error = capsys.readouterr().err
    assert said in error and error.startswith("error: ") and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


# What each flag of sampling may be given to draw other samples, and the flags that draw the same: files, places and programs.
CHANGING = {"n": "3", "given": "label=3", "label": "3", "solver": "heun", "steps": "3", "eta": "1.0", "grid": "log_snr",
            "option": "order=1", "guidance": "3", "seed": "1", "checkpoint": "1", "average": "0.5", "raw": None}  # fmt: skip
BESIDE = {"eta": ["--solver", "ddim"], "option": ["--solver", "unipc"]}
SAME = {"help", "workdir", "weights", "pretrained", "out", "batch", "task", "model", "net", "classifier", "classifier-scale", "use",
        "trajectory", "frames", "lora", "lora-scale"}  # fmt: skip


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The samples of the command with more flags, of a run with two checkpoints and two averages."""
    folder = tmp_path_factory.mktemp("drawn")
    config = copy.deepcopy(SMALL)
    config["system"] |= {"classes": 10, "steps": 20, "betas": "cosine"}
    config["training"] |= {"steps": 2, "checkpoint_every": 1}
    config["ema"] = {"decay": [0.9, 0.5], "warmup": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffux.systems.ddpm.UNet", Tiny)
        training.train(config, folder / "run")

    @functools.cache
    def draw(*flags):
        out = folder / f"{len(list(folder.iterdir()))}.npz"
        assert cli.main(["sample", "--workdir", str(folder / "run"), "--n", "2", "--out", str(out), *flags]) == 0
        with np.load(out) as found:
            return found["images"]

    draw.workdir = folder / "run"
    return draw


@pytest.mark.full(but=("n", "guidance", "seed", "raw"))
@pytest.mark.parametrize("name", CHANGING)
def test_a_flag_that_is_taken_changes_the_samples(drawn, name):
    flag, beside = [f"--{name}"] + [CHANGING[name]] * (CHANGING[name] is not None), BESIDE.get(name, [])
    assert not np.array_equal(drawn(*beside), drawn(*beside, *flag))


@pytest.mark.full
def test_a_sweep_is_one_picture_and_one_array(drawn, tmp_path, capsys):
    """Each part of the array is what the command draws at that scale alone; columns are scales, rows samples."""
    ask = lambda *words: cli.main(["sample", "--workdir", str(drawn.workdir), "--n", "3", "--steps", "2", *map(str, words)])  # noqa: E731
    both, alone = tmp_path / "sweep.npz", tmp_path / "alone.npz"
    assert ask("--guidance", "classifier_free([0, 3])", "--out", both, "--out", tmp_path / "sweep.png") == 0
    assert ask("--guidance", "classifier_free(3)", "--out", alone) == 0
    with np.load(both) as found, np.load(alone) as one:
        assert found["images"].shape == (2, *one["images"].shape) and list(found["guidance"]) == ["0", "3"]
        np.testing.assert_allclose(found["images"][1], one["images"], atol=1e-6)
        assert np.abs(found["images"][0] - found["images"][1]).max() > 1e-4
    picture = Image.open(tmp_path / "sweep.png")
    assert picture.height > picture.width
    assert ask("--guidance", "classifier_free([0, 3])", "--out", f"{tmp_path}/folder/") == 2
    assert "must end in .png or .npz" in capsys.readouterr().err
    assert ask("--guidance", "classifier_free([0, 3])", "--out", both, "--trajectory", tmp_path / "walk.gif") == 2
    assert "--trajectory is of one walk" in capsys.readouterr().err


def test_every_flag_of_sampling_changes_the_samples_or_is_known_not_to():
    known = {option[2:] for action in sample.parser()._actions for option in action.option_strings if option.startswith("--")}
    assert known == {*CHANGING} | SAME


def test_every_number_of_a_command_is_in_the_schema():
    for command, found in cli.commands().items():
        parser = found.load().parser()
        numbers = {action.option_strings[0][2:] for action in parser._actions if action.type in (int, float)}
        assert numbers == {*parser.keys}, command


@pytest.mark.full
def test_guidance_needs_a_null_that_was_trained(run, tmp_path, capsys):
    out = ["--n", "1", "--out", str(tmp_path / "x.npz"), "--guidance", "2"]
    assert cli.main(["sample", "--workdir", str(run("sure")), *out]) == 2
    assert "its system needs a label_dropout above 0" in capsys.readouterr().err
    assert cli.main(["sample", "--workdir", str(run("plain")), *out]) == 2
    assert cli.main(["sample", "--workdir", str(run("labelled")), *out]) == 0


def test_samples_that_are_not_finite_are_not_written_without_a_word(drawn, tmp_path, capsys, monkeypatch):
    from diffux.sampling import files

    draw = files.draw

    def poisoned(*args, **options):
        for drawn in draw(*args, **options):
            yield {name: np.where(np.arange(len(values)).reshape(-1, *[1] * (values.ndim - 1)) == 1, np.nan, values)
                   for name, values in drawn.items()}  # fmt: skip

    monkeypatch.setattr(files, "draw", poisoned)
    assert cli.main(["sample", "--workdir", str(drawn.workdir), "--n", "3", "--out", str(tmp_path / "x.npz")]) == 0
    assert "1 of the 3 samples are not finite" in capsys.readouterr().out


@pytest.mark.full
def test_class_names_are_kept_with_samples(run, tmp_path):
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
    ("system.label_dropout", 1.0, "a probability 0 <= p < 1"), ("system.attention", {}, "attention"),
    ("system.channels", True, "channels"),
    ("system.betas", [0.1, None], "a beta table is a name"), ("system.weighting", None, "a weighting is a name"),
    ("system.parameterization", ["v"], "a parameterization is a name"), ("optimizer.clip", 0.0, "a number above 0, or None"),
    ("optimizer.learning_rate", 3e38, "learning_rate"), ("ema.decay", 1.0, "decay"), ("ema.decay", -0.1, "decay"),
])  # fmt: skip
def test_keys(monkeypatch, key, value, said):
    monkeypatch.undo()  # the U-Net itself
    section, name = key.split(".")
    config = {"system": {"name": "ddpm", "channels": 16, "multipliers": (1,), "attention": (), "classes": 10}}
    config.setdefault(section, {})[name] = value
    with pytest.raises(UserError, match=said):
        plan(config)


@pytest.mark.parametrize(("system", "said"), [
    ({"name": "ddpm", "label_dropout": 1.0}, "a probability 0 <= p < 1"),
    ({"name": "ncsn", "label_dropout": -0.1}, "a probability 0 <= p < 1"),
    ({"name": "score_sde", "sde": "vp", "sigma_max": -1.0}, "0 < sigma_min < sigma_max"),
    ({"name": "score_sde", "sde": "ve", "beta_min": 30.0}, "0 < beta_min < beta_max"),
    ({"name": "score_sde", "discrete": 1000, "end": -1.0}, "end"),
    ({"name": "noisy_classifier", "schedule": "cosine", "sigma_min": 0.0}, "0 < sigma_min < sigma_max"),
    ({"name": "diffusion2015", "codec": [None]}, "a codec is a name"),
    ({"name": "diffusion2015", "basis": 0}, "basis must be a whole number of at least 1"),
    ({"name": "ncsnv2", "dilations": [0, 2]}, "dilations are whole numbers of at least 1"),
])  # fmt: skip
def test_arguments_that_a_system_does_not_read_are_checked_as_well(system, said):
    with pytest.raises(UserError, match=said):
        plan({"system": system})
