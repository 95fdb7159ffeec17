"""How much sampling costs beside its network, and how far each solver comes with few network evaluations.

  python experiments/benchmarks/sampling.py
  python experiments/benchmarks/sampling.py --overhead
  python experiments/benchmarks/sampling.py --unet --batch 2 --pairs 20
  python experiments/benchmarks/sampling.py --guided --pairs 10
  python experiments/benchmarks/sampling.py --error

--overhead: microseconds a step beyond bare network evaluations, for a tiny network: one scan, the scan with `progress`, a
Python loop of jitted steps, diffusers' loop; then one scan of every solver. --unet: seconds of 50 DDIM steps with the 35.7 M
U-Net, and their ratio to 50 bare evaluations, beside diffusers' U-Net. --guided: the time of DDIM steps of the same U-Net with
classifier-free guidance, at all levels and at half of them, beside steps without. --error: distance to the truth at 5 to 50
evaluations on a mixture of Gaussians. Contenders are interleaved and compared within one run, on a machine that should be
quiet. The figures are also written to a JSON file, in which parts that did not run this time stay as they are.
"""

from __future__ import annotations

import argparse
import itertools
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import solver_table
from flax import struct
from harness import CONSOLE, device, paired, peers, record, shown, spread, table, unet_of_diffusers, verdict
from rich.progress import track

from diffux import Gaussian, grids, guidance, keys, parameterizations, schedules, solvers
from diffux.denoisers import as_denoiser
from diffux.networks.initialize import initialize
from diffux.networks.unet import UNet
from diffux.noise_level import NoiseLevel
from diffux.systems.system import Model
from diffux.types import Net

GOALS = {"ddim": (10, 25), "ddpm": (30, 10)}  # at most so many microseconds a step, so many times less than diffusers
GOAL_PROGRESS, GOAL_UNET, GOAL_GUIDED = 1.3, 1.02, 2.05
BUDGETS = (5, 10, 20, 50)


def bare(network, noise, x):
    """Nothing but evaluations: the network's output is its next input."""
    return jax.lax.scan(lambda x, n: (network(x, n), None), x, noise)[0]


# --- overhead --------------------------------------------------------------------------------------------------------


@struct.dataclass
class Tiny:
    """A network of a few microseconds, and its denoiser."""

    first: jax.Array
    second: jax.Array

    def network(self, x, noise, cond=None):
        return jnp.tanh(x @ self.first + 1e-3 * jnp.reshape(noise, (-1, 1))) @ self.second

    def __call__(self, x, level, cond):
        return as_denoiser(self.network, parameterizations.epsilon)(x, level, cond)


_bare_tiny = jax.jit(lambda model, noise, x: bare(model.network, noise, x))


@jax.jit
def _step(model, solver, key, index, x, t, s):
    return solver.step(keys.fold_in(key, index), lambda x, level: model(x, level, {}), x, (), t=t, s=s)[0]


