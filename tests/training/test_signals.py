"""Signals: the first one saves and leaves, further ones shorten nothing, and nothing is called saved before it is."""

import os
import signal
import subprocess
import sys
import time

import pytest

from diffux import training
from diffux.console import Progress
from diffux.runs import checkpoint
from diffux.training import loop, signals

pytestmark = pytest.mark.usefixtures("quick")


def send(number, times=1):
    for _ in range(times):
        os.kill(os.getpid(), number)
        time.sleep(0.001)


@pytest.fixture(autouse=True)
def heeded_as_usual():
    """Under nohup, and in some launchers, SIGHUP or Ctrl-C is ignored from the start, and a run leaves it so."""
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def stopped(monkeypatch):
    """Send a signal while the update after the first step is prepared."""

    def begin(number):
        place, calls = loop.sharding.place_batch, []

        def placed(batch, mesh):
            calls.append(1)
            if len(calls) == 2:
                send(number, times=2)  # the second some milliseconds after the first
            return place(batch, mesh)

        monkeypatch.setattr(loop.sharding, "place_batch", placed)

    return begin


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_further_signals_shorten_nothing_and_saved_is_said_when_it_is(config, tmp_path, monkeypatch, stopped, number):
    whole, wait, say = [], checkpoint.Checkpoints.wait, Progress.say

    def waiting(self, step):
        send(number, times=5)  # while the save is on its way
        wait(self, step)

    def saying(self, message):
        if message.startswith("stopped by a signal after step 2, which is saved"):
            whole.append(checkpoint.newest_good(tmp_path, print))
        say(self, message)

    monkeypatch.setattr(checkpoint.Checkpoints, "wait", waiting)
    monkeypatch.setattr(Progress, "say", saying)
    before = signal.getsignal(number)
    stopped(number)
    result = training.train(config(), tmp_path)
    assert (result.signal, result.step, whole) == (number, 2, [2])
    assert signal.getsignal(number) is before


def test_signals_are_heeded_until_the_last_save_is_on_disk(config, tmp_path, monkeypatch):
    """At the end of a run as well: the folder of checkpoints is closed while they are still heeded."""
    close, heeded = checkpoint.Checkpoints.__exit__, []

    def closing(self, *error):
        heeded.append(signal.getsignal(signal.SIGTERM).__qualname__)
        return close(self, *error)

    monkeypatch.setattr(checkpoint.Checkpoints, "__exit__", closing)
    training.train(config(**{"training.steps": 2}), tmp_path)
    assert heeded == ["Stop._note"]


def test_after_a_while_a_further_signal_leaves_and_says_what_is_lost(config, tmp_path, monkeypatch, stopped):
    def stuck(self):
        signals.PATIENCE = 0.0
        send(signal.SIGTERM)
        time.sleep(60)

    monkeypatch.setattr(signals, "PATIENCE", signals.PATIENCE)
    stopped(signal.SIGTERM)
    manager = []
    wait = checkpoint.Checkpoints.wait

    def waiting(self, step):
        manager.append(self._manager)
        self._manager = type("Stuck", (), {"wait_until_finished": stuck})()
        wait(self, step)

    monkeypatch.setattr(checkpoint.Checkpoints, "wait", waiting)
    with pytest.raises(KeyboardInterrupt, match="step 2 was not saved; "):
        training.train(config(), tmp_path)
    manager[0].close()


def test_a_signal_that_is_ignored_stays_so(monkeypatch):
    """nohup lets a job outlive its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.Stop() as stop:
            stop.listen()
            send(signal.SIGHUP)
        assert stop.signal is None and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


SLOW = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
from diffux import cli
from diffux.cli import train
from diffux.devices import together
together.signalled = lambda number: time.sleep(0.5)  # the thread that listens is behind, as on a busy machine
def main(arguments):
    print("begun", flush=True)
    {what}
train.main = main
cli.enter(["train"])
"""
OCCUPIED = "import ctypes; ctypes.CDLL(None).sleep(30)"  # as a compilation does, it lets no Python handler run
SWALLOWED = """
    try:
        time.sleep(30)
    except KeyboardInterrupt:
        raise ImportError("initialization failed") from None"""


@pytest.mark.full
@pytest.mark.parametrize("what", ["time.sleep(30)", OCCUPIED, SWALLOWED], ids=["waits", "inside a library", "made an error of it"])
def test_ctrl_c_ends_a_command_with_one_line_in_five_seconds(what):
    command = [sys.executable, "-c", SLOW.format(what=what)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begun\n"
    began = time.monotonic()
    if what == OCCUPIED:
        time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err == "interrupted: nothing was saved after the last checkpoint\n"
    assert time.monotonic() - began < 30  # and not when it had ended by itself


def test_what_was_closed_or_is_full_does_not_end_a_run(config, tmp_path, monkeypatch):
    """`| head -1`, and a log on a full disk."""

    class Full:
        def write(self, text):
            raise OSError(28, "No space left on device")

        flush = isatty = lambda self: None

    monkeypatch.setattr(sys, "stdout", Full())
    assert training.train(config(**{"training.steps": 2}), tmp_path).step == 2
    reading, writing = os.pipe()
    os.close(reading)
    closed = os.fdopen(writing, "w")
    monkeypatch.setattr(sys, "stdout", closed)
    assert training.train(config(**{"training.steps": 4}), tmp_path).step == 4
    with pytest.raises(OSError, match="Broken pipe"):
        closed.close()
