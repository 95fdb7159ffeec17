"""Parts by name: solvers, grids and guidance of a walk, and what is asked of all networks of a system."""

import jax
import pytest

from diffux import guidance, solvers, systems
from diffux.config import parts
from diffux.config.plan import plan
from diffux.errors import UserError
from diffux.types import nets

UNET = {"name": "ddpm", "steps": 50, "channels": 8, "multipliers": [1], "blocks": 1, "attention": []}


@pytest.fixture
def tiny():
    """The real network stands in its place here."""


def test_solvers_by_name():
    system = systems.build("ncsn", levels=5, step=0.2, inner=2)
    assert {"ancestral", "annealed_langevin", "ddim", "heun"} <= set(parts.known_solvers())
    assert not {"langevin", "compose", "sample"} & set(parts.known_solvers())
    for name in parts.known_solvers():
        assert hasattr(parts.solver(name, system), "step")
    assert parts.solver(None, system) is system.solver
    # the system's own numbers, and then others
    assert parts.solver("annealed_langevin", system) is system.solver
    assert parts.solver("annealed_langevin", system, options={"inner": 1}).inner == 1
    assert parts.solver("annealed_langevin(inner=3)", system).inner == 3
    assert parts.solver("ddim", system, eta=0.5).eta == parts.solver("ddim(0.5)", system).eta == 0.5
    noisy = system.replace(solver=solvers.ddim(1.0))  # of the same class as euler, which is still asked for by name
    assert parts.solver("ddim", noisy) is noisy.solver and parts.solver("euler", noisy).order == 1
    for arguments, message in (
        (("dimm", system), "did you mean 'ddim'"),
        (("heun", system, 0.5), "solver heun has no eta, got 0.5; solvers that have one: ddim"),
        (("ddim", system, 2.0), "eta"),
        (("ddim", system, None, {"etta": 1}), "unknown option of solver ddim 'etta'; did you mean 'eta'"),
        (("ddim(etta=1)", system), "unknown option of solver ddim 'etta'; did you mean 'eta'"),
        (("ddim(eta=print)()", system), "a solver is a name, or a call of numbers and words"),
        ((None, system, None, {"eta": 1}), "the solver options eta need the name of a solver"),
    ):
        with pytest.raises(UserError, match=message):
            parts.solver(*arguments)


def test_guidance_is_a_chain_before_the_systems_own_transforms():
    system = systems.build(**UNET, classes=10)
    (clip,) = system.guidance
    own = guidance.classifier_free(0.5)
    made = parts.transforms([2, "classifier_free(3, drop=('label',))", {"name": "static_threshold", "high": 0.9}, own], system)
    assert [type(transform).__name__ for transform in made] == [type(part).__name__ for part in (own, own, clip, own, clip)]
    assert [made[i].scale for i in (0, 1, 3)] == [2, 3, 0.5] and made[1].drop == ("label",) and made[3] is own and made[4] is clip
    assert parts.transforms(None, system) is None and parts.transforms([], system) == (clip,)
    assert parts.transforms(2.0, system)[0].scale == 2.0
    for asked, message in (
        ("classifer_free(2)", "unknown guidance 'classifer_free'; did you mean 'classifier_free'"),
        ("classifier_free(scle=2)", "unknown option of guidance classifier_free 'scle'; did you mean 'scale'"),
        ("classifier_free(scale='much')", "scale of guidance classifier_free must be a number, got 'much'"),
        ("classifier_free(2, 3, 4, 5)", "guidance classifier_free takes at most 3 arguments, got 4"),
        ("classifier_free(2, scale=3)", "guidance classifier_free got scale twice"),
        ("classifier_free", "guidance classifier_free needs scale"),
        ("2 + 2", "a guidance is a name, or a call of numbers and words"),
        ({"scale": 2}, "a guidance given as a mapping needs its name"),
        ({"name": ["classifier_free"]}, "a guidance given as a mapping needs its name"),
        (True, "guidance is a classifier-free scale, or transforms such as"),
        ([None], "guidance is a classifier-free scale, or transforms such as"),
        ([[2]], "guidance is a classifier-free scale, or transforms such as"),
    ):
        with pytest.raises(UserError, match=message) as raised:
            parts.transforms(asked, system)
        assert "\n" not in str(raised.value)