def overhead(steps: int, repeats: int) -> dict:
    generator = np.random.default_rng(0)
    first, second = (0.3 * generator.normal(size=shape).astype(np.float32) for shape in ((8, 32), (32, 8)))
    model, x = Tiny(jnp.asarray(first), jnp.asarray(second)), generator.normal(size=(16, 8)).astype(np.float32)
    chain = schedules.from_betas(schedules.linear_betas())
    levels, each = grids.discrete()(chain, steps), keys.sample_keys(0, 0, 16)
    noise, start = 999 * levels.t[:-1], jnp.asarray(x)
    pairs = [NoiseLevel(*(field[i] for field in levels)) for i in range(steps + 1)]
    walkers = {"ddim": solvers.ddim(), "ddpm": solvers.ancestral(Gaussian(chain))}
    alone = lambda: _bare_tiny(model, noise, start)  # noqa: E731
    functions = {}

    def loop(solver):
        x = start
        for index, (t, s) in enumerate(itertools.pairwise(pairs)):
            x = _step(model, solver, each, index, x, t, s)
        return x

    for name, solver in walkers.items():
        run = lambda solver=solver, **options: solvers.sample(each, model, solver, levels, start, **options).x  # noqa: E731
        chunked = lambda run=run: run(progress=lambda done, total: None)  # noqa: E731
        functions[name, "one scan"] = run, alone
        functions[name, "scan with progress"] = chunked, alone
        functions[name, "loop of jitted steps"] = (lambda solver=solver: loop(solver)), alone
        functions[name, "with progress / without"] = chunked, run
    if peer := peers():
        functions |= _torch_walks(*peer, first, second, x, steps)
    times = paired(functions, repeats, f"{len(functions)} walks of {steps} steps")

    kinds = ["one scan", "scan with progress", "loop of jitted steps", *(["diffusers' loop"] if peer else [])]
    beyond = {pair: spread(1e6 * (times[pair][0] - times[pair][1]) / steps) for pair in itertools.product(walkers, kinds)}
    slower = {name: spread(np.divide(*times[name, "with progress / without"])) for name in walkers}
    found: dict = {"steps": steps, "state": start.shape, "evaluation_us": spread(1e6 * times["ddim", "one scan"][1] / steps)}
    found |= {"overhead_us": {f"{name}, {kind}": figures for (name, kind), figures in beyond.items()}, "progress_ratio": slower}

    title = f"{steps} steps on {device()}, state (16, 8): microseconds a step beyond the network, median (quartiles)"
    view = table(title, *walkers)
    view.add_row("one evaluation in a scan", shown(found["evaluation_us"]))
    for kind in kinds:
        view.add_row(kind, *(shown(beyond[name, kind]) for name in walkers))
    view.add_section()
    scan = {name: beyond[name, "one scan"]["median"] for name in walkers}
    view.add_row("goal: one scan at most", *(f"{most} us: {verdict(scan[name] <= most)}" for name, (most, _) in GOALS.items()))
    view.add_row("time with progress / without", *(shown(slower[name], 2) for name in walkers))
    view.add_row(f"goal: at most {GOAL_PROGRESS}", *(verdict(slower[name]["median"] <= GOAL_PROGRESS) for name in walkers))
    if peer:
        # below a tenth of a microsecond nothing is measured
        fewer = {name: beyond[name, "diffusers' loop"]["median"] / max(scan[name], 0.1) for name in walkers}
        found |= {"diffusers_ratio": fewer, "torch_evaluation_us": spread(1e6 * times["ddim", "diffusers' loop"][1] / steps)}
        view.add_row("one evaluation in a torch loop", shown(found["torch_evaluation_us"]))
        view.add_row("diffusers' loop / one scan", *(f"{fewer[name]:.0f}" for name in walkers))
        view.add_row("goal: at least", *(f"{least}: {verdict(fewer[name] >= least)}" for name, (_, least) in GOALS.items()))
    CONSOLE.print(view)
    found["solvers"] = _every_solver(model, start, each, steps, repeats)
    return found


def _torch_walks(torch, diffusers, place, first, second, x, steps: int) -> dict:
    first, second, start = (torch.as_tensor(array, device=place) for array in (first, second, x))
    network = lambda x, t: torch.tanh(x @ first + 1e-3 * t) @ second  # noqa: E731

    def walk(scheduler=None, **options):
        x = start
        with torch.inference_mode():
            for t in times:
                f = network(x, t)
                x = f if scheduler is None else scheduler.step(f, t, x, **options).prev_sample
            return x.cpu().numpy()

    schedulers = {"ddim": diffusers.DDIMScheduler(clip_sample=False), "ddpm": diffusers.DDPMScheduler(clip_sample=False)}
    for scheduler in schedulers.values():
        scheduler.set_timesteps(steps, device=place)
    times = schedulers["ddim"].timesteps
    return {
        ("ddim", "diffusers' loop"): (lambda: walk(schedulers["ddim"], eta=0.0), walk),
        ("ddpm", "diffusers' loop"): (lambda: walk(schedulers["ddpm"], generator=torch.Generator(place).manual_seed(0)), walk),
    }


def _every_solver(model, start, each, steps: int, repeats: int) -> dict:
    schedule = schedules.linear()
    levels = grids.log_snr()(schedule, steps)
    noise = 999 * levels.t[:-1]
    alone = lambda: _bare_tiny(model, noise, start)  # noqa: E731
    made = {name: make(schedule) for members in solver_table.FAMILIES.values() for name, make in members.items()}
    counts = {name: solver_table.evaluations(solver, levels) for name, solver in made.items()}
    walks = {name: ((lambda solver=solver: solvers.sample(each, model, solver, levels, start).x), alone)
             for name, solver in made.items()}  # fmt: skip
    times = paired(walks, repeats, f"one scan of {len(walks)} solvers")
    view = table(f"one scan of {steps} steps on {device()}: microseconds a step beyond the network",
                 "evaluations a step", "overhead, median (quartiles)")  # fmt: skip
    found = {}
    for name, (walk, evaluate) in times.items():
        beyond = spread(1e6 * (walk - counts[name] / steps * evaluate) / steps)
        found[name] = {"evaluations": counts[name], "overhead_us": beyond}
        view.add_row(name, f"{counts[name] / steps:.2f}", shown(beyond))
    CONSOLE.print(view)
    return found


