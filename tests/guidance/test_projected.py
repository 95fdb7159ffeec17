"""What guides by more than an estimate: CFG++, projected guidance with a momentum, ADM's gradient of the mean; and temperatures,
sums and attentions made worse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from diffux import NoiseLevel, Prediction, chain, grids, guidance, keys, noise_level, processes, schedules, solvers, systems
from diffux.config import parts
from diffux.denoisers import bind
from diffux.errors import UserError
from diffux.networks.attention import attention_weights
from diffux.networks.initialize import initialize
from diffux.networks.unet import UNet
from diffux.processes import Gaussian
from tests.guidance import labelled
from tests.guidance.test_around import CFG, LABEL, SCHEDULE, X, apart, estimate, worse
from tests.networks.test_unet import perturbed

pytestmark = pytest.mark.usefixtures("x64", "quick")

PROCESS = Gaussian(SCHEDULE)


def levels():
    return grids.uniform(end=0.01)(SCHEDULE, 5)


def walk(solver, *transforms, denoise=labelled.conditional, cond=LABEL, x=X):
    own, guided = keys.sample_keys(0, 0, len(x)), chain(denoise, *transforms)
    return np.asarray(solvers.sample(own, guided, solver, levels(), jnp.asarray(x), cond).x)


def null(x, level):
    return np.asarray(labelled.unconditional(x, level, {}).x0)


def own(x, level, cond=LABEL):
    return np.asarray(labelled.conditional(x, level, cond).x0)


def at(i):
    return NoiseLevel(*(field[i] for field in levels()))


# --- CFG++ --------------------------------------------------------------------------------------------------------------


@pytest.mark.full
def test_cfg_pp_goes_back_with_the_noise_of_the_null():
    """Chung et al. (2025), algorithm 2, written out: x_s = alpha_s x0(scale) + sigma_s eps(null)."""
    x = X
    for i in range(5):
        t, s = at(i), at(i + 1)
        plain, conditional = null(x, t), own(x, t)
        eps = (x - float(t.alpha) * plain) / float(t.sigma)
        x = float(s.alpha) * (plain + 0.6 * (conditional - plain)) + float(s.sigma) * eps
    np.testing.assert_allclose(walk(solvers.ddim(), guidance.classifier_free_pp(0.6)), x, rtol=1e-10)


@pytest.mark.full
def test_cfg_pp_is_unconditional_at_0_and_not_conditional_at_1():
    for solver in (solvers.ddim(), solvers.ddim(0.7)):
        pp = lambda scale, solver=solver: walk(solver, guidance.classifier_free_pp(scale))  # noqa: E731
        np.testing.assert_allclose(pp(0.0), walk(solver, denoise=labelled.unconditional), rtol=1e-10, atol=1e-12)
        assert np.abs(pp(1.0) - walk(solver)).max() > 0.05
    assert guidance.classifier_free_pp().neutral == {}


@pytest.mark.parametrize("solver", [
    solvers.heun(), solvers.ancestral(PROCESS), solvers.dpm_solver_pp_2m(), solvers.compose(solvers.ddim(), solvers.langevin()),
    solvers.euler_maruyama(SCHEDULE),
], ids=["heun", "ancestral", "2m", "compose", "em"])  # fmt: skip
def test_solvers_that_know_no_other_noise_refuse_cfg_pp(solver):
    with pytest.raises(ValueError, match=r"does not go with guidance of a step's noise, .*; solvers that do: ddim"):
        walk(solver, guidance.classifier_free_pp())


@pytest.mark.full
def test_what_is_built_on_ddim_takes_cfg_pp():
    pp = guidance.classifier_free_pp(0.6)
    nothing = np.zeros((6, 3), bool)
    np.testing.assert_allclose(walk(solvers.replace(solvers.ddim(), PROCESS, X, nothing), pp), walk(solvers.ddim(), pp), rtol=1e-9)
    for solver in (solvers.churn(solvers.ddim(), SCHEDULE, 0.0), solvers.repaint(solvers.ddim(), PROCESS, X, nothing)):
        assert solver.takes == ("noise",) and np.isfinite(walk(solver, pp)).all()


@pytest.mark.full
def test_thresholds_and_intervals_keep_the_noise():
    """Clipped, only x0 is; outside its levels it is the plain model's step."""
    clipped = jax.jit(lambda x: chain(labelled.conditional, guidance.classifier_free_pp(), guidance.static_threshold(0.1))(
        x, SCHEDULE(0.4), LABEL))(X)  # fmt: skip
    assert np.abs(clipped.x0).max() <= 0.1
    level = SCHEDULE(0.4)
    np.testing.assert_allclose(clipped.noise, (X - float(level.alpha) * null(X, level)) / float(level.sigma), rtol=1e-10)
    off = guidance.between(guidance.classifier_free_pp(), 0.0, 0.0)
    np.testing.assert_allclose(walk(solvers.ddim(), off), walk(solvers.ddim()), rtol=1e-10)
    on = guidance.between(guidance.classifier_free_pp())
    np.testing.assert_allclose(walk(solvers.ddim(), on), walk(solvers.ddim(), guidance.classifier_free_pp()), rtol=1e-10)


