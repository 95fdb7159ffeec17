"""Loggers: what they are told, by name and from Python, and that none of them ends a run."""

import csv
import importlib.util
import json
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest

from diffux import cli, loggers, training
from diffux.errors import UserError
from diffux.loggers.csv import Csv
from diffux.loggers.tensorboard import TensorBoard
from diffux.runs import checkpoint, metrics

pytestmark = pytest.mark.usefixtures("quick")

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text()


class Heard:
    """A logger that remembers what it is told."""

    def __init__(self):
        self.rows, self.pictures, self.closed = [], [], 0

    def log(self, step, numbers):
        self.rows.append((step, numbers))

    def picture(self, step, path):
        self.pictures.append((step, path.name, path.is_file()))

    def close(self):
        self.closed += 1


class Broken:
    """A logger that fails at everything, as a service that is down, or a program that asks to leave."""

    def __init__(self, error):
        self.error, self.asked = error, 0

    def log(self, step, numbers):
        self.asked += 1
        raise self.error

    def close(self):
        raise self.error


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def events(folder):
    """[(step, tag, number or None)] of event files: the length of an event, its checksum, the event, another checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for file in sorted(folder.iterdir()):
        data = file.read_bytes()
        while len(data) >= 12 + int.from_bytes(data[:8], "little") + 4:
            size = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + size])
            found += [(event.step, value.tag, None if value.HasField("image") else value.simple_value)
                      for value in event.summary.value]  # fmt: skip
            data = data[16 + size :]
    return found


# ------------------------------------------------------------------------------------------------------------- in a run


@pytest.mark.full
def test_every_logger_is_told_the_rows_of_the_run(config, tmp_path):
    """Those of the config and those of the call hear what metrics.jsonl says, and of the pictures."""
    heard = Heard()
    wanted = config(**{"training.loggers": ["csv", {"name": "csv", "file": "b.csv"}, "tensorboard"], "training.sample_every": 3})
    training.train(wanted, tmp_path, loggers=[heard])
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rows = [(line.pop("step"), {key: value for key, value in line.items() if key != "time"}) for line in lines]
    assert heard.rows == rows and heard.closed == 1
    assert [step for step, numbers in rows if "held_out_loss" in numbers] == [3, 6]
    assert heard.pictures == [(3, "step_000003.png", True), (6, "step_000006.png", True)]
    for name in ("metrics.csv", "b.csv"):
        kept = [(int(row.pop("step")), row) for row in table(tmp_path / name)]
        told = [(step, {key: float(value) for key, value in row.items() if value and key != "time"}) for step, row in kept]
        assert told == rows
    found = events(tmp_path / "tensorboard")
    numbers = [(step, name, np.float32(value)) for step, row in rows for name, value in row.items()]
    assert [event for event in found if event[2] is not None] == numbers
    assert [event for event in found if event[2] is None] == [(3, "samples", None), (6, "samples", None)]


@pytest.mark.full
def test_a_logger_that_raises_ends_nothing_and_takes_nothing_from_others(config, tmp_path, capsys):
    errors, heard = (OSError("no route\nto host"), SystemExit(1), KeyError("loss")), Heard()
    broken = [Broken(error) for error in errors]
    assert training.train(config(), tmp_path, loggers=[*broken, heard]).step == 6
    assert checkpoint.newest_good(tmp_path, print) == 6 and len(heard.rows) > 3 and heard.closed == 1
    assert {one.asked for one in broken} == {len(heard.rows)}  # they are told of every row
    said = [line for line in capsys.readouterr().out.splitlines() if "a logger failed" in line]
    wanted = [f"Broken.{name}: {type(error).__name__}" for name in ("log", "close") for error in errors]
    assert [re.search(r"Broken\.\w+: \w+", line)[0] for line in said] == wanted
    assert "no route to host" in said[0]


def test_a_failure_is_said_again_once_it_was_mended():
    said, broken = [], Broken(OSError(28, "No space left on device"))
    told = loggers.Told([broken], said.append)
    told.log(1, {})
    told.log(2, {})
    broken.log = lambda step, numbers: None
    told.log(3, {})
    del broken.log
    told.log(4, {})
    assert len(said) == 2


@pytest.mark.full
def test_a_file_of_ones_own_is_named_as_the_librarys(config, tmp_path, capsys):
    """By --use, with options; it is told the folder and the config, and loggers may change when a run is continued."""
    (tmp_path / "noting.py").write_text(textwrap.dedent('''
        """Notes in a file."""
        import json, pathlib

        class Notes:
            def __init__(self, path, about):
                self.path, self.lines = path, [about]

            def log(self, step, numbers):
                self.lines.append([step, sorted(numbers)])

            def close(self):
                self.path.write_text(json.dumps(self.lines))

        def logger(workdir, config, name="notes.json"):
            return Notes(pathlib.Path(workdir) / name, config["training"]["steps"])
    '''))  # fmt: skip
    own = tmp_path / "noting.py"
    training.train(config(), tmp_path / "run", use=[own])
    longer = config(**{"training.steps": 8, "training.loggers": ["noting(name='mine.json')"]})
    training.train(longer, tmp_path / "run", use=[own])
    first, *rows = json.loads((tmp_path / "run" / "mine.json").read_text())
    assert first == 8 and [8, ["held_out_loss"]] in rows
    capsys.readouterr()
    assert cli.main(["list", "loggers", "--use", str(own)]) == 0
    assert re.findall(r"^(\w+)  ", capsys.readouterr().out, re.M) == ["csv", "noting", "tensorboard"]


@pytest.mark.parametrize(("wanted", "words"), [
    (["tensorbord"], "unknown logger 'tensorbord'; did you mean 'tensorboard'"),
    ("csv(fil='x')", "unknown option of logger csv 'fil'; did you mean 'file'"),
    ([3], "a logger is a name, a name with its arguments, or a part made in Python, got 3"),
    ([{"file": "x"}], "a logger given as a mapping needs its name"),
])  # fmt: skip
def test_what_is_no_logger_is_refused_before_anything_is_written(config, tmp_path, wanted, words):
    with pytest.raises(UserError, match=re.escape(words)) as error:
        training.train(config(**{"training.loggers": wanted}), tmp_path / "run")
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


def test_a_logger_that_cannot_begin_is_refused_and_nothing_is_lost(config, tmp_path, untyped):
    (tmp_path / "away.py").write_text("def logger(config):\n    raise RuntimeError('no key for the service')\n")
    wanted = config(**{"training.loggers": ["away"]})
    with pytest.raises(UserError, match=r"the logger of away cannot begin \(RuntimeError: no key for the service\): mend it"):
        training.train(wanted, tmp_path / "run", use=[tmp_path / "away.py"])
    with pytest.raises(UserError, match=r"a logger has log\(step, numbers\) and close\(\), and list has not both"):
        training.train(config(), tmp_path / "run", loggers=[[]])
    assert training.train(config(**{"training.loggers": None}), tmp_path / "run").step == 6
    assert not (tmp_path / "run" / "tensorboard").exists()


# ------------------------------------------------------------------------------------------------------------- their files


def test_a_table_grows_by_columns_and_is_continued(tmp_path):
    path = tmp_path / "metrics.csv"
    table_of = Csv(path)
    table_of.log(1, {"loss": 0.5})
    table_of.log(1, {"held_out": 0.25, "loss": 2.0})
    with path.open("a") as file:
        file.write("2,17.0,0.")  # cut off
    Csv(path).log(3, {"rate": 1e-7})
    rows = [{key: value for key, value in row.items() if key != "time"} for row in table(path)]
    blank = {"loss": "", "held_out": "", "rate": ""}
    wanted = [{"step": "1", "loss": "0.5"}, {"step": "1", "loss": "2.0", "held_out": "0.25"}, {"step": "3", "rate": "1e-07"}]
    assert rows == [{**blank, **row} for row in wanted]
    assert not list(tmp_path.glob(".*"))


def test_a_table_on_a_full_disk_goes_on_where_there_is_room(tmp_path, monkeypatch):
    path = tmp_path / "metrics.csv"
    log = Csv(path)
    log.log(1, {"loss": 1.0})
    whole = path.read_bytes()
    with monkeypatch.context() as full:
        full.setattr(csv.DictWriter, "writerow", lambda self, row: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space"):
            log.log(2, {"loss": 2.0})
    path.write_bytes(whole + b"2,1")  # as much as there was room for
    log.log(3, {"loss": 3.0})
    assert [row["loss"] for row in table(path)] == ["1.0", "3.0"]


def test_events_after_a_full_disk_are_in_another_file(tmp_path):
    """A reader stops in a file where an event is cut off."""
    log = TensorBoard(tmp_path / "tensorboard")
    log.log(1, {"loss": 1.0})
    log._writer.write_event = lambda event: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    with pytest.raises(OSError, match="No space"):
        log.log(2, {"loss": 2.0})
    log.log(3, {"loss": 3.0})
    log.close()
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    assert [step for step, *_ in events(tmp_path / "tensorboard") if step] == [1, 3]


# --------------------------------------------------------------------------------------------------- services, as documented


def example(name):
    """The example of the page whose first line is `# name`."""
    (found,) = re.findall(rf"```python\n(# {name}\n.*?)```", PAGE, re.DOTALL)
    assert len([line for line in found.splitlines() if line.strip()]) <= 13
    return found


def trained(config, tmp_path, name):
    file = tmp_path / name
    file.write_text(example(name))
    training.train(config(**{"training.loggers": [file.stem]}), tmp_path / "run", use=[file])
    return [(row["step"], row["loss"]) for row in metrics.read(tmp_path / "run") if "loss" in row]


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_weights_and_biases_offline(config, tmp_path, monkeypatch):
    """What the file holds that `wandb sync` would send."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    rows = trained(config, tmp_path, "to_wandb.py")
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    found, pictures, learning_rate = [], 0, None
    for record in map(Record.FromString, records(file.read_bytes())):
        items = {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
        if "loss" in items:
            found.append((record.history.step.num, json.loads(items["loss"])))
        pictures += "samples" in items
        for update in record.run.config.update:
            if update.key == "optimizer":
                learning_rate = json.loads(update.value_json)["learning_rate"]
    assert found == rows and pictures == 1 and learning_rate == 1e-2


def records(data, block=32768):
    """The records of a log as LevelDB lays it out, after a header of 7 bytes: checksum (4), length (2), kind (1), content."""
    at, parts = 7, b""
    while at + 7 <= len(data):
        if block - at % block < 7:
            at += block - at % block
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts, at = parts + data[at + 7 : at + 7 + size], at + 7 + size
        if kind in (1, 4):  # a whole one, or the last part of one
            yield parts
            parts = b""


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="mlflow is not installed")
def test_mlflow_in_a_folder(config, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    rows = trained(config, tmp_path, "to_mlflow.py")
    import mlflow

    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("diffux").experiment_id])
    assert [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, "loss")] == rows
    assert run.info.status == "FINISHED" and run.data.params["learning_rate"] == "0.01"
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["step_000006.png"]