def test_a_walk_of_parts_that_do_not_fit_is_refused_at_once():
    system = systems.build(**UNET, classes=10)
    walk = parts.walk(system, solver="ddim", steps=5, grid="log_snr", guidance=2)
    assert walk["steps"] == 5 and walk["solver"].order == 1 and len(walk["guidance"]) == 2
    for asked, message in (
        ({"steps": 51}, "50"),
        ({"solver": "dpm_solver(order=4)"}, "order"),
        ({"grid": "karas"}, "unknown grid 'karas'; did you mean 'karras'"),
        ({"guidance": "classifier_free(2, drop=('text',))"}, "classifier_free of text would change nothing"),
    ):
        with pytest.raises(UserError, match=message):
            parts.walk(system, **asked)
    with pytest.raises(UserError, match=r"classifier_free would change nothing: .* none: this model is unconditional"):
        parts.walk(systems.build(**UNET), guidance=2)
    with pytest.raises(UserError, match="a NoisyClassifier is trained and not sampled"):
        parts.walk(parts.system({"name": "noisy_classifier", "depth": 10, "width": 1}), steps=3)


def test_types_and_rematerialisation_reach_every_network_that_has_them():
    system = parts.system(UNET, dtype="bfloat16", remat="blocks")
    (net,) = nets(system)
    assert (net.module.dtype, net.module.remat) == ("bfloat16", "blocks")
    plain = parts.system(UNET)
    assert jax.tree.structure(plain) == jax.tree.structure(systems.build(**UNET))
    roll = {"name": "diffusion2015", "data": "point", "network": "rbf", "codec": "standardized", "steps": 5}
    with pytest.raises(UserError, match=r"compute.remat=blocks needs a network that has it, and \w+ has not: leave it at none"):
        parts.system(roll, remat="blocks")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "unknown system 'None'"),
        ({"name": "ddmp"}, "unknown system 'ddmp'; did you mean 'ddpm'"),
        ({"name": "ddpm", "chanels": 3}, "unknown option of system ddpm 'chanels'; did you mean 'channels'"),
        ({"name": "ddpm", "betas": "cosin"}, "unknown beta table 'cosin'; did you mean 'cosine'"),
        ({"name": "ddpm", "weighting": "min_snr(gama=3)"}, "unknown option of weighting min_snr 'gama'; did you mean 'gamma'"),
        ({"name": "ddpm", "parameterization": {"name": "epsilo"}}, "did you mean 'epsilon'"),
        ({"name": "ddpm", "steps": 1.5}, "steps of system ddpm must be a whole number, got 1.5"),
        ({"name": "ddpm", "blocks": 10**5}, "blocks of system ddpm must be at most 1000"),
        ({"name": "diffusion2015", "codec": "binarised"}, "unknown codec 'binarised'; did you mean 'binarized'"),
        ({"name": "diffusion2015", "network": "multi_scale"}, "unknown network 'multi_scale'; did you mean 'multiscale'"),
        ({"name": "noisy_classifier", "schedule": "linea"}, "unknown schedule 'linea'; did you mean 'linear'"),
    ],
)
def test_systems_that_cannot_be_built_are_refused_in_one_sentence(options, message):
    with pytest.raises(UserError, match=message) as raised:
        parts.system(options)
    assert "\n" not in str(raised.value)


def test_a_net_that_nothing_takes_is_refused():
    net = solvers.ddim()  # whatever it is
    with pytest.raises(UserError, match=r"unknown net \(nothing in this system or its guidance takes it\) 'classifer'"):
        plan({"system": UNET}, nets={"classifer": net})