# --- adaptive projected guidance ----------------------------------------------------------------------------------------


def projected(conditional, plain, scale, parallel, most, kept=0.0, momentum=0.0):
    """Sadat et al. (2025), algorithm 1, sample by sample: (x0, what is remembered)."""
    difference = conditional - plain + momentum * kept
    out = []
    for d, c in zip(difference, conditional, strict=True):
        d = d * min(1.0, most / np.linalg.norm(d))
        unit = c / np.linalg.norm(c)
        along = (d @ unit) * unit
        out.append(c + (scale - 1) * (d - along + parallel * along))
    return np.asarray(out), difference


@pytest.mark.parametrize(("parallel", "most"), [(0.0, 0.3), (0.5, 1e9), (1.0, 0.1)])
def test_projected_guidance_is_the_paper_s_algorithm(parallel, most):
    level = SCHEDULE(0.4)
    want, _ = projected(own(X, level), null(X, level), 4.0, parallel, most)
    np.testing.assert_allclose(estimate(guidance.adaptive_projected(4.0, parallel, most)), want, rtol=1e-9)


def test_projected_guidance_of_everything_is_classifier_free():
    apg = guidance.adaptive_projected
    np.testing.assert_allclose(estimate(apg(3.0, parallel=1.0)), estimate(CFG), rtol=1e-10)
    np.testing.assert_allclose(estimate(apg(1.0)), estimate(), rtol=1e-12)
    assert np.abs(estimate(apg(3.0)) - estimate(CFG)).max() > 0.05
    zero = lambda x, level, cond: Prediction(0 * x)  # noqa: E731
    np.testing.assert_array_equal(estimate(apg(3.0, most=1.0), denoise=zero), 0 * X)  # neither difference nor direction
    none = guidance.rescaled(apg(3.0), 0.0)
    np.testing.assert_allclose(estimate(none), estimate(apg(3.0)), rtol=1e-12)


def test_momentum_is_of_the_steps_before():
    x, kept = X, 0.0
    for i in range(5):
        t, s = at(i), at(i + 1)
        x0, kept = projected(own(x, t), null(x, t), 3.0, 0.0, 1.5, kept, -0.5)
        x = float(s.alpha) * x0 + float(s.sigma) * (x - float(t.alpha) * x0) / float(t.sigma)
    moving = guidance.adaptive_projected(3.0, most=1.5, momentum=-0.5)
    np.testing.assert_allclose(walk(solvers.ddim(), moving), x, rtol=1e-9)
    still = guidance.adaptive_projected(3.0, most=1.5)
    assert np.abs(walk(solvers.ddim(), moving) - walk(solvers.ddim(), still)).max() > 0.01
    np.testing.assert_allclose(walk(solvers.ddim(), moving, x=X[:2], cond={"label": LABEL["label"][:2]}), x[:2], rtol=1e-8)


@pytest.mark.full
def test_momentum_outlives_pieces_of_a_walk_and_levels_without_guidance():
    moving = guidance.adaptive_projected(3.0, momentum=-0.5)
    whole = walk(solvers.ancestral(PROCESS), moving)
    pieces = solvers.sample(keys.sample_keys(0, 0, 6), chain(labelled.conditional, moving), solvers.ancestral(PROCESS), levels(),
                            jnp.asarray(X), LABEL, progress=lambda *_: None).x  # fmt: skip
    np.testing.assert_allclose(pieces, whole, rtol=1e-10)
    late = guidance.between(moving, 0.0, float(at(2).sigma / at(2).alpha))  # the first two steps are unguided, and remember nothing
    x, kept = X, 0.0
    for i in range(5):
        t, s = at(i), at(i + 1)
        x0 = own(x, t)
        if i >= 2:
            x0, kept = projected(x0, null(x, t), 3.0, 0.0, 1e9, kept, -0.5)
        x = float(s.alpha) * x0 + float(s.sigma) * (x - float(t.alpha) * x0) / float(t.sigma)
    np.testing.assert_allclose(walk(solvers.ddim(), late), x, rtol=1e-9)


