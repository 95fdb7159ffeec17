"""The small parts of training: optimizers by name, rates, solvers by name, checksums, pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from diffux import solvers, systems
from diffux.averages import Averages
from diffux.config import optimizers, parts
from diffux.config import schema as configuration
from diffux.errors import UserError
from diffux.runs import checksums
from diffux.sampling import pictures
from diffux.training.clock import Stretch
from diffux.training.update import make_update


@pytest.mark.parametrize("name", optimizers.names())
def test_every_optimizer_by_its_name_lowers_a_quadratic(name):
    options = {"noisy_sgd": {"eta": 1e-6}, "optimistic_gradient_descent": {"alpha": 1.0, "beta": 0.0}}.get(name, {})
    optimizer = optimizers.optimizer(name, optimizers.learning_rate(0.05, "constant", 3, 100), options)
    params = {"w": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "b": jnp.array([0.3, -0.7])}

    @jax.jit
    def step(params, state):
        value, gradient = jax.value_and_grad(lambda p: sum(jnp.sum(x**2) for x in jax.tree.leaves(p)))(params)
        updates, state = optimizer.update(gradient, state, params, value=value)
        return optax.apply_updates(params, updates), state, value

    state, losses = optimizer.init(params), []
    for _ in range(40):
        params, state, loss = step(params, state)
        losses.append(float(loss))
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    assert step._cache_size() == 1


def test_rates_rise_to_the_peak_and_fall_to_nothing():
    for shape, middle in {"constant": 1.0, "cosine": 0.5, "linear": 0.5}.items():
        rate = optimizers.learning_rate(2.0, shape, 10, 110)
        values = [float(rate(step)) for step in range(111)]
        assert values[0] == pytest.approx(0.2) and max(values) == pytest.approx(2.0, rel=1e-2)
        assert values[60] == pytest.approx(2 * middle, rel=1e-2)
        assert values[110] == pytest.approx(2.0 if shape == "constant" else 0.0, abs=1e-6)


def test_the_gradient_is_clipped_to_its_norm(monkeypatch):
    """With plain descent at rate 1 a parameter moves by the clipped gradient."""
    import diffux.training.update as module
    from diffux.training.state import TrainState

    monkeypatch.setattr(module, "loss", lambda key, system, v, batch, state: (jnp.sum(v.params["w"] * batch), ({}, state)))
    for clip, norm in ((1.0, 1.0), (10.0, 5.0), (None, 5.0)):
        optimizer = optax.with_extra_args_support(optax.sgd(1.0))
        params, averages = {"w": jnp.zeros(2)}, Averages((0.9,))
        state = TrainState(jnp.int32(0), params, {}, optimizer.init(params), averages.init(params), jax.random.key(0), ())
        update = make_update(optimizer, lambda step: 1.0, averages=averages, clip=clip)
        state, metrics = update(None, state, jnp.array([3.0, 4.0]))
        np.testing.assert_allclose(state.params["w"], -norm * np.array([0.6, 0.8]), rtol=1e-6)
        assert float(metrics["grad_norm"]) == pytest.approx(5.0) and int(state.step) == 1


def test_accumulated_gradients_are_those_of_the_whole_batch(monkeypatch):
    import diffux.training.update as module
    from diffux.training.state import TrainState

    def loss(key, system, variables, batch, state):
        return jnp.mean((batch @ variables.params["w"]) ** 2), ({"seen": jnp.float32(len(batch))}, state + 1)

    monkeypatch.setattr(module, "loss", loss)
    batch = jax.random.normal(jax.random.key(1), (12, 3))
    optimizer = optax.with_extra_args_support(optax.sgd(0.1))
    results = []
    for accumulate in (1, 3):
        params, averages = {"w": jnp.array([1.0, -2.0, 0.5])}, Averages((0.9,))
        state = TrainState(jnp.int32(0), params, {}, optimizer.init(params), averages.init(params), jax.random.key(0), jnp.int32(0))
        update = make_update(optimizer, lambda step: 0.1, averages=averages, accumulate=accumulate)
        state, metrics = jax.jit(update)(None, state, batch)
        assert int(state.objective_state) == accumulate and int(metrics["seen"]) == 12 // accumulate
        results.append((state.params["w"], metrics["loss"]))
    np.testing.assert_allclose(*(w for w, _ in results), rtol=1e-5)
    np.testing.assert_allclose(*(value for _, value in results), rtol=1e-5)


def test_solvers_by_name():
    system = systems.build("ncsn", levels=5, step=0.2, inner=2)
    assert {"ancestral", "annealed_langevin", "ddim", "heun"} <= set(parts.solvers())
    assert not {"langevin", "compose", "sample"} & set(parts.solvers())
    for name in parts.solvers():
        assert hasattr(parts.solver(name, system), "step")
    assert parts.solver(None, system) is system.solver
    # the system's own numbers, and then others
    assert parts.solver("annealed_langevin", system) is system.solver
    assert parts.solver("annealed_langevin", system, options={"inner": 1}).inner == 1
    assert parts.solver("ddim", system, eta=0.5).eta == 0.5
    noisy = system.replace(solver=solvers.ddim(1.0))  # of the same class as euler, which is still asked for by name
    assert parts.solver("ddim", noisy) is noisy.solver and parts.solver("euler", noisy).order == 1
    for arguments, message in (
        (("dimm", system), "did you mean 'ddim'"),
        (("heun", system, 0.5), "solver heun has no eta, got 0.5; solvers that have one: ddim"),
        (("ddim", system, 2.0), "eta"),
        (("ddim", system, None, {"etta": 1}), "unknown option of solver ddim 'etta'; did you mean 'eta'"),
    ):
        with pytest.raises(UserError, match=message):
            parts.solver(*arguments)


def test_defaults_are_complete_and_pass_their_own_check():
    checked = configuration.check({})
    assert checked == configuration.check(checked) == configuration.DEFAULTS
    changed = configuration.check({"training": {"steps": 7}, "sample": {"steps": 3}})
    configuration.refuse_another_run(checked, changed, "run")
    with pytest.raises(UserError, match=r"data.batch_size \(128, now 64\) differ"):
        configuration.refuse_another_run(checked, configuration.check({"data": {"batch_size": 64}}), "run")


def test_checksums_find_what_changed(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a").write_bytes(b"content")
    (tmp_path / "b").write_bytes(b"")
    assert "never finished" in checksums.fault(tmp_path)
    checksums.write(tmp_path)
    assert checksums.fault(tmp_path) is None
    for content, message in ((b"contenu", "inner/a was altered"), (b"con", "inner/a has 3 of 7 bytes")):
        (tmp_path / "inner" / "a").write_bytes(content)
        assert checksums.fault(tmp_path) == message
    (tmp_path / "inner" / "a").unlink()
    assert checksums.fault(tmp_path) == "inner/a is missing"
    (tmp_path / checksums.FILE).write_text('{"b"')
    assert "cannot be read" in checksums.fault(tmp_path)


def test_pictures_have_the_pixels_of_the_images(tmp_path):
    images = np.linspace(0, 1, 5 * 8 * 8 * 3).reshape(5, 8, 8, 3)
    sheet = np.asarray(Image.open(pictures.grid(tmp_path / "grid.png", images)))
    assert sheet.shape == (2 * 51 + 3, 3 * 51 + 3, 3)
    # the fourth image begins the second row, each of its pixels six wide
    np.testing.assert_array_equal(sheet[54 : 54 + 48 : 6, 3 : 3 + 48 : 6], np.round(images[3] * 255))
    frames = np.stack([images[..., :1]] * 4)
    assert Image.open(pictures.strip(tmp_path / "strip.png", frames, rows=2)).size == (4 * 51 + 3, 2 * 51 + 3)
    assert Image.open(pictures.animation(tmp_path / "walk.gif", frames)).size == (3 * 51 + 3, 2 * 51 + 3)
    assert pictures.losses(tmp_path / "losses.png", [{"step": 1, "loss": 1.0}]) is None
    assert pictures.losses(tmp_path / "losses.png", [{"step": s, "loss": 1.0 / s} for s in (1, 2)]).exists()


def test_a_stretch_averages_and_times_only_what_it_saw():
    stretch = Stretch()
    stretch.add({"loss": 3.0})
    assert np.isnan(stretch.rate)
    stretch.start()
    stretch.add({"loss": 1.0})
    stretch.pause()
    assert stretch.rate > 0 and stretch.rate == stretch.rate
    assert stretch.report()["loss"] == 2.0
    assert np.isnan(stretch.loss)
