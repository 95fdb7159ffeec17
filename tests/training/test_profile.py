"""Traces of a few steps of a run."""

import gzip
import json

import jax
import pytest

from diffux import training
from diffux.training import profile


@pytest.mark.full
def test_a_run_leaves_a_trace_of_its_steps(config, tmp_path, capsys):
    training.train(config(**{"training.steps": 6}), tmp_path, profile=2)
    (file,) = (tmp_path / "profile").rglob("perfetto_trace.json.gz")
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    assert any("jit(update)" in event.get("name", "") for event in events)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    assert f"trace of 2 steps in {tmp_path / 'profile'}" in capsys.readouterr().out


def test_a_run_that_ends_first_keeps_the_steps_it_had(tmp_path):
    said = []
    with profile.Profile(tmp_path, 5, said.append) as trace:
        for step in range(profile.WARM_UP + 1):
            trace.before_step()
            trace.after_step(step)
    assert len(said) == 1 and said[0].startswith("trace of 1 step in")
    assert list(tmp_path.rglob("*.xplane.pb"))


def test_a_profiler_that_would_crash_is_refused(config, tmp_path, monkeypatch):
    monkeypatch.setattr(profile.importlib.util, "find_spec", lambda name: name == "libtpu")
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    platforms = jax.config.jax_platforms
    try:
        jax.config.update("jax_platforms", None)
        with pytest.raises(training.UserError, match="set JAX_PLATFORMS=cpu for --profile"):
            training.train(config(), tmp_path / "run", profile=2)
    finally:
        jax.config.update("jax_platforms", platforms)
    assert not (tmp_path / "run").exists()