MOVING = guidance.adaptive_projected(3.0, momentum=-0.5)


@struct.dataclass
class Twice(solvers.Solver):
    """Evaluates twice, one after the other."""

    def step(self, keys, denoise, x, state, *, t, s):
        return s.alpha * (denoise(x, t).x0 + denoise(x, s).x0) / 2, state


@pytest.mark.parametrize(("solver", "transforms", "said"), [
    (Twice(), (MOVING,), "and Twice evaluates more often"),
    (solvers.heun(), (MOVING,), "momentum goes with solvers that evaluate once a step, and Heun evaluates more often"),
    (solvers.dpm_solver(SCHEDULE, 2), (MOVING,), "and DPMSolver evaluates more often"),
    (solvers.ddim(), (MOVING, guidance.adaptive_projected(2.0, momentum=0.1)), "both remember momentum"),
    (solvers.ddim(), (MOVING, CFG), "put it last"),
])  # fmt: skip
def test_momentum_is_refused_where_there_is_no_step_before(solver, transforms, said):
    with pytest.raises(ValueError, match=said):
        walk(solver, *transforms)


def test_momentum_without_a_walk_says_who_remembers():
    with pytest.raises(ValueError, match="remembers the step before, of which"):
        estimate(MOVING)


@pytest.mark.full
def test_a_system_s_model_remembers_too():
    """And the network is not told."""
    system = systems.build("ddpm", steps=50, channels=4, multipliers=(1,), attention=(), classes=3, label_dropout=0.1)
    variables = systems.init(jax.random.key(0), system, {"image": np.zeros((2, 4, 4, 1), np.uint8), "label": np.zeros(2, np.int32)})
    drawn = systems.generate(keys.sample_keys(0, 0, 2), system, variables, (2, 4, 4, 1), {"label": np.asarray([0, 1])}, steps=4,
                             solver=solvers.ddim(), guidance=(MOVING,)).x  # fmt: skip
    assert np.isfinite(drawn).all()


# --- the gradient of a mean ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variance", ["posterior", "upper", "interpolated"])
def test_the_mean_of_a_step_moves_by_its_variance_times_the_gradient(variance):
    """Dhariwal and Nichol (2021), algorithm 1: N(mean + s Sigma grad log p(y | x_t), Sigma), with a learned variance as well."""
    chain_ = schedules.from_betas(schedules.cosine_betas(20))
    learns = variance == "interpolated"
    process = Gaussian(chain_, processes.interpolated(chain_, 20) if learns else processes.VARIANCES[variance]())
    t, s, raw = chain_(0.5), chain_(0.4), 0.3 * X
    learned = lambda x, level, cond: labelled.conditional(x, level, cond)._replace(variance=raw)  # noqa: E731
    guide = guidance.classifier(labelled.log_prob, 3.0, moves="mean")
    asked = [bind(chain(learned, *part_), LABEL) for part_ in ((guide,), ())]
    found, plain = (solvers.ancestral(process).step(jax.random.key(0), ask, jnp.asarray(X), (), t=t, s=s)[0] for ask in asked)
    sigma = np.asarray(process.reverse(learned(X, t, LABEL), jnp.asarray(X), s=s, t=t).std) ** 2
    slope = jax.grad(lambda x: labelled.log_prob(x, t, LABEL).sum())(jnp.asarray(X))
    np.testing.assert_allclose(found - plain, 3.0 * sigma * slope, rtol=1e-7, atol=1e-12)


