"""A network that fails at once, and processes of our own."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _isolated(monkeypatch):
    def refuse(*_):
        raise AssertionError("the data package went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def python(cache):
    """Starts a Python process on a piece of code; `.communicate()` waits for it."""

    def start(code, *arguments, **environment):
        env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "DIFFUX_CACHE": str(cache), **environment}
        command = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    return start
