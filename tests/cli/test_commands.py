"""The scripts as a user runs them, and as a user mistypes them."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffux import cli, listing
from diffux.cli import _config, _flags
from diffux.errors import UserError
from diffux.runs import folder

pytestmark = pytest.mark.usefixtures("quick")

ROOT = Path(__file__).parents[2]
EXPERIMENTS = ROOT / "experiments"
DIGITS = str(EXPERIMENTS / "configs" / "ddpm_digits.py")
# The smallest U-Net, with everything random that a run has: augmentation, dequantisation, dropout, label dropout.
SMALL = [
    "--config.system.channels=16",
    "--config.system.multipliers=(1,)",
    "--config.system.attention=()",
    "--config.system.blocks=1",
    "--config.system.dropout=0.1",
    "--config.system.classes=10",
    "--config.data.batch_size=16",
    "--config.data.crop=1",
    "--config.data.dequantize=True",
    "--config.optimizer.schedule=constant",
    "--config.training.log_every=5",
    "--config.training.eval_examples=16",
    "--config.ema.power=0.1",
    "--config.sample.n=4",
    "--config.sample.steps=2",
]


@pytest.fixture(scope="module")
def environment(cache):
    return os.environ | {"DIFFUX_CACHE": str(cache), "JAX_PLATFORMS": "cpu", "PYTHONPATH": "", "COLUMNS": "100"}


@pytest.fixture
def scripts():
    """The commands, run in this process."""
    return lambda name: lambda *arguments: cli.main([name, *arguments])


def command(name, *arguments):
    return [sys.executable, str(EXPERIMENTS / f"{name}.py"), *map(str, arguments)]


def script(environment, name, *arguments):
    return subprocess.run(command(name, *arguments), env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def run(environment, tmp_path_factory):
    """A run of 30 steps, started by the command of the documentation."""
    workdir = tmp_path_factory.mktemp("runs") / "straight"
    done = script(environment, "train", "--config", DIGITS, "--workdir", workdir, "--config.steps=30", *SMALL)
    assert done.returncode == 0, done.stderr
    return workdir, done


@pytest.mark.full
def test_training_prints_plain_lines_without_a_terminal(run):
    workdir, done = run
    assert "\x1b" not in done.stdout and "\r" not in done.stdout
    assert len(re.findall(r"^training \d+/30: loss [\d.]+, \d+ images/s", done.stdout, re.M)) == 6
    assert "first step after" in done.stdout and str(workdir / "samples.png") in done.stdout
    assert Image.open(workdir / "samples.png").size == (2 * 51 + 3, 2 * (51 + 12) + 3)  # digits with their captions


@pytest.mark.full
def test_ctrl_c_saves_and_the_same_command_continues_bit_for_bit(run, environment, tmp_path):
    straight, _ = run
    arguments = ("--config", DIGITS, "--workdir", tmp_path / "stopped", "--config.steps=30", *SMALL)
    process = subprocess.Popen(
        command("train", *arguments), env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    for line in process.stdout:
        if line.startswith("training 10/30"):
            process.send_signal(signal.SIGINT)
            break
    said, wrong = process.communicate(timeout=120)
    assert process.returncode == 130, wrong
    assert "which is saved" in said and "Traceback" not in wrong
    done = script(environment, "train", *arguments)
    assert done.returncode == 0 and "continuing the run" in done.stdout, done.stderr
    stopped = tmp_path / "stopped"
    for name in ("raw", "ema"):
        files = [tmp_path / f"{name}_{i}.npz" for i in (0, 1)]
        for workdir, file in zip((straight, stopped), files, strict=True):
            _weights(workdir, name == "raw", file)
        one, other = (np.load(file) for file in files)
        assert one.files == other.files and all(one[key].tobytes() == other[key].tobytes() for key in one.files)
    again = script(environment, "train", *arguments)
    assert again.returncode == 0 and "is finished: 30 steps" in again.stdout


def _weights(workdir, raw, file):
    import jax

    from diffux import training

    variables = training.load(workdir, raw=raw).variables
    leaves = jax.tree_util.tree_leaves_with_path(variables.params if raw else variables.ema)
    np.savez(file, **{jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves})


@pytest.mark.full
def test_sampling_writes_pictures_arrays_and_walks(run, scripts, tmp_path):
    workdir, _ = run
    sample = scripts("sample")
    common = ("--workdir", str(workdir), "--seed", "3", "--steps", "3", "--solver", "ddim")
    written = [str(tmp_path / name) for name in ("a.npz", "a.png", "walk.gif", "strip.png", "b.npz", "c.npz", "d.npz")]
    assert sample(*common, "--n", "7", "--batch", "3", "--out", written[0], "--out", written[1],
                  "--trajectory", written[2], "--frames", "2", "--label", "3,5") == 0  # fmt: skip
    assert sample(*common, "--n", "5", "--out", written[4], "--trajectory", written[3], "--frames", "3", "--label", "3,5") == 0
    first, second = np.load(written[0]), np.load(written[4])
    assert first["images"].shape == (7, 8, 8, 1) and first["images"].dtype == np.float32
    assert first["images"].min() >= 0 and first["images"].max() <= 1
    assert first["labels"].tolist() == [3, 5, 3, 5, 3, 5, 3]
    assert (first["seed"], first["solver"], first["steps"], first["weights"]) == (3, "ddim", 3, "ema 0.995")
    # sample i of a seed is the same whatever the batch
    np.testing.assert_allclose(first["images"][:5], second["images"], atol=2e-6)
    assert Image.open(written[1]).size == (2 * 51 + 3, 4 * (51 + 12) + 3)  # a column for each digit, with captions
    assert Image.open(written[3]).size == (3 * 51 + 3, 5 * 51 + 3)
    assert sample(*common, "--n", "5", "--out", written[5], "--raw", "--checkpoint", "best") == 0
    assert sample(*common, "--n", "5", "--out", written[6], "--guidance", "3", "--option", "eta=0.5") == 0
    assert json.loads(str(np.load(written[6])["options"])) == {"eta": 0.5}
    assert np.load(written[5])["weights"] == "raw"
    assert not np.array_equal(np.load(written[5])["images"], np.load(written[6])["images"])


@pytest.mark.full
def test_an_export_is_sampled_like_its_run(run, scripts, tmp_path, capsys):
    workdir, _ = run
    sample, weights = scripts("sample"), str(tmp_path / "model.safetensors")
    common = ("--n", "3", "--steps", "2", "--solver", "ddim")
    assert scripts("export")("--workdir", str(workdir), "--out", weights, "--average", "power_0.1") == 0
    assert "(weights: ema power_0.1; step 30)" in capsys.readouterr().out
    files = [str(tmp_path / name) for name in ("a.npz", "b.npz", "c.npz")]
    assert sample("--weights", weights, "--out", files[0], *common) == 0
    assert sample("--workdir", str(workdir), "--average", "power_0.1", "--out", files[1], *common) == 0
    assert sample("--workdir", str(workdir), "--out", files[2], *common) == 0
    one, other, first = (np.load(file)["images"] for file in files)
    assert np.array_equal(one, other) and not np.array_equal(one, first)
    capsys.readouterr()
    for arguments, message in (
        (("--average", "power_0.07"), "and no snapshots to make it from (ema.snapshot_every); there are: 0.995, power_0.1, raw"),
        (("--dtype", "float8"), "unknown dtype of an export 'float8'"),
    ):
        assert scripts("export")("--workdir", str(workdir), "--out", str(tmp_path / "x.safetensors"), *arguments) == 2
        _one_sentence(capsys.readouterr().err, message)


@pytest.mark.full
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--solver ddmi", "unknown solver 'ddmi'; did you mean 'ddim'"),
        ("--solver heun --eta 1", "has no eta"),
        ("--option order=2", "the solver options order need the name of a solver"),
        ("--solver heun --option ordr=2", "unknown option of solver heun 'ordr'"),
        ("--solver ddim --option eta", "--option is name=value, once for every name, got 'eta'"),
        ("--solver ddim --option eta=0 --option eta=1", "once for every name, got 'eta=1'"),
        ("--solver ddim --option eta=1+", "has no number, tuple, True, False, None or single word as its value"),
        ("--grid karas", "unknown grid 'karas'; did you mean 'karras'"),
        ("--average 0.99", "unknown average '0.99'; did you mean '0.995'"),
        ("--average 0.995 --raw", "exclude each other"),
        ("--weights x.safetensors", "--weights: not allowed with argument --workdir"),
        ("--label 10", "label 10 is not among the classes 0 to 9"),
        ("--label three", "a label is a number from 0 to 9"),
        ("--steps 2000", "1000"),
        ("--steps -1", "steps must be at least 1, got -1"),
        ("--n 0", "--n must be at least 1"),
        ("--n many", "--n"),
        ("--checkpoint 7", "no checkpoint of step 7"),
        ("--checkpoint newest", "no checkpoint of step newest"),
        ("--out samples.bmp", "samples.bmp must end in .png or .npz"),
        ("--trajectory walk.mp4", "walk.mp4 must end in .png or .gif"),
        ("--trajectory walk.gif --steps 3", "a walk of 3 steps has no 10 frames"),
        ("--workdir nowhere", "there is no folder"),
        ("--seeds 3", "unknown flag '--seeds'; did you mean '--seed'"),
        ("--classifier_scale 2", "--classifier-scale belongs to --classifier"),
        ("--task cascad", "unknown task 'cascad'; did you mean 'cascade'"),
        ("--task cascade", "the task cascade is of --model base=RUN --model up=RUN, got model"),
        ("--task vote(drawz=3)", "the task vote takes draws=..., got vote(drawz=3)"),
        ("--model up=runs/up", "say which run: --workdir DIR, or --model NAME=RUN"),
        ("--given low=photo.png", "low was given, and nothing reads it: this model is given label"),
        ("--given label=cat", "a label is a number from 0 to 9, or several with commas between, got 'cat'"),
        ("--given label=3 --given label=4", "--given is name=value, once for every name, got 'label=4'"),
        ("--given label=3 --label 4", "--label and --given label are one thing: give one of them"),
        ("--guidance clasifier_free(2)", "unknown guidance 'clasifier_free'; did you mean 'classifier_free'"),
        ("--guidance 2 --guidance print()()", "a guidance is a name, or a call of numbers and words"),
        ("--guidance classifier(2)", "which no word can be: name a network, --net classifier=RUN"),
        ("--guidance 2 --net judge=nowhere", "--net judge was given, and neither the guidance (none) nor a model names it"),
    ],
)
def test_what_sampling_refuses(run, scripts, capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert scripts("sample")("--workdir", str(run[0]), "--out", "x.png", *arguments.split()) == 2
    _one_sentence(capsys.readouterr().err, message)
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: --config"),
        (["--config", DIGITS], "--workdir is needed"),
        (["--config", DIGITS.replace("digits", "digit")], "ddpm_digits.py"),
        (["--config.training.stps=3"], "unknown config key 'training.stps'; did you mean 'training.steps'"),
        (["--config.sytem.channels=3"], "unknown config key 'sytem.channels'; did you mean 'system.channels'"),
        (["--config.steps=-3"], "training.steps must be at least 1, got -3"),
        (["--config.steps=many"], "invalid literal for int() with base 10: 'many'"),
        (["--config.system={}"], "would replace a whole section"),
        (["--config.system.name=ddmp"], "unknown system 'ddmp'; did you mean 'ddpm'"),
        (["--config.system.name=ncsn"], "unknown option of system ncsn"),
        (["--config.data.name=digist"], "digits"),
        (["--config.data.size=9"], "9"),
        (["--config.optimizer.name=adm"], "did you mean 'adam'"),
        (["--config.sample.solver=dimm"], "did you mean 'ddim'"),
        (["--bogus=1"], "unknown flag '--bogus'"),
        (["--work_dri=x"], "unknown flag '--work-dri'; did you mean '--workdir'"),
        (["--use", "nowhere.py"], "nowhere.py cannot be read: No such file or directory"),
        (["--net", "teacher"], "--net is name=value, once for every name, got 'teacher'"),
        (["--config.training.start=nowhere"], "nowhere"),
        (["bogus"], "unexpected argument 'bogus'"),
    ],
)
def test_what_training_refuses(scripts, environment, capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.setenv("DIFFUX_CACHE", environment["DIFFUX_CACHE"])
    if arguments and arguments[0] != "--config":
        arguments = ["--config", DIGITS, *arguments]
    if "--config" in arguments and "needed" not in message:
        arguments = [*arguments, "--workdir", str(tmp_path / "run")]
    begun = time.perf_counter()
    assert scripts("train")(*arguments) == 2
    _one_sentence(capsys.readouterr().err, message)
    assert not (tmp_path / "run" / "config.json").exists()
    assert time.perf_counter() - begun < 60


def test_options_are_literals_or_words(scripts):
    words = ["order=2", "eta=-0.5", "variance=upper", "spacing='a b'", "levels=(1, 2)", "exact=True", "inner=None"]
    assert _flags.options(words) == {
        "order": 2, "eta": -0.5, "variance": "upper", "spacing": "a b", "levels": (1, 2), "exact": True, "inner": None,
    }  # fmt: skip
    assert _flags.options(None) == {}
    for word in ("order", "=2", "a b=2", "order=", "order=2x", "order=__import__('os')"):
        with pytest.raises(UserError, match=r"--option"):
            _flags.options([word])


def _one_sentence(printed, message):
    assert printed.startswith("error: ") and printed.count("\n") == 1 and "Traceback" not in printed
    assert message in printed


def test_help_is_help(scripts, capsys):
    for name, found in cli.commands().items():
        with pytest.raises(SystemExit) as left:
            scripts(name)("--help")
        said = capsys.readouterr().out
        assert left.value.code == 0 and f"diffux {name} " in said and found.said in " ".join(said.split())
    assert cli.main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"  {name}" in said and found.said in said for name, found in cli.commands().items())


def test_every_config_is_one_that_can_be_read(scripts):
    from diffux.config import schema
    from diffux.config.plan import plan

    files = sorted((EXPERIMENTS / "configs").glob("*.py"))
    assert _config.configs() == {file.stem: file for file in files}
    # what some are built on, from the config that trains it
    needed = {"contrastive": "unclip_shapes:contrastive", "dvae": "dalle_shapes:codes"}
    built = lambda config: plan(config, nets={name: plan(_config.read(needed[name], [])).system  # noqa: E731
                                              for name in config.get("nets") or () if name in needed})  # fmt: skip
    for file in files:
        config = _config.read(file.stem, [])
        made = built(config)
        assert made.config == schema.check(config) and made.name == config["system"]["name"]
        assert f"diffux train --config {file.stem} --workdir" in file.read_text()
        for part in re.findall(rf"--config {file.stem}:(\w+)", file.read_text()):  # a file of several configs
            assert built(_config.read(f"{file.stem}:{part}", [])).config["system"] != config["system"]
    changed = _config.read(DIGITS, ["--config.training.steps=7", "--config.system.multipliers=(1, 3)"])
    assert changed["training"]["steps"] == 7 and changed["system"]["multipliers"] == [1, 3] and "steps" not in changed
    assert _config.read(DIGITS, ["--config.steps", "8"])["training"]["steps"] == 8
    averages = _config.read(DIGITS, ["--config.ema.decay=0.9,0.99", "--config.ema.samples_from=0.99"])["ema"]
    assert averages["decay"] == [0.9, 0.99] and schema.check({"ema": averages})
    assert _config.read(DIGITS, ["--config.ema.decay=0.9"])["ema"]["decay"] == [0.9]
    assert _config.read(DIGITS, ["--config.system.classes=10"])["system"]["classes"] == 10
    none = "--config.system.classes=None"
    for words in (none, none.replace("=", " "), f"--config.system.classes=3 {none}"):
        assert _config.read(DIGITS, words.split())["system"]["classes"] is None  # a number in the file
    with pytest.raises(UserError, match="batch_size"):
        plan(_config.read(DIGITS, ["--config.data.batch_size=None"]))


def test_a_config_by_its_bare_name_is_printed_whole(capsys):
    """The file, its defaults and what the flags change, as JSON, and nothing else is done; `mine` is no name."""
    assert cli.main(["train", "--config", "ddpm_digits", "--print-config", "--config.steps=7"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == _config.read(DIGITS, ["--config.steps=7"])
    assert printed["training"]["steps"] == 7 and printed["training"]["keep"] == 2 and printed["system"]["variance"] == "posterior"
    assert cli.main(["train", "--config", "ddpm_digit", "--print_config"]) == 2  # the flag is read with an underscore as well
    _one_sentence(capsys.readouterr().err, "unknown config file 'ddpm_digit'; did you mean 'ddpm_digits'")


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("systems", {"ddpm", "ncsn", "score_sde", "diffusion2015", "noisy_classifier"}),
        ("solvers", {"ancestral", "ddim", "heun", "unipc"}),
        ("guidance", {"classifier_free", "classifier", "static_threshold"}),
        ("configs", {"ddpm_digits", "ddpm_cifar10", "diffusion2015_swiss_roll"}),
        ("data", {"swiss_roll", "heartbeats", "captioned_shapes", "mnist_5k", "folder", "npz"}),
        ("figures", {"images", "points", "heartbeats", "likelihood"}),
        ("tasks", {"once", "cascade", "vote", "best_of"}),
        ("grids", {"uniform", "karras"}),
        ("networks", {"unet", "mlp"}),
        ("loggers", {"tensorboard", "csv"}),
    ],
)
def test_what_there_is_is_listed_a_line_each(capsys, kind, names):
    """A name, and a sentence that says what it is."""
    assert cli.main(["list", kind]) == 0
    rows = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert names <= {name for name, _ in rows} and len({name for name, _ in rows}) == len(rows)
    assert all(len(said) > 10 and said.endswith(".") for _, said in rows), rows


def test_files_of_ones_own_are_listed_with_the_others(capsys, tmp_path):
    (tmp_path / "my_own_walk.py").write_text('"""A system of mine. It does little."""\n\n\ndef build():\n    return None\n')
    assert cli.main(["list", "systems", "--use", str(tmp_path / "my_own_walk.py")]) == 0
    assert re.search(r"^my_own_walk +A system of mine\.$", capsys.readouterr().out, re.M)


def test_mistyped_commands_and_kinds_have_near_matches(capsys):
    for arguments, message in (
        (["trian"], "unknown command 'trian'; did you mean 'train'"),
        (["--workdir", "x"], "diffux begins with a command, one of compile, evaluate, export, list, sample, train, got --workdir"),
        (["list", "solver"], "unknown kind of parts 'solver'; did you mean 'solvers'"),
        (["list"], "required: WHAT"),
        (["compile", "--config", "ddpm_digits", "--memry=3"], "unknown flag '--memry'; did you mean '--memory'"),
    ):
        assert cli.main(arguments) == 2
        _one_sentence(capsys.readouterr().err, message)


def test_guidance_is_a_chain_and_nets_have_names():
    """In the order of the flags, a number alone being a scale; --classifier is short for both, and innermost."""
    parser = _flags.Parser("sample", "")
    _flags.add_samples(parser)
    walk = lambda *words: _flags.walk(parser.parse(words))  # noqa: E731
    found = walk("--guidance", "classifier_free(3)", "--guidance", "static_threshold(1)", "--guidance=2", "--net", "judge=runs/j")
    assert found["guidance"] == ["classifier_free(3)", "static_threshold(1)", 2.0] and found["nets"] == {"judge": "runs/j"}
    found = walk("--guidance", "2", "--classifier", "runs/c", "--classifier_scale=3")
    assert found["guidance"] == ["classifier(3.0)", 2.0] and found["nets"] == {"classifier": "runs/c"}
    assert walk()["guidance"] is None


def test_a_file_of_parts_is_asked_for_again_and_never_imported(tmp_path):
    """What a run's folder names is compared with what is in use, by name and hash; a file that changed is said so."""
    file, said = tmp_path / "my_parts_of_a_run.py", []
    file.write_text("raise SystemExit('imported')\n")
    with pytest.raises(UserError, match=r"made with parts of my_parts_of_a_run.py: name that file again, --use my_parts_of_a_run"):
        folder.check_used(tmp_path, {file.name: "0" * 64}, said.append)
    with pytest.raises(UserError, match=r"my_parts_of_a_run\.py cannot be used: SystemExit: imported"):
        listing.use([file])
    file.write_text("WORD = 3\n")
    kept = folder.use_of(listing.use([file]))
    assert kept == {file.name: hashlib.sha256(b"WORD = 3\n").hexdigest()}
    folder.check_used(tmp_path, kept, said.append)
    assert not said
    folder.check_used(tmp_path, {file.name: "0" * 64}, said.append)
    assert said == [f"{file} is not as it was when the run in {tmp_path} began"]