@pytest.mark.full
def test_gradients_add_up_and_none_is_none():
    one, two = (guidance.classifier(labelled.log_prob, scale, moves="mean") for scale in (1.0, 2.0))
    three = guidance.classifier(labelled.log_prob, 3.0, moves="mean")
    ancestral = solvers.ancestral(PROCESS)
    np.testing.assert_allclose(walk(ancestral, one, two), walk(ancestral, three), rtol=1e-9)
    np.testing.assert_array_equal(walk(ancestral, guidance.classifier(labelled.log_prob, 0.0, moves="mean")), walk(ancestral))
    np.testing.assert_allclose(walk(ancestral, guidance.between(three, 0.0, 0.0)), walk(ancestral), rtol=1e-12)
    for solver in (solvers.ddim(), solvers.heun()):
        with pytest.raises(ValueError, match=r"guidance of a step's gradient, .* the solver that does: ancestral"):
            walk(solver, one)


# --- temperature and sums -----------------------------------------------------------------------------------------------


def test_a_temperature_divides_the_score():
    level = SCHEDULE(0.4)
    score = lambda x0: (float(level.alpha) * x0 - X) / float(level.sigma) ** 2  # noqa: E731
    np.testing.assert_allclose(score(estimate(guidance.temperature(0.7))), score(estimate()) / 0.7, rtol=1e-10)
    np.testing.assert_allclose(estimate(guidance.temperature(1.0)), estimate(), rtol=1e-12)
    last = NoiseLevel(jnp.ones(()), jnp.zeros(()), jnp.ones(()))
    for end in (last, noise_level.clean()):
        found = estimate(guidance.temperature(0.5), level=end, denoise=apart)
        np.testing.assert_array_equal(found, estimate(level=end, denoise=apart))


def test_a_sum_adds_what_each_does():
    auto = guidance.autoguidance(worse, 2.0)
    want = estimate(CFG) + estimate(auto) - estimate()
    np.testing.assert_allclose(estimate(guidance.added(CFG, auto)), want, rtol=1e-10)
    np.testing.assert_allclose(estimate(guidance.added(auto, CFG)), want, rtol=1e-10)
    function = lambda denoise: lambda x, level, cond: Prediction(2 * denoise(x, level, cond).x0)  # noqa: E731
    np.testing.assert_allclose(estimate(guidance.added(function, CFG)), estimate() + estimate(CFG), rtol=1e-10)
    noisy = guidance.added(guidance.classifier_free_pp(0.6), auto)
    assert np.isfinite(walk(solvers.ddim(), noisy)).all()
    with pytest.raises(ValueError, match="both of its guidances also give a noise"):
        estimate(guidance.added(guidance.classifier_free_pp(), guidance.classifier_free_pp()))


# --- attentions made worse ----------------------------------------------------------------------------------------------

NETWORK = UNet(channels=4, multipliers=(1,), blocks=1, attention=(4,), text_width=3, dtype=jnp.float64, param_dtype=jnp.float64)
IMAGE = np.random.default_rng(0).standard_normal((2, 2, 4, 1))
TEXT = {"text": np.random.default_rng(1).standard_normal((2, 5, 3))}


@pytest.fixture(scope="module")
def network():
    with jax.enable_x64(True):
        params = perturbed(initialize(jax.random.key(0), NETWORK, jnp.asarray(IMAGE), jnp.zeros(2), TEXT))

    def denoise(x, level, cond):
        return Prediction(NETWORK.apply({"params": params}, x, jnp.full(len(x), 5.0), cond))

    return denoise


def of(denoise, *transforms):
    return np.asarray(chain(denoise, *transforms)(jnp.asarray(IMAGE), SCHEDULE(0.4), TEXT).x0)  # one operation after the other


def edited(denoise, where, look_instead):
    def edit(name, look, query, key, value, mask=None, bias=None):
        return look_instead(look, query, key, value) if name == where else look(query, key, value, mask, bias)

    return of(denoise, guidance.attending(edit))


@pytest.mark.full
def test_a_perturbed_attention_looks_at_itself(network):
    """The map is the identity, so that a position takes its own value; attentions to the text are left as they are."""
    looked = edited(network, "middle_attention", lambda look, query, key, value: value)
    want = of(network) + 2.0 * (of(network) - looked)
    np.testing.assert_allclose(of(network, guidance.perturbed_attention(2.0)), want, rtol=1e-9)
    assert np.abs(want - of(network)).max() > 1e-3
    np.testing.assert_allclose(of(network, guidance.perturbed_attention(0.0)), of(network), rtol=1e-12)
    other = edited(network, "up_0_0_attention", lambda look, query, key, value: value)
    np.testing.assert_allclose(of(network, guidance.perturbed_attention(2.0, "up_0_0")), 3 * of(network) - 2 * other, rtol=1e-9)
    published = of(network, guidance.added(guidance.classifier_free(3.0), guidance.perturbed_attention(2.0)))
    np.testing.assert_allclose(published, of(network, CFG) + 2.0 * (of(network) - looked), rtol=1e-8)


