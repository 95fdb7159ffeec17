"""The 2015 models, built small: bounds fall, learned betas get the loss's own slope and move, samples have their kind."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffux import codecs, keys, schedules, solvers, systems
from diffux.devices.mesh import make_mesh, resolve
from diffux.processes import Gaussian
from diffux.systems import system as base
from diffux.systems import trainable
from diffux.types import Learned

pytestmark = pytest.mark.usefixtures("quick")

BEATS = (np.arange(10) % 5 == np.arange(5)[:, None]).astype(np.uint8)
KINDS = {
    "point": {"kind": "gaussian", "network": "rbf", "codec": "standardized", "steps": 8, "units": 6, "first": 1e-2},
    "bits": {"kind": "binomial", "network": "mlp", "codec": "bits", "steps": 30, "widths": (32, 32), "readout": "shared"},
    "image": {"kind": "binomial", "codec": "binarized(0.5)", "steps": 10, "convolutions": (4,), "dense": (16,), "upper": (8,),
              "scales": 2},
}  # fmt: skip


def build(field, **more):
    return systems.build("diffusion2015", data=field, **KINDS[field] | more)


def batch(field, n=32):
    rng = np.random.default_rng(0)
    values = {
        "point": (np.where(rng.random((n, 1)) < 0.5, 1.0, -1.0) + 0.2 * rng.normal(size=(n, 2))).astype(np.float32),
        "bits": BEATS[np.arange(n) % 5],
        "image": np.where(np.arange(4)[:, None, None] < 2, 255, 0).astype(np.uint8) * np.ones((n, 4, 4, 1), np.uint8),
    }
    return {field: values[field]}


@functools.cache
def trained(field, steps=300):
    """(system, variables, losses) of a step that is traced once."""
    chex.clear_trace_counter()
    system, data = build(field), batch(field, 128)
    variables, optimizer = systems.init(jax.random.key(0), system, data), optax.adam(1e-2)

    @functools.partial(jax.jit, donate_argnums=(2, 3))
    @chex.assert_max_traces(n=1)
    def step(key, system, params, state, data):
        loss = lambda params: systems.loss(key, system, trainable.Variables(params), data, ())  # noqa: E731
        (value, _), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, value

    params, state, losses = variables.params, optimizer.init(variables.params), []
    for i in range(steps):
        params, state, value = step(jax.random.key(i), system, params, state, data)
        losses.append(float(value))
    return system, trainable.Variables(params), losses


@pytest.mark.full(but=("bits",))
@pytest.mark.parametrize("field", KINDS)
def test_the_bound_falls_and_the_step_is_compiled_once(field):
    """Training donates the parameters, which the system's own initial values outlive."""
    _, variables, losses = trained(field)
    assert np.mean(losses[-50:]) < np.mean(losses[:50]) - 0.1
    assert set(variables.params) == ({"network", "process"} if field == "point" else {"network"})


@pytest.mark.full(but=("bits",))
@pytest.mark.parametrize("field", KINDS)
def test_samples_do_not_depend_on_the_batch(field):
    system, variables, _ = trained(field)
    shape = (6, *batch(field)[field].shape[1:])
    whole = systems.generate(keys.sample_keys(3, 0, 6), system, variables, shape)
    assert whole.x.shape == shape and np.isfinite(whole.x).all()
    part = systems.generate(keys.sample_keys(3, 4, 2), system, variables, (2, *shape[1:]), save=3)
    np.testing.assert_allclose(part.x, whole.x[4:], atol=1e-5)
    assert part.trajectory.shape == (3, 2, *shape[1:])
    if field != "point":
        assert set(np.unique(whole.x)) <= {0, 1}


@pytest.mark.full
def test_sampled_heartbeats_are_heartbeats():
    system, variables, _ = trained("bits", 1500)
    x = np.asarray(systems.generate(keys.sample_keys(0, 0, 200), system, variables, (200, 10)).x)
    hits = (x[:, None] == BEATS).all(2)
    assert hits.any(1).mean() > 0.9 and hits.mean(0).min() > 0.05
    assert (np.random.default_rng(0).integers(0, 2, (200, 1, 10)) == BEATS).all(2).any(1).mean() < 0.1


# --- learned numbers -------------------------------------------------------------------------------------------------


def test_learned_betas_begin_as_the_code():
    schedule = schedules.learned_betas(40, first=1e-3)
    betas = np.asarray(schedule.betas())
    np.testing.assert_allclose(betas, np.append(1e-3, 1 / np.linspace(40, 2, 40)[1:]), atol=2e-6)
    abar = np.append(1, np.cumprod(1 - betas))
    np.testing.assert_allclose(schedule(jnp.arange(41) / 40).alpha ** 2, abar, rtol=1e-4)
    np.testing.assert_allclose(schedule.inverse(schedule(0.3).log_snr), 0.3, rtol=1e-3)
    for bad in (lambda: schedules.learned_betas(1), lambda: schedules.learned_betas(5, first=0.0)):
        with pytest.raises(ValueError):
            bad()


@pytest.mark.full
@pytest.mark.usefixtures("x64")
def test_the_gradient_of_learned_betas_is_that_of_finite_differences():
    system, data = build("point"), {"point": batch("point")["point"].astype(np.float64)}
    variables = systems.init(jax.random.key(0), system, data)
    rng = np.random.default_rng(0)
    network = jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape)), variables.params["network"])
    logits = variables.params["process"]["beta_logits"]
    assert logits.shape == (7,)

    @jax.jit
    def loss(logits):  # the noise is frozen in the key
        params = {"network": network, "process": {"beta_logits": logits}}
        return systems.loss(jax.random.key(5), system, trainable.Variables(params), data, ())[0]

    slope, step = jax.grad(loss)(logits), 1e-5
    want = [(loss(logits.at[i].add(step)) - loss(logits.at[i].add(-step))) / (2 * step) for i in range(7)]
    assert np.abs(slope).min() > 1e-6
    np.testing.assert_allclose(slope, want, rtol=1e-5, atol=1e-7)


