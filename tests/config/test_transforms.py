"""Transforms of schedules by name: from a config or a flag through training to samples."""

import numpy as np
import pytest

from diffux import sampling, training
from diffux.cli import _config
from diffux.config import parts, schema
from diffux.config.plan import plan
from diffux.errors import UserError

pytestmark = pytest.mark.usefixtures("quick")

WANTED = {"system.transforms": ["shifted(-1.4)", {"name": "zero_terminal"}], "system.parameterization": "v",
          "system.weighting": "snr_plus_one", "training.steps": 2}  # fmt: skip


@pytest.mark.full
def test_a_chain_is_shifted_and_scaled_to_end_at_zero(config):
    """In log-SNR by -1.4, and then as Lin et al., 2024, alg. 1, do it to the table of a chain, whose first step stays."""
    survived = np.cumprod(1 - np.linspace(0.001, 0.2, 100))  # 1e-4 to 0.02 at 1000 steps
    root = np.sqrt(1 / (1 + np.exp(-(np.log(survived / (1 - survived)) - 1.4))))
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    level = plan(config(**WANTED)).system.process.schedule(np.arange(1, 101) / 100)
    np.testing.assert_allclose(level.alpha, root, atol=2e-6)
    np.testing.assert_allclose(level.sigma, np.sqrt(1 - root**2), atol=2e-5)
    assert level.alpha[-1] == 0


@pytest.mark.full
def test_a_model_without_signal_at_its_end_is_trained_and_sampled(config, tmp_path):
    training.train(config(**WANTED), tmp_path)
    run = training.load(tmp_path)
    assert float(run.system.process.schedule(1.0).alpha) == 0
    for walk in ({}, {"solver": "heun", "steps": 5}):
        assert np.isfinite(sampling.samples(run, 3, **walk)).all()


@pytest.mark.parametrize(
    ("spec", "value"), [("shifted(-1.4)", -1.4), ({"name": "shifted", "log_snr": 2}, 2), (["shifted(1)"] * 3, 3), ([], 0)]
)
def test_log_snr_is_moved_by_what_is_said(spec, value):
    """Whether by a word, a mapping or several, in chains and in continuous time, and of exploding variance too."""
    for system in ({"name": "ddpm"}, {"name": "score_sde", "sde": "vp"}, {"name": "score_sde", "sde": "ve"}):
        small = {"channels": 4, "multipliers": [1], "attention": []}
        changed, own = (parts.system({**system, **small, "transforms": each}).process.schedule for each in (spec, None))
        t = np.linspace(0.1, 1, 10)
        np.testing.assert_allclose(changed(t).log_snr, own(t).log_snr + value, atol=2e-3)


@pytest.mark.parametrize(("flag", "value"), [
    ("zero_terminal", "zero_terminal"),
    ("shifted(-1.4)", "shifted(-1.4)"),
    ("('shifted(-1.4)', 'zero_terminal')", ["shifted(-1.4)", "zero_terminal"]),
    ("None", None),
])  # fmt: skip
def test_flags_name_them(flag, value):
    small = ["--config.system.parameterization=v", "--config.system.channels=4", "--config.system.multipliers=(1,)"]
    read = _config.read("ddpm_digits", [f"--config.system.transforms={flag}", *small])
    assert read["system"]["transforms"] == value
    ends = float(plan(read).system.process.schedule(1.0).alpha)
    assert (ends == 0) == ("zero_terminal" in flag)
    assert schema.KEYS["system"].free is False  # another schedule is another run


@pytest.mark.parametrize(("system", "words"), [
    ({"transforms": "zero_terminal"}, "is undefined where alpha = 0, at the end of ZeroTerminal; parameterizations that fit: v, x"),
    ({"transforms": "zero_termnal"}, "unknown schedule transform 'zero_termnal'; did you mean 'zero_terminal'"),
    ({"transforms": "shifted"}, "schedule transform shifted needs log_snr"),
    ({"transforms": "shifted(much)"}, "log_snr of schedule transform shifted must be a number, got 'much'"),
    ({"transforms": "shifted(1e30)"}, "shifted needs a log-SNR between -60 and 60, got 1e+30"),
    ({"transforms": "zero_terminal(first=2)"}, "zero_terminal needs a first time from 0 on and below 1, got 2"),
    ({"transforms": 3}, "transforms of a schedule are named, as in zero_terminal or"),
    ({"transforms": [3]}, "transforms of a schedule are named, as in zero_terminal or"),
    ({"name": "score_sde", "sde": "ve", "transforms": "zero_terminal"}, "needs a variance preserving schedule, got Geom"),
    ({"name": "score_sde", "sde": "sub_vp", "transforms": "shifted(1)"}, "got SubVP, which is none of them"),
    ({"name": "score_sde", "sde": "vp", "transforms": "zero_terminal"}, "undefined where alpha = 0"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused_in_one_sentence(system, words):
    with pytest.raises(UserError) as error:
        plan({"system": {"name": "ddpm", "channels": 4, "multipliers": (1,), "attention": ()} | system})
    assert words in str(error.value) and "\n" not in str(error.value)
