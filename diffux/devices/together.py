"""Several processes as one run: they begin together, wait for each other, and end where one of them is gone or stuck.

All of it is silent in a run of one process. Processes talk through the key-value store of JAX's coordination service, which
lives in process 0. Exit statuses are in docs/many_hosts.md.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import NoReturn

import jax

from diffux.devices import cluster, roll_call
from diffux.errors import Lost, UserError, one_sentence

# What a thread that found another process gone leaves the main one, which may be stuck in a collective, to end by itself.
_GRACE = 3.0
_LEFT = "diffux/left"
_turns: collections.Counter[str] = collections.Counter()


def _seconds(variable: str, default: float) -> float:
    text = os.environ.get(variable) or str(default)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < float("inf"):
        raise UserError(f"{variable} is a number of seconds above 0, got {text!r}")
    return seconds


def initialize(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    *,
    required: bool = False,
    start_timeout: float | None = None,
) -> None:
    """Begin as one of several processes if this is one (`cluster.find` says how that is known), before JAX is used.

    start_timeout: how long to wait for the others, in seconds; by default $DIFFUX_START_TIMEOUT or 300. A process that is
    silent for $DIFFUX_LOST_TIMEOUT seconds (60) counts as gone from then on.

    Raises UserError for settings that cannot work; Lost, which names them, where processes are missing.
    """
    timeout = _seconds("DIFFUX_START_TIMEOUT", 300) if start_timeout is None else start_timeout
    if not 0 < timeout < float("inf"):
        raise UserError(f"--start-timeout is a number of seconds above 0, got {timeout}")
    lost = _seconds("DIFFUX_LOST_TIMEOUT", 60)
    for variable in ("DIFFUX_STUCK_TIMEOUT", "DIFFUX_BARRIER_TIMEOUT"):  # read later
        _seconds(variable, 1800)
    found = cluster.find(coordinator, processes, process, required=required, timeout=timeout)
    if found is None:
        return
    hosts = roll_call.meet(found, timeout)
    # JAX's own notice of preemption would swallow a SIGTERM before training.signals listens, and save at steps of its own.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            found.coordinator,
            found.processes,
            found.process,
            local_device_ids=found.devices,
            cluster_detection_method="deactivate",
            initialization_timeout=max(int(timeout), 10),
            # JAX's abort, which names nobody, comes after our own watch has had its time.
            heartbeat_timeout_seconds=int(lost) + 30,
            shutdown_timeout_seconds=60,
            coordinator_bind_address=found.coordinator if found.address[0] in ("localhost", "127.0.0.1") else None,
        )
    except RuntimeError as error:
        raise UserError(f"JAX cannot begin with {found.processes} processes: {one_sentence(error)[:300]}") from error
    if found.process == 0:
        machines = len(set(hosts))
        print(f"{found.processes} processes on {machines} host{'s' * (machines > 1)}, told by {found.found}", flush=True)


def _service():
    """(client, number of processes, this one's) of JAX's coordination service; a client of None where this is alone."""
    from jax._src import distributed  # the key-value store has no public name

    state = distributed.global_state
    return (state.client if state.num_processes > 1 else None), state.num_processes, state.process_id


def barrier(name: str, timeout: float | None = None) -> None:
    """Return once every process has come here.

    timeout: in seconds; by default $DIFFUX_BARRIER_TIMEOUT or 1800.
    Raises Lost, which names those that have not come or the one that ended.
    """
    exchange(name, "", timeout)


def agree(what: str, value: str, remedy: str, timeout: float | None = None) -> None:
    """A barrier at which every process must bring the same value; UserError, in all of them, where they do not."""
    values = exchange(what, value, timeout)
    for i, other in enumerate(values):
        if other != values[0]:
            came = f"process {i} has the {what} {other or 'none'} and process 0 has {values[0] or 'none'}"
            raise UserError(f"{came}: {remedy}")


def exchange(name: str, value: str, timeout: float | None = None) -> list[str]:
    """Every process's `value`, in their order, once all have come to `name`; timeout and errors as `barrier`."""
    client, count, index = _service()
    if client is None:
        return [value]
    timeout = _seconds("DIFFUX_BARRIER_TIMEOUT", 1800) if timeout is None else timeout
    deadline, pause = time.monotonic() + timeout, 0.01
    _turns[name] += 1  # a name comes again where a run is continued in the same processes
    key = f"diffux/barrier/{name}/{_turns[name]}"
    client.key_value_set(f"{key}/here/{index}", value)
    while True:
        if index == 0:
            here = _read(client, f"{key}/here/")
            if len(here) == count:
                values = [here[i] for i in range(count)]
                client.key_value_set(f"{key}/all", json.dumps(values))
                return values
            time.sleep(pause)
            pause = min(2 * pause, 0.5)
        else:
            try:
                return json.loads(client.blocking_key_value_get(f"{key}/all", 1000))
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise
        if _watching is not None:
            _watching.check()
        if time.monotonic() > deadline:
            here = _read(client, f"{key}/here/")
            missing = [i for i in range(count) if i not in here]
            raise Lost(f"{roll_call.named(missing, _hosts(client, count))} did not reach '{name}' within {timeout:g} s")


def _read(client, folder: str) -> dict[int, str]:
    """What each process has written under `folder`."""
    return {int(key.rpartition("/")[2]): value for key, value in client.key_value_dir_get(folder)}


def _hosts(client, count: int) -> list[str]:
    known = _read(client, "diffux/host/")
    return [known.get(i, "") for i in range(count)]


class _Watch(threading.Thread):
    """Tells the others that this process lives and where it is, and ends it where another one does not, has failed or is stuck."""

    def __init__(self, client, count: int, index: int):
        super().__init__(daemon=True)
        self._client, self._count, self._index = client, count, index
        self._timeout, self._patience = _seconds("DIFFUX_LOST_TIMEOUT", 60), _seconds("DIFFUX_STUCK_TIMEOUT", 1800)
        _turns["watch"] += 1
        self._folder = f"diffux/watch/{_turns['watch']}"
        self._over, self._known = threading.Event(), threading.Event()
        self._verdict: Lost | None = None
        self.place = (0, "")
        """How often `at` was called, and what it was told last."""
        self.saving = False
        self.signal: tuple[int, int, float] | None = None
        """The first signal, the place at which it came, and when."""

    def run(self) -> None:
        beats, heard = 0, {}
        while not self._over.wait(min(1, self._timeout / 5)):
            beats += 1
            try:
                here = json.dumps([beats, *self.place])
                self._client.key_value_set(f"{self._folder}/beat/{self._index}", here, allow_overwrite=True)
                self._heed()
                if self._index == 0:
                    self._listen(heard)
                failed = _read(self._client, f"{self._folder}/failed/")
            except jax.errors.JaxRuntimeError:  # process 0 is gone: JAX ends this one
                continue
            if failed:
                self._end(json.loads(failed[min(failed)]))

    def _heed(self) -> None:
        """End all where a signal came and this process has waited for others ever since: its main thread cannot heed it."""
        if self.signal is not None and not self.saving:
            number, place, since = self.signal
            if place == self.place[0] and time.monotonic() - since > self._timeout:
                error = Lost(f"a signal came while it waited in {self.place[1]!r}; nothing was saved after the last checkpoint")
                error.status = 128 + number
                self.publish(self._index, error)

    def _listen(self, heard: dict) -> None:
        """Process 0 publishes the failure of those that have begun and are silent since, or do not go on."""
        now, places = time.monotonic(), {}

        def unchanged(key, value) -> float:
            if key not in heard or heard[key][0] != value:
                heard[key] = value, now
            return now - heard[key][1]

        for i, text in _read(self._client, f"{self._folder}/beat/").items():
            beat, *place = json.loads(text)
            if unchanged(i, beat) > self._timeout:
                name = roll_call.named([i], _hosts(self._client, self._count))
                self.publish(i, Lost(f"{name} is gone: it was silent for {self._timeout:g} s"), known=True)
                self._client.key_value_set(f"{_LEFT}/{i}", "", allow_overwrite=True)
            places[i] = (*place, unchanged((i, "place"), place))
        self._look(places)

    def _look(self, places: dict[int, tuple[int, str, float]]) -> None:
        """Publish the failure of those that are behind the others, at the earliest of the places {process: (number, what, seconds
        there)}, where none of them has gone on for too long: all come to the same places, and wait for each other."""
        first = min(number for number, *_ in places.values())
        behind = {i: place for i, place in places.items() if place[0] == first}
        if behind.keys() != places.keys() and min(seconds for *_, seconds in behind.values()) > self._patience:
            name, what = roll_call.named(sorted(behind), _hosts(self._client, self._count)), behind[min(behind)][1]
            are = "is" if len(behind) == 1 else "are"
            self.publish(min(behind), Lost(f"{name} {are} stuck in {what!r} for {self._patience:g} s"), known=True)

    def _end(self, failure: dict) -> None:
        self._verdict = Lost(failure["sentence"])
        self._verdict.status = failure["status"]
        self._known.set()
        if not self._over.wait(_GRACE):
            print(f"error: {self._verdict}", file=sys.stderr)
            leave(self._verdict.status)

    def publish(self, index: int, error: BaseException, known: bool = False) -> None:
        """Let every process know how `index` ended; known: the sentence names it."""
        status = getattr(error, "status", 130 if isinstance(error, KeyboardInterrupt) else 1)
        sentence = one_sentence(error)[:500]
        if not known:
            name = roll_call.named([index], [*[""] * index, socket.gethostname()])
            sentence = f"{name} ended: {sentence}"
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            self._client.key_value_set(
                f"{self._folder}/failed/{index}", json.dumps({"status": status, "sentence": sentence}), allow_overwrite=True
            )

    def check(self, wait: float = 0) -> None:
        """Raise Lost if another process is known, within `wait` seconds, to be gone or to have failed."""
        if self._known.wait(wait):
            raise self._verdict

    def __enter__(self) -> _Watch:
        self.start()
        return self

    def __exit__(self, kind, error, trace) -> None:
        if error is None:
            self._over.set()
            return
        if isinstance(error, RuntimeError | ValueError) and not isinstance(error, UserError):
            # Where a process dies, a collective may fail in the others long before anybody knows who it was.
            wait = self._timeout + 5
            print(f"process {self._index}: {one_sentence(error)[:300]}; listening for {wait:g} s whether another process is gone",
                  file=sys.stderr, flush=True)  # fmt: skip
            if self._known.wait(wait):
                self._over.set()
                raise self._verdict from error
        self._over.set()
        if error is not self._verdict:
            self.publish(self._index, error)


_watching: _Watch | None = None


@contextlib.contextmanager
def together() -> Iterator[None]:
    """While entered, the end of one process by an error or by death is that of all: each raises Lost, or exits, saying why.

    A process that hangs in a collective cannot raise, and is ended from a thread with the status of the failure: 75 where
    a process is gone, its own where it raised.
    """
    global _watching
    client, count, index = _service()
    if client is None:
        yield
        return
    client.key_value_set(f"diffux/host/{index}", socket.gethostname(), allow_overwrite=True)
    with _Watch(client, count, index) as _watching:
        try:
            yield
        finally:
            _watching = None


def at(what: str, saving: bool = False) -> None:
    """Say what this process does next; saving: no signal shortens it.

    All processes say the same in the same order, so that one which stays behind the others can be named, and all end, after
    $DIFFUX_STUCK_TIMEOUT seconds (1800): it lives, but hangs in a read, say.
    """
    if _watching is not None:
        _watching.saving, _watching.place = saving, (_watching.place[0] + 1, what)


def signalled(number: int) -> None:
    """A signal came that the main thread may be unable to heed, since it waits for other processes: all end with its status where
    nothing goes on for $DIFFUX_LOST_TIMEOUT seconds."""
    watch = _watching
    if watch is not None and watch.signal is None:
        watch.signal = (number, watch.place[0], time.monotonic())


def several() -> bool:
    """Whether this process is one of several that JAX coordinates."""
    return _service()[0] is not None


def leave(status: int) -> NoReturn:
    """End this process, one of several, at once with `status`: its usual exit would wait for those that are gone."""
    client, count, index = _service()
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        client.key_value_set(f"{_LEFT}/{index}", "", allow_overwrite=True)
        # The service ends with process 0, and JAX then aborts whoever is still there.
        deadline = time.monotonic() + 2 * _GRACE + 2
        while index == 0 and len(_read(client, f"{_LEFT}/")) < count and time.monotonic() < deadline:
            time.sleep(0.1)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
