"""The pages say what is there: examples run, commands have these flags, and rows name files that exist."""

import ast
import contextlib
import io
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from diffux import cli, listing, naming
from diffux.cli import _flags, main
from diffux.cli import list as list_command

pytestmark = pytest.mark.usefixtures("quick")

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "experiments" / "configs").glob("*.py"))]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def table(text, heading):
    """The rows of the first table below a heading, without the heads of its columns."""
    below = text.partition(f"## {heading}\n")[2]
    rows = [line for line in below.partition("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows[2:]]


@pytest.mark.full
def test_the_worked_example_trains_and_draws(tmp_path):
    """A paper in one file, as the page has it, with a smaller network."""
    for block in blocks(ARCHITECTURE, "python"):
        name = re.match(r"# (\w+\.py)\n", block)
        if name:
            (tmp_path / name[1]).write_text(block)
    system, config = tmp_path / "rectified_flow.py", tmp_path / "rectified_flow_digits.py"
    small = ["--config.system.channels=4", "--config.system.multipliers=(1,)", "--config.sample.n=2", "--config.sample.steps=2"]
    few = ["--config.steps=4", "--config.training.eval_examples=64"]
    run, out = str(tmp_path / "flow"), tmp_path / "flow.npz"
    assert main(["train", "--use", str(system), "--config", str(config), "--workdir", run, *small, *few]) == 0
    walk = ["--label", "3,8", "--guidance", "2", "--solver", "heun", "--steps", "2"]
    assert main(["sample", "--use", str(system), "--workdir", run, *walk, "--n", "4", "--out", str(out)]) == 0
    assert np.load(out)["labels"].tolist() == [3, 8, 3, 8]


@pytest.mark.full
def test_the_readmes_lines_run(tmp_path, monkeypatch):
    """On a run of a few steps of a tiny network, whose samples are worth nothing."""
    from diffux import training
    from tests.small import SMALL, Tiny

    monkeypatch.setattr("diffux.systems.ddpm.UNet", Tiny)
    config = SMALL | {"system": SMALL["system"] | {"classes": 10, "dropout": 0.0}}
    training.train(config, tmp_path / "runs" / "digits")
    monkeypatch.chdir(tmp_path)
    (block,) = blocks((ROOT / "README.md").read_text(), "python")
    names: dict = {}
    exec(block.replace(", 100", ", 4").replace("n=64", "n=4"), names)
    np.testing.assert_allclose(names["x"][:, :, :4], (names["real"][:4, :, :4] + 1) / 2, atol=1e-6)
    assert np.isfinite(names["bits"])


@pytest.mark.full
def test_the_examples_of_inverse_problems_run(tmp_path, monkeypatch):
    """By a network that knows nothing: what is measured of the samples is what was asked."""
    from diffux import training
    from tests.small import SMALL, Tiny

    monkeypatch.setattr("diffux.systems.ddpm.UNet", Tiny)
    training.train(SMALL, tmp_path / "runs" / "digits")
    monkeypatch.chdir(tmp_path)
    (block,) = blocks((ROOT / "docs" / "inverse_problems.md").read_text(), "python")
    names: dict = {}
    exec(re.sub(r"steps=\d+", "steps=3", block), names)
    want, drawn = (names["real"] + 1) / 2, {name: names[name] for name in ("filled", "repainted", "projected")}
    for name, x in drawn.items():
        np.testing.assert_allclose(x[:, :4], want[:, :4], atol=1e-5, err_msg=name)
    assert all(np.isfinite(names[name]).all() for name in ("diffpir", "pigdm", "exact", "dps", "bright"))


@pytest.mark.full
def test_the_example_of_fine_tuning_runs(tmp_path, monkeypatch, capsys):
    """Two steps of Adam move no weight by more than twice the learning rate, so that those that were taken are near."""
    import jax
    from PIL import Image

    from diffux import training
    from tests.small import SMALL, Tiny

    monkeypatch.setattr("diffux.systems.ddpm.UNet", Tiny)
    monkeypatch.chdir(tmp_path)
    training.train(SMALL | {"system": SMALL["system"] | {"classes": 10}}, "runs/digits")
    for number in range(30):
        (tmp_path / "photos" / "abc"[number % 3]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 8 * number, np.uint8)).save(f"photos/{'abc'[number % 3]}/{number}.png")
    (block,) = [block for block in blocks((ROOT / "docs" / "training.md").read_text(), "python") if "# fine_tuning.py" in block]
    capsys.readouterr()
    exec(block.replace("500", "2"), {})
    said = capsys.readouterr().out
    assert "6 of 7 parameters begin as those of step 6 (ema 0.999) of ddpm; the others begin anew: network/Embed_0" in said
    (mine, other) = (jax.tree_util.tree_flatten_with_path(training.load(name, **weights).variables.params)[0]
                     for name, weights in (("runs/mine", {"raw": True}), ("runs/digits", {})))  # fmt: skip
    moved = {jax.tree_util.keystr(path): np.abs(x - y).max() if x.shape == y.shape else x.shape
             for (path, x), (_, y) in zip(mine, other, strict=True)}  # fmt: skip
    assert moved.pop("['network']['Embed_0']['embedding']") == (3, 4)
    assert all(far == 0 if "Conv_0" in path else 0 < far < 2.1e-4 for path, far in moved.items()), moved


def test_the_weighting_of_the_worked_example_is_the_velocitys():
    """The squared error of F is that of x0_hat = x - t F, divided by t^2."""
    import jax.numpy as jnp

    from diffux import parameterizations, schedules

    level = schedules.rectified()(jnp.asarray([0.2, 0.7]))
    out = parameterizations.velocity(level).out
    np.testing.assert_allclose(1 / out**2, 1 / np.array([0.2, 0.7]) ** 2, rtol=1e-5)


def commands():
    """(page, command, flags) of every command line on a page."""
    for page in PAGES:
        for line in page.read_text().replace("\\\n", " ").splitlines():
            for command, rest in re.findall(
                r"(?:^|&& )\s*(?:diffux|python experiments/(?=\w+\.py)) ?(\w+)(?:\.py)? (--.*?)(?:$|#| && )", line
            ):
                flags = [word for word in shlex.split(rest.replace("...", "")) if word.startswith("--")]
                yield page.name, command, tuple(flag.partition("=")[0] for flag in flags)


@pytest.mark.parametrize(("page", "command", "flags"), sorted(set(commands())))
def test_commands_have_the_flags_that_the_pages_give_them(page, command, flags, capsys):
    assert command in cli.commands()
    with pytest.raises(SystemExit):
        main([command, "--help"])
    known = set(re.findall(r"--[\w.-]+", capsys.readouterr().out))
    for flag in flags:
        assert flag in known or flag.startswith("--config."), f"{page}: diffux {command} has no {flag}"


def test_configs_that_the_pages_name_exist():
    from diffux.cli._config import configs

    for page in PAGES:
        for name in re.findall(r"--config ([a-z]\w+)(?=\s|$)", page.read_text()):
            assert name in configs(), f"{page.name}: {name}"


CALL = r"([a-z]\w*(?:\([^()]*(?:\([^()]*\)[^()]*)*\))?)"  # ddim, karras(rho=5), classifier_free(3, drop=('text',))
KINDS = {"solver": "solvers", "grid": "grids", "guidance": "guidance", "task": "tasks", "config": "configs", "data.name": "data"}


def helps():
    """{command: its help}."""
    for command in cli.commands():
        with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
            main([command, "--help"])
        yield f"diffux {command} --help", said.getvalue()


def code():
    """(where, text) of what a reader may type or copy: the helps, the pages' blocks, and what the configs say of themselves."""
    yield from helps()
    for page in PAGES:
        text = page.read_text()
        yield page.name, "\n".join(blocks(text, "(?:bash|python)")) if page.suffix == ".md" else ast.get_docstring(ast.parse(text))


def said():
    """(where, kind of part, call) for whatever is named after a flag, as an argument of Python, or by `diffux list`."""
    for where, text in code():
        for what, kind in KINDS.items():
            flag = rf"--(?:config\.)?(?:sample\.)?{re.escape(what)}[ =]"
            for call in re.findall(rf"{flag}\"{CALL}\"|{flag}'{CALL}'|{flag}{CALL}(?=\s)", text):
                yield where, kind, "".join(call)
            for call in re.findall(rf'\b{what}="{CALL}"', text):
                yield where, kind, call
        for name in re.findall(r'data\.load\("(\w+)"', text):
            yield where, "data", name
    parser = _flags.Parser("sample", "")
    _flags.add_samples(parser)
    for action in parser._actions:
        if action.dest in KINDS:
            listed = action.help.partition(", ...")
            words = re.split(r", (?![^(]*\))", listed[0].rpartition(": ")[2]) if listed[1] else []
            for call in words + re.findall(rf"such as {CALL}", action.help):
                yield action.option_strings[0], KINDS[action.dest], call


def test_parts_that_helps_and_pages_name_exist():
    """With the arguments that they are given."""
    from diffux.config import parts

    prose = ("and", "with")  # "Without --solver and --steps"
    found = {(where, kind, call.replace("SCALE", "1")) for where, kind, call in said() if call not in prose}
    assert {kind for _, kind, _ in found} == set(KINDS.values()) and len(found) > 50
    assert {("--grid", "grids", "karras(rho=5)"), ("--task", "tasks", "best_of"), ("README.md", "solvers", "unipc")} <= found
    known = {kind: list_command.KINDS[kind]() for kind in KINDS.values()}
    for where, kind, call in found:
        name, _, options = naming.parse(kind, call)
        assert name in known[kind], f"{where} names {name}, which is none of the {kind}"
        made = getattr(parts, f"known_{kind}", dict)()
        assert options.keys() <= set(naming.accepts(made[name])[0] if name in made else options), f"{where}: {call}"


def test_runs_are_trained_before_they_are_used():
    """By a command that stands above on the same page, or by the README's; a remark in the block may say whose run it is."""
    used = set()
    for where, text in code():
        known = {"runs/digits"}
        for line in text.replace("\\\n", " ").splitlines():
            uses = re.search(r"^ *(diffux|python experiments/\w+\.py) (?!train)|\bload\(\"runs/", line)
            names = set(re.findall(r"\bruns/\w+", line.partition("#")[0] if uses else line))
            if uses and not where.endswith("--help"):
                assert names <= known, f"{where}: nothing trains {names - known}"
                used |= names
            known |= names
    assert {"runs/digits", "runs/classifier", "runs/averages", "runs/flow"} <= used


def test_lists_that_helps_and_pages_name_exist():
    named = {(where, what) for where, text in code() for what in re.findall(r"diffux list (\w+)", text)}
    assert {what for _, what in named} >= {"solvers", "figures", "configs"}
    for where, what in named:
        assert what in list_command.KINDS, f"{where}: diffux list {what}"


def test_nouns_stand_where_the_page_says():
    rows = table(ARCHITECTURE, "The nouns")
    assert len(rows) > 15
    for noun, _, where in rows:
        assert (ROOT / "diffux" / where.strip("`")).exists(), noun


def test_what_is_added_goes_where_the_page_says():
    """Folders exist, and a file with the function that a row names is found by listing."""
    import importlib

    rows = table(ARCHITECTURE, "Where does it go?")
    assert {"a solver", "a weighting", "a system", "a field", "a figure"} <= {row[0] for row in rows}
    for what, where, _ in rows:
        first = re.findall(r"`([\w/.]+)`", where.replace("_NAME", "NAME"))[0]
        path = ROOT / first.replace("NAME.py", "")
        assert path.exists(), what
        function = re.search(r"with `(\w+)\(", where)
        if function and path.is_dir() and first.startswith("diffux/"):
            package = importlib.import_module(f"diffux.{path.name}")
            assert function[1] == "matches" or listing.modules(package, function[1]), what


def test_the_readmes_lines_can_be_read_in_a_terminal():
    for line in "".join(blocks((ROOT / "README.md").read_text(), "bash")).splitlines():
        assert len(line) <= 100, line


def test_every_solver_that_can_be_named_is_in_the_one_list():
    """The list that the tests, the benchmarks and the figure are crossed with; test_structure has the page's rows."""
    from diffux.config import parts
    from tests.solvers.table import ROWS

    listed = {re.match(r"\w+", name)[0] for members in ROWS.values() for name in members}
    assert set(parts.known_solvers()) <= listed