@pytest.mark.full
def test_smoothed_queries(network):
    """Queries blurred over the map: none at std 0, their mean at an infinite one, and in between rows and columns each by a normal
    distribution of the positions that there are."""
    smoothed = lambda std: of(network, guidance.smoothed_attention(1.0, std))  # noqa: E731
    np.testing.assert_allclose(smoothed(0.0), of(network), rtol=1e-9)
    mean = edited(network, "middle_attention", lambda look, query, key, value:
                  look(jnp.broadcast_to(query.mean(1, keepdims=True), query.shape), key, value))  # fmt: skip
    np.testing.assert_allclose(smoothed(float("inf")), 2 * of(network) - mean, rtol=1e-9)

    def blurred(look, query, key, value):
        place = np.arange(4)  # the map is 2 x 4
        weights = np.exp(-((place[:, None] - place) ** 2) / 2)
        rows, columns = (w / w.sum(1, keepdims=True) for w in (weights[:2, :2], weights))
        maps = jnp.einsum("ij,kl,bjlhd->bikhd", rows, columns, query.reshape(2, 2, 4, *query.shape[2:]))
        return jnp.einsum("bhts,bshd->bthd", attention_weights(maps.reshape(query.shape), key), value)

    np.testing.assert_allclose(smoothed(1.0), 2 * of(network) - edited(network, "middle_attention", blurred), rtol=1e-8)
    assert np.abs(smoothed(1.0) - of(network)).max() > 1e-4


@pytest.mark.full
def test_attentions_that_are_not_there_are_refused(network):
    with pytest.raises(ValueError, match="no attention of this network has a name with 'bottom'"):
        of(network, guidance.perturbed_attention(2.0, "bottom"))
    with pytest.raises(ValueError, match="no attention of this network"):
        estimate(guidance.smoothed_attention())


# --- by name ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def system():
    return systems.build("ddpm", steps=50, channels=4, multipliers=(1,), attention=(), classes=3, label_dropout=0.1)


def test_each_is_named_as_it_is_made(system):
    g = guidance
    for words, want in (
        ("classifier_free_pp(0.4)", g.classifier_free_pp(0.4)),
        ("adaptive_projected(4, most=2.5, momentum=-0.75)", g.adaptive_projected(4, most=2.5, momentum=-0.75)),
        ("added(classifier_free(3), perturbed_attention(2))", g.added(g.classifier_free(3), g.perturbed_attention(2))),
        ("added(3, smoothed_attention(2, 1.5, 'up_1'))", g.added(g.classifier_free(3), g.smoothed_attention(2, 1.5, "up_1"))),
        ({"name": "added", "guidance": 3, "other": "temperature(0.9)"}, g.added(g.classifier_free(3), g.temperature(0.9))),
    ):  # fmt: skip
        found = parts.transforms(words, system)[0]
        assert jax.tree.structure(found) == jax.tree.structure(want) and jax.tree.leaves(found) == jax.tree.leaves(want), words


@pytest.mark.parametrize(("words", "said"), [
    ("added(classifier_free(3))", "guidance added goes around two others, as in added(classifier_free(3), perturbed_attention(2))"),
    ("adaptive_projected(3, momentum=1)", "a momentum between -1 and 1, got 1"),
    ("adaptive_projected(3, most=-1)", "a largest norm of at least 0, got -1"),
    ("adaptive_projected(3, drop=('text',))", "adaptive_projected of text would change nothing"),
    ("classifier_free_pp(0.5, drop=('text',))", "classifier_free_pp of text would change nothing"),
    ("temperature(0)", "a number above 0, got 0"), ("smoothed_attention(1, -1)", "at least 0 positions, got -1"),
    ("perturbed_attention(1, '(')", "'(' is no regular expression"), ("adaptive_projected", "needs scale"),
])  # fmt: skip
def test_what_cannot_guide_is_refused(system, words, said):
    with pytest.raises(UserError) as raised:
        parts.walk(system, guidance=words)
    assert said in str(raised.value) and "\n" not in str(raised.value)