# --- the U-Net -------------------------------------------------------------------------------------------------------


def unet(batch: int, pairs: int, length: int, steps: int = 50) -> dict:
    network = UNet()
    x = jax.random.normal(jax.random.key(1), (batch, 32, 32, 3))
    params = initialize(jax.random.key(0), network, x, jnp.zeros(batch))
    told = parameterizations.conditioned(parameterizations.epsilon, parameterizations.integer(1000))
    model, chain = Model(Net(network, params), told), schedules.from_betas(schedules.linear_betas())
    each = keys.sample_keys(0, 0, batch)
    walks = {n: grids.discrete(1000, "trailing")(chain, n) for n in {length, steps}}
    evaluate = jax.jit(lambda params, noise, x: bare(lambda x, n: network.apply({"params": params}, x, n), noise, x))
    ours = lambda n: solvers.sample(each, model, solvers.ddim(), walks[n], x).x  # noqa: E731
    alone = lambda n: evaluate(params, told(walks[n]).noise[:-1], x)  # noqa: E731
    millions = sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6
    found: dict = {"parameters_M": millions, "batch": batch, "seconds": {}}

    CONSOLE.print("compiling the U-Net's walks")
    walk, evaluations = paired({"": (lambda: ours(length), lambda: alone(length))}, pairs, f"{pairs} pairs of {length} steps")[""]
    found["ratio_to_bare"] = spread(walk / evaluations) | {"steps": length}
    found["seconds_a_step"] = {"ddim": spread(walk / length), "bare": spread(evaluations / length)}

    runs = {"diffux": lambda: ours(steps), "bare evaluations": lambda: alone(steps)}
    if peer := peers():
        runs |= _torch_unets(*peer, np.asarray(x).transpose(0, 3, 1, 2), steps)
    for name, run in list(runs.items()):
        begin = time.perf_counter()
        try:
            jax.block_until_ready(run())
        except Exception as error:  # torch.compile fails in many ways, none of which concerns the other rows
            CONSOLE.print(f"{name}: left out, {type(error).__name__}: {str(error).strip().splitlines()[0][:100]}")
            del runs[name]
            continue
        found["seconds"][name] = {"first": time.perf_counter() - begin, "later": []}
        CONSOLE.print(f"{name}: {found['seconds'][name]['first']:.1f} s the first time")
    for _ in track(range(3), f"{len(runs)} walks of {steps} steps", console=CONSOLE):
        for name, run in runs.items():
            begin = time.perf_counter()
            jax.block_until_ready(run())
            found["seconds"][name]["later"].append(time.perf_counter() - begin)

    view = table(f"{steps} DDIM steps of the {millions:.1f} M U-Net on {device()}, 32x32x3, batch {batch}: seconds",
                 "first call, which compiles", "median of three later", "fastest", "median / diffux's")  # fmt: skip
    middle = {name: float(np.median(spent["later"])) for name, spent in found["seconds"].items()}
    for name, spent in found["seconds"].items():
        seconds = spent["first"], middle[name], min(spent["later"]), middle[name] / middle["diffux"]
        view.add_row(name, *(f"{value:.2f}" for value in seconds))
    CONSOLE.print(view)
    ratio = found["ratio_to_bare"]
    CONSOLE.print(f"time of {length} DDIM steps / {length} bare evaluations, {pairs} pairs: {shown(ratio, 4)}; "
                  f"goal at most {GOAL_UNET}: {verdict(ratio['median'] <= GOAL_UNET)}")  # fmt: skip
    return found


def _torch_unets(torch, diffusers, place, x, steps: int) -> dict:
    """The walks of diffusers' network of the same configuration, with random weights of its own."""
    net = unet_of_diffusers(diffusers).eval().to(place)
    scheduler = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    scheduler.set_timesteps(steps, device=place)

    def walk(net):
        x_t = torch.tensor(x, device=place)
        with torch.inference_mode():
            for t in scheduler.timesteps:
                x_t = scheduler.step(net(x_t, t).sample, t, x_t).prev_sample
            return x_t.cpu().numpy()

    compiled = torch.compile(net)
    return {"diffusers, eager": lambda: walk(net), "diffusers, torch.compile": lambda: walk(compiled)}


# --- errors ----------------------------------------------------------------------------------------------------------