@pytest.mark.full
def test_training_moves_the_betas_in_every_copy_and_the_average_counts():
    system, variables, _ = trained("point")
    learned = variables.params["process"]["beta_logits"]
    before, after = (systems.resolved(system, v).process.schedule.betas() for v in (None, variables))
    assert np.abs(after[1:] - before[1:]).max() > 0.01 and after[0] == before[0]
    resolved = systems.resolved(system, variables)
    assert not any(isinstance(leaf, Learned) for leaf in jax.tree.leaves(resolved, is_leaf=lambda n: isinstance(n, Learned)))
    for copy in (resolved.objective.process.schedule, resolved.solver.process.schedule, resolved.parameterization.schedule):
        np.testing.assert_array_equal(copy.logits, learned)
    average = variables._replace(ema={**variables.params, "process": {"beta_logits": 0 * learned}})
    np.testing.assert_array_equal(systems.resolved(system, average).process.schedule.logits, 0 * learned)
    np.testing.assert_array_equal(systems.resolved(system, average, train=True).process.schedule.logits, learned)
    # samples are drawn with the trained betas, in a solver that is given as well as in the system's own
    run = lambda v, **how: systems.generate(keys.sample_keys(0, 0, 4), system, v, (4, 2), **how).x  # noqa: E731
    own = run(variables)
    np.testing.assert_array_equal(run(variables, solver=solvers.ancestral(system.process)), own)
    assert np.abs(run(average) - own).max() > 1e-3


@pytest.mark.full
def test_a_system_without_learned_numbers_has_the_parameters_it_had():
    fixed = build("point", learned=False)
    variables = systems.init(jax.random.key(0), fixed, batch("point"))
    assert set(variables.params) == {"network"}
    same = systems.init(jax.random.key(0), build("point"), batch("point")).params["network"]
    chex.assert_trees_all_equal(variables.params["network"], same)
    losses = [float(systems.loss(jax.random.key(1), s, systems.init(jax.random.key(0), s, batch("point")), batch("point"), ())[0])
              for s in (fixed, build("point"))]  # fmt: skip
    np.testing.assert_allclose(*losses, rtol=1e-4)  # a learned table begins where the fixed one stays


def test_two_learned_numbers_of_one_name_are_refused():
    system = build("point").replace(process=Gaussian(schedules.learned_betas(12)))
    with pytest.raises(ValueError, match=r"two learned numbers of the system are called 'beta_logits', of shapes \((7|11),\)"):
        systems.init(jax.random.key(0), system, batch("point"))


def test_learned_numbers_are_placed_as_other_parameters():
    variables = systems.init(jax.random.key(0), build("point"), batch("point"))
    places = resolve({"params": variables.params}, make_mesh())
    assert jax.tree.structure(places["params"]) == jax.tree.structure(variables.params)


# --- the parts around the model --------------------------------------------------------------------------------------


@pytest.mark.full
def test_gaussian_solvers_walk_the_gaussian_model_and_not_the_binomial():
    system, variables, _ = trained("point")
    x = systems.generate(keys.sample_keys(0, 0, 4), system, variables, (4, 2), solver=solvers.ddim(), steps=4).x
    assert np.isfinite(x).all()
    system, variables, _ = trained("bits")
    with pytest.raises(ValueError, match="DDIM needs a Gaussian process, got Binomial; solvers that fit: ancestral"):
        systems.generate(keys.sample_keys(0, 0, 4), system, variables, (4, 10), solver=solvers.ddim())


def test_codecs_and_conditions():
    points = np.asarray([[3.0, 5.0], [1.0, -1.0]], np.float32)
    codec = codecs.standardized((1.0, 2.0), (2.0, 3.0))
    np.testing.assert_allclose(codec.encode(None, points, {}), [[1, 1], [0, -1]])
    np.testing.assert_allclose(codec.decode(codec.encode(None, points, {}), {}), points)
    image = np.asarray([0, 127, 128, 255], np.uint8)
    np.testing.assert_array_equal(codecs.binarized().encode(None, image, {}), [0, 0, 1, 1])
    np.testing.assert_array_equal(codecs.bits().encode(None, image[:1] + 1, {}), [1.0])
    x, cond = base.inputs(None, None, build("point"), {"point": points}, True)
    np.testing.assert_array_equal(x, points)
    assert cond == {}
    with pytest.raises(ValueError, match="the model is of point, and the batch holds image"):
        base.inputs(None, None, build("point"), {"image": image}, True)
    for bad, words in ((lambda: codecs.standardized(0.0, 0.0), "above 0"), (lambda: codecs.binarized(1.0), "threshold"),
                       (lambda: systems.build("diffusion2015", kind="gausian"), "did you mean 'gaussian'"),
                       (lambda: build("point", network="rbff"), "unknown network 'rbff'; did you mean 'rbf'"),
                       (lambda: build("point", codec="standardised"), "did you mean 'standardized'")):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            bad()


@pytest.mark.parametrize("field", KINDS)
def test_variables_have_shapes_before_anything_is_computed(field):
    system, example = build(field), batch(field, 2)
    shapes = jax.eval_shape(lambda system: trainable.init(jax.random.key(0), system, example), system)
    drawn = trainable.init(jax.random.key(0), system, example)
    assert jax.tree.map(np.shape, shapes.params) == jax.tree.map(np.shape, drawn.params)