def guided(batch: int, pairs: int, length: int) -> dict:
    """Ratios of the time of guided walks to that of the walk without guidance."""
    network = UNet(classes=10)
    x, cond = jax.random.normal(jax.random.key(1), (batch, 32, 32, 3)), {"label": jnp.arange(batch) % 10}
    net = Net(network, initialize(jax.random.key(0), network, x, jnp.zeros(batch), cond))
    told = parameterizations.conditioned(parameterizations.epsilon, parameterizations.integer(1000))
    levels = grids.discrete(1000, "trailing")(schedules.from_betas(schedules.linear_betas()), length)
    half = float((levels.sigma / levels.alpha)[length // 2])  # at the levels above it there is guidance
    free = guidance.classifier_free(3.0)
    models = {"none": (), "classifier_free": (free,), "between, half of the levels": (guidance.between(free, half),)}
    models = {name: Model(net, told, transforms) for name, transforms in models.items()}
    each = keys.sample_keys(0, 0, batch)
    walk = lambda name: lambda: solvers.sample(each, models[name], solvers.ddim(), levels, x, cond).x  # noqa: E731
    times = paired({name: (walk(name), walk("none")) for name in models if name != "none"}, pairs, f"{pairs} pairs of walks")
    found = {name: spread(seconds / alone) for name, (seconds, alone) in times.items()}
    for name, ratio in found.items():
        CONSOLE.print(f"time of {length} DDIM steps with {name} / without: {shown(ratio, 3)}")
    met = verdict(found["classifier_free"]["median"] <= GOAL_GUIDED)
    CONSOLE.print(f"goal at most {GOAL_GUIDED} for classifier-free guidance: {met}")
    return {"batch": batch, "steps": length, "guided_steps_of_half": length // 2, "ratio": found}


def error() -> dict:
    headings = {
        False: "deterministic solvers: RMS distance to the end of the exact flow from the same starts",
        True: "stochastic solvers: sliced Wasserstein-2 distance of the samples' law to the data's, another measure",
    }
    found: dict = {"budgets": list(BUDGETS)}
    with jax.enable_x64(True):
        problem = solver_table.Problem(max(BUDGETS))
        for stochastic, heading in headings.items():
            setting = f"2-D mixture, VP linear schedule, log-SNR grid to t = {solver_table.END}; in brackets the steps"
            view = table(f"{heading}\n{setting}", *(f"{budget} evaluations" for budget in BUDGETS))
            families = {name: members for name, members in solver_table.FAMILIES.items()
                        if (name == solver_table.STOCHASTIC) == stochastic}  # fmt: skip
            rows = [(family, *member) for family, members in families.items() for member in members.items()]
            last = None
            for family, name, make in track(rows, f"{len(rows)} solvers", console=CONSOLE):
                if last not in (None, family):
                    view.add_section()
                last, solver = family, make(problem.schedule)
                walks = [problem.within(solver, budget) for budget in BUDGETS]
                found[name] = [walk and {"error": problem.error(solver, walk.x), "steps": walk.steps,
                                         "evaluations": walk.evaluations} for walk in walks]  # fmt: skip
                view.add_row(name, *("-" if cell is None else f"{cell['error']:.2g} ({cell['steps']})" for cell in found[name]))
            if stochastic:
                found["as many exact samples"] = problem.floor()
                view.caption = f"as many exact samples have {found['as many exact samples']:.2g}"
            CONSOLE.print(view)
    return found


# --- the run ---------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for part in ("overhead", "unet", "guided", "error"):
        parser.add_argument(f"--{part}", action="store_true", help="this part; without any such flag all run")
    parser.add_argument("--steps", type=int, default=1000, help="of the walks whose overhead is measured (1000)")
    parser.add_argument("--repeats", type=int, default=20, help="rounds of the overhead measurement (20)")
    parser.add_argument("--batch", type=int, help="images at once through the U-Net (1 on CPU, 64 elsewhere)")
    parser.add_argument("--pairs", type=int, default=20, help="pairs of a walk and bare evaluations of the U-Net (20)")
    parser.add_argument("--pair-steps", type=int, default=5, help="length of those walks (5)")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file (results/sampling_<device kind>.json beside this script)")
    flags = parser.parse_args()
    batch = flags.batch or (1 if jax.default_backend() == "cpu" else 64)
    parts = {
        "overhead": lambda: overhead(flags.steps, flags.repeats),
        "unet": lambda: unet(batch, flags.pairs, flags.pair_steps),
        "guided": lambda: guided(batch, flags.pairs, 2 * flags.pair_steps),
        "error": error,
    }
    record("sampling", {part: parts[part] for part in parts if getattr(flags, part)} or parts, flags.out)


if __name__ == "__main__":
    main()
