"""How fast and how large a training step is beside diffusers', what the data costs, and how long a newcomer waits.

  python experiments/benchmarks/training.py
  python experiments/benchmarks/training.py --step --batch 8 --rounds 10
  python experiments/benchmarks/training.py --loading --pairs 20
  python experiments/benchmarks/training.py --compiling --limit 300 --configs ddpm_digits ncsn_digits
  python experiments/benchmarks/training.py --first_step --configs ddpm_digits

--step: the training step of ddpm_cifar10 (35.7 M parameters; loss, clipped gradient, Adam, averaged weights) and the network's
forward pass, beside the same in torch with diffusers' U-Net, in float32 and bfloat16 with float32 parameters: images a second,
the share of the machine's matmul peak, and memory, which every contender shows in a process of its own. Contenders take turns,
but threads that wait for each other lose more than others on a busy machine: then only processor seconds compare (with
OMP_WAIT_POLICY=passive, or torch's waiting counts as work).
--loading: the step fed by the real loader against the same batch again and again. --compiling: trace and compile time of every
config's step, by shapes only, in a process each and without the compilation cache. --first_step: seconds from the start of
the process to the first step, with an empty compilation cache and with the one that this left. The figures are also written
to a JSON file, in which parts that did not run this time stay as they are.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several processes share a GPU here

import jax
import jax.numpy as jnp
import numpy as np
from harness import CONSOLE, EXPERIMENTS, config_of, device, paired, peers, record, shown, spread, table, unet_of_diffusers, verdict
from rich.progress import track

from diffux import cost, data
from diffux.config.plan import plan
from diffux.devices import mesh as sharding
from diffux.systems.shapes import parameters
from diffux.training.program import prepare

TYPES = ("float32", "bfloat16")
GOALS = {"forward": 1.05, "step": 0.85} if jax.default_backend() == "cpu" else {"step": 1.0}
"""At least so many times as fast as torch: in float32, eager, on CPU, and in bfloat16, compiled, elsewhere."""
GOAL_PEAK, GOAL_LOADING = 0.25, 1.02


# --- the contenders --------------------------------------------------------------------------------------------------


class Ours:
    """The step of a config on one device, as the loop runs it."""

    def __init__(self, dtype: str, batch: int, images=None):
        config = config_of("ddpm_cifar10", f"--config.data.batch_size={batch}", f"--config.compute.dtype={dtype}")
        wanted = plan(config)
        images = np.zeros((batch, 32, 32, 3), np.uint8) if images is None else images
        self.mesh = sharding.make_mesh(wanted.sharding, jax.devices()[:1])
        self.program = prepare(wanted, {"image": images}, self.mesh)
        self.update = self.program.compile()
        params = parameters(wanted.seed, wanted.system, {"image": images}).params
        self.state = self.program.start(params, jax.random.key(1))
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(self.state.params))
        self.network, self.params = self.program.system.network.module, jax.tree.map(jnp.copy, self.state.params["network"])
        self.batch = self.place({"image": images})
        self.x, self.noise = jnp.zeros(images.shape), jnp.ones(batch)
        self.evaluate = jax.jit(lambda params, x, noise: self.network.apply({"params": params}, x, noise))

    def place(self, batch):
        return sharding.place_batch(batch, self.mesh)

    def begin(self, batch=None):
        """Start a step; its metrics."""
        self.state, metrics = self.update(self.program.system, self.state, self.batch if batch is None else batch)
        return metrics

    def step(self):
        return float(self.begin()["loss"])

    def forward(self):
        return jax.block_until_ready(self.evaluate(self.params, self.x, self.noise))

    def flops(self) -> dict[str, int]:
        forward = jax.make_jaxpr(self.evaluate)(self.params, self.x, self.noise)
        return {"forward": cost.contractions(forward), "step": cost.contractions(self.program.trace().jaxpr)}

    def peak(self) -> int | None:
        return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


class Torchs:
    """The same work in torch: loss in epsilon, clipped gradient, Adam and averaged weights."""

    def __init__(self, dtype: str, batch: int, images=None, compiled: bool = False, channels_last: bool = False):
        self.torch, diffusers, self.place = peers()
        torch = self.torch
        torch.set_num_threads(os.cpu_count())
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.net = unet_of_diffusers(diffusers, dropout=0.1).to(self.place, memory_format=layout).train()
        self.params = list(self.net.parameters())
        self.parameters = sum(p.numel() for p in self.params)
        self.average = [p.detach().clone() for p in self.params]
        self.adam = torch.optim.Adam(self.params, 2e-4, fused=True)
        images = np.zeros((batch, 32, 32, 3), np.uint8) if images is None else images
        self.images = torch.tensor(images.transpose(0, 3, 1, 2), device=self.place)
        alpha = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, device=self.place), 0)
        self.alpha, self.sigma = alpha.sqrt(), (1 - alpha).sqrt()
        self.half = functools.partial(torch.autocast, self.place, torch.bfloat16, enabled=dtype == "bfloat16")
        self.call = torch.compile(self.net) if compiled else self.net
        x = torch.zeros(batch, 3, 32, 32, device=self.place).to(memory_format=layout)
        self.x, self.noise, self.layout = x, torch.ones(batch, device=self.place), layout

    def loss(self):
        torch = self.torch
        x0 = self.images.float() / 127.5 - 1
        index = torch.randint(0, 1000, (x0.shape[0],), device=self.place)
        eps = torch.randn_like(x0)
        x = self.alpha[index, None, None, None] * x0 + self.sigma[index, None, None, None] * eps
        with self.half():
            out = self.call(x.to(memory_format=self.layout), index).sample
        return torch.nn.functional.mse_loss(out.float(), eps)

    def step(self):
        loss = self.loss()
        loss.backward()
        self.torch.nn.utils.clip_grad_norm_(self.params, 1.0)
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        with self.torch.no_grad():
            self.torch._foreach_lerp_(self.average, self.params, 1e-4)
        return loss.item()

    def forward(self):
        self.net.eval()
        with self.torch.inference_mode(), self.half():
            out = self.call(self.x, self.noise).sample.float().cpu()
        self.net.train()
        return out

    def flops(self) -> dict[str, int]:
        from torch.utils.flop_counter import FlopCounterMode

        found, call = {}, self.call
        self.call = self.net  # what is compiled is not counted
        for name, run in (("forward", self.forward), ("step", self.step)):
            with FlopCounterMode(display=False) as counter:
                run()
            found[name] = counter.get_total_flops()
        self.call = call
        return found

    def peak(self) -> int | None:
        return self.torch.cuda.max_memory_allocated() if self.place == "cuda" else None


CONTENDERS = {
    "diffux": Ours,
    "torch, eager": Torchs,
    "torch, eager, channels last": functools.partial(Torchs, channels_last=True),
    "torch.compile": functools.partial(Torchs, compiled=True),
}


# --- the step --------------------------------------------------------------------------------------------------------


def step(batch: int, rounds: int, types, contenders) -> dict:
    found: dict = {"batch": batch}
    for dtype in types:
        names = [name for name in contenders if name == "diffux" or peers()]
        made, first = {}, {}
        for name in names:
            begin = time.perf_counter()
            try:
                one = CONTENDERS[name](dtype, batch)
                one.step(), one.forward()
            except Exception as error:  # torch.compile fails in many ways, none of which concerns the other rows
                CONSOLE.print(f"{name}: left out, {type(error).__name__}: {str(error).strip().splitlines()[0][:100]}")
                continue
            made[name], first[name] = one, time.perf_counter() - begin
            CONSOLE.print(f"{dtype}, {name}: first step and forward pass after {first[name]:.1f} s")
        sizes = {name: one.parameters for name, one in made.items()}
        if len(set(sizes.values())) != 1:
            raise SystemExit(f"not the same network: {sizes} parameters")
        work = {name: one.flops() for name, one in made.items()}
        seconds, busy = ({name: {"forward": [], "step": []} for name in made} for _ in range(2))
        for turn in track(range(rounds), f"{rounds} rounds in {dtype}", console=CONSOLE):
            for name in list(made) if turn % 2 else reversed(made):
                for part, times in seconds[name].items():
                    begin, used = time.perf_counter(), time.process_time()
                    getattr(made[name], part)()
                    times.append(time.perf_counter() - begin)
                    busy[name][part].append(time.process_time() - used)
        peaks = {"diffux": _jax_peak(dtype)} | ({"torch": _torch_peak(dtype)} if len(made) > 1 else {})
        parameters_ = made["diffux"].parameters
        made.clear()
        memory = {name: _memory(name, dtype, batch) for name in seconds}
        rows = found[dtype] = {"parameters": parameters_, "matmul_peak": peaks, "contenders": {}}
        for name, times in seconds.items():
            row = rows["contenders"][name] = {"first": first[name], "memory": memory[name]}
            for part in times:
                middle = float(np.median(times[part]))
                peak = max(peaks.values())  # the machine's: torch's product and its convolutions are of two libraries
                row[part] = {
                    "seconds": spread(times[part]),
                    "processor_seconds": spread(busy[name][part]),
                    "images_per_second": batch / middle,
                    "flops": work[name][part],
                    "share_of_matmul_peak": work[name][part] / middle / peak,
                    "diffux_is_faster_by": spread(np.divide(times[part], seconds["diffux"][part])),
                }
        _show_step(dtype, batch, rows)
    return found


def _show_step(dtype: str, batch: int, rows: dict) -> None:
    peaks = ", ".join(f"{name} {peak / 1e9:.0f}" for name, peak in rows["matmul_peak"].items())
    title = f"{rows['parameters'] / 1e6:.1f} M U-Net, 32x32x3, batch {batch}, {dtype}, on {device()}; matmul GFLOP/s: {peaks}"
    for part in ("forward", "step"):
        columns = "seconds, median (quartiles)", "processor s", "images/s", "GFLOP", "of peak", "time / diffux's", "memory, MiB"
        view = table(f"{part}: {title}", *columns)
        for name, row in rows["contenders"].items():
            one = row[part]
            view.add_row(name, shown(one["seconds"], 3), shown(one["processor_seconds"], 2), f"{one['images_per_second']:.2f}",
                         f"{one['flops'] / 1e9:.0f}", f"{one['share_of_matmul_peak']:.2f}", shown(one["diffux_is_faster_by"], 2),
                         f"{row['memory'] / 2**20:.0f}" if part == "step" else "")  # fmt: skip
        CONSOLE.print(view)
        cpu = jax.default_backend() == "cpu"
        against, in_ = ("torch, eager", "float32") if cpu else ("torch.compile", "bfloat16")
        if part in GOALS and dtype == in_ and against in rows["contenders"]:
            ratio = rows["contenders"][against][part]["diffux_is_faster_by"]["median"]
            CONSOLE.print(f"{part}, {ratio:.2f}x {against}; goal at least {GOALS[part]}: {verdict(ratio >= GOALS[part])}")
        if not cpu and part == "step" and dtype == in_:
            share = rows["contenders"]["diffux"][part]["share_of_matmul_peak"]
            CONSOLE.print(f"{share:.2f} of the matmul peak; goal at least {GOAL_PEAK}: {verdict(share >= GOAL_PEAK)}")


def _best(run, repeats: int = 10) -> float:
    run()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return min(times)


def _side() -> int:
    return 2048 if jax.default_backend() == "cpu" else 8192


def _jax_peak(dtype: str) -> float:
    """Operations a second of a large square matrix product."""
    a = jnp.ones((_side(), _side()), dtype)
    product = jax.jit(jnp.dot)
    return 2 * _side() ** 3 / _best(lambda: product(a, a).block_until_ready())


def _torch_peak(dtype: str) -> float:
    torch, _, place = peers()
    a = torch.ones(_side(), _side(), dtype=getattr(torch, dtype), device=place)
    wait = torch.cuda.synchronize if place == "cuda" else lambda: None
    return 2 * _side() ** 3 / _best(lambda: (a @ a, wait()))


# --- memory ----------------------------------------------------------------------------------------------------------


def _memory(name: str, dtype: str, batch: int) -> int:
    """The most bytes at once while a contender makes three steps, in a process of its own."""
    command = [sys.executable, __file__, "--memory", name, "--types", dtype, "--batch", str(batch)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])


def measure_memory(name: str, dtype: str, batch: int) -> int:
    """On an accelerator what its allocator says; on CPU the growth of the process, from before the contender was made to the
    most while it steps, without what compiling took."""
    before = _resident("VmRSS")
    one = CONTENDERS[name](dtype, batch)
    one.step()
    on_cpu = one.peak() is None
    if on_cpu:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        pathlib.Path("/proc/self/clear_refs").write_text("5")  # begins the highest resident size anew (man 5 proc)
    for _ in range(3):
        one.step()
    return _resident("VmHWM") - before if on_cpu else one.peak()


def _resident(field: str) -> int:
    line = next(line for line in pathlib.Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


# --- data ------------------------------------------------------------------------------------------------------------


def loading(batch: int, pairs: int, steps: int = 2) -> dict:
    """`steps` steps as the loop makes them: the next batch is read while the device is busy, and metrics are fetched late."""
    source = data.load("patches/32")
    batches = data.loader(source, batch_size=batch, seed=0, flip=True)
    ours = Ours("float32", batch, next(batches)["image"])

    def run(load: bool):
        waiting = None
        for _ in range(steps):
            metrics = ours.begin(ours.place({"image": next(batches)["image"]}) if load else None)
            if waiting is not None:
                jax.device_get(waiting)
            waiting = metrics
        return jax.block_until_ready(waiting)

    on, off = paired({"": (lambda: run(True), lambda: run(False))}, pairs, f"{pairs} pairs of {steps} steps")[""]
    begin = time.perf_counter()
    for _ in range(200):
        next(batches)
    alone = (time.perf_counter() - begin) / 200
    ratio = spread(on / off)
    CONSOLE.print(f"step with the loader / without, {batch} images of 32x32x3 with flips: {shown(ratio, 4)}; "
                  f"goal at most {GOAL_LOADING}: {verdict(ratio['median'] <= GOAL_LOADING)}; "
                  f"a batch alone takes {1e3 * alone:.2f} ms, a step {off.mean() / steps:.3f} s")  # fmt: skip
    return {"batch": batch, "steps": steps, "ratio": ratio, "seconds_a_batch": alone,
            "seconds_a_step": {"loading": spread(on / steps), "not_loading": spread(off / steps)}}  # fmt: skip


# --- compilation -----------------------------------------------------------------------------------------------------


def compiling(configs, limit: float) -> dict:
    """Every config in a process of its own, which is ended after `limit` seconds."""
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": ""}
    found: dict = {"limit": limit, "configs": {}}
    view = table(f"the training step of every config on {device()}, by shapes only", "million parameters", "trace + compile, s",
                 "GFLOP an image", "memory, MiB")  # fmt: skip
    for name in track(configs, f"{len(configs)} configs", console=CONSOLE):
        command = [sys.executable, __file__, "--compile", name]
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired:
            found["configs"][name] = None
            view.add_row(name, "", f"over {limit:.0f}", "", "")
            continue
        if done.returncode:
            raise SystemExit(f"{name}: {done.stderr[-1000:]}")
        one = found["configs"][name] = json.loads(done.stdout.splitlines()[-1])
        view.add_row(name, f"{one['parameters'] / 1e6:.2f}", f"{one['seconds']:.1f}", f"{one['flops_an_image'] / 1e9:.3g}",
                     f"{one['memory'] / 2**20:.0f}")  # fmt: skip
    CONSOLE.print(view)
    return found


def compile_alone(name: str) -> dict:
    report = cost.measure(config_of(name))
    return {"parameters": report.parameters, "seconds": report.seconds_to_compile, "flops_an_image": report.flops,
            "memory": report.memory.peak}  # fmt: skip


# --- the first step --------------------------------------------------------------------------------------------------

_LAUNCH = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""


def first_step(configs, steps: int) -> dict:
    """Each config twice in processes of their own: with an empty compilation cache ("cold", the data set is prepared already),
    then with the one that this left ("warm"). Peak memory is that of the whole process."""
    found: dict = {}
    view = table(f"{steps} steps from the start of the process", "compilation cache", "first step, s", "examples/s", "memory, MiB")
    for name in configs:
        config = config_of(name)
        data.load(config["data"]["name"], split=config["data"]["split"])
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            found[name] = {kind: _launch(name, steps, folder / "cache", folder / kind) for kind in ("cold", "warm")}
        for kind, one in found[name].items():
            view.add_row(
                name, kind, f"{one['first_step']:.1f}", f"{one['examples_per_second']:.1f}", f"{one['memory'] / 2**20:.0f}"
            )
    CONSOLE.print(view)
    return found


def _launch(name: str, steps: int, cache: pathlib.Path, workdir: pathlib.Path) -> dict:
    command = [
        sys.executable,
        str(EXPERIMENTS / "train.py"),
        *("--config", str(EXPERIMENTS / "configs" / f"{name}.py"), "--workdir", str(workdir), f"--config.steps={steps}"),
        *(f"--config.training.log_every={max(1, steps // 5)}", f"--config.training.checkpoint_every={steps}"),
        *("--config.training.sample_every=0", "--config.sample.n=1", "--config.sample.steps=1"),
    ]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)} | {
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", _LAUNCH, *command], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    # of images, of points, ...
    rates = [value for row in rows for key, value in row.items() if key.endswith("_per_second") and key != "steps_per_second"]
    # Linux counts the resident set in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return {"first_step": next(row["seconds_to_first_step"] for row in rows if "seconds_to_first_step" in row),
            "examples_per_second": statistics.median(rates),
            "memory": int(done.stdout) * unit}  # fmt: skip


# --- the run ---------------------------------------------------------------------------------------------------------


def main() -> None:
    every = sorted(path.stem for path in (EXPERIMENTS / "configs").glob("*.py"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for part in ("step", "loading", "compiling", "first_step"):
        parser.add_argument(f"--{part}", action="store_true", help="this part; without any such flag all run")
    parser.add_argument("--batch", type=int, help="images a step (8 on CPU, 128 elsewhere)")
    parser.add_argument("--rounds", type=int, default=10, help="of all contenders (10)")
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS, help="beside diffux (all)")
    parser.add_argument("--types", nargs="+", default=TYPES, choices=TYPES, help="of the network's arithmetic")
    parser.add_argument("--pairs", type=int, default=20, help="of steps with and without loading (20)")
    parser.add_argument("--configs", nargs="+", choices=every, help="to compile (all), or whose first step to await (ddpm_digits)")
    parser.add_argument("--limit", type=float, default=600, help="seconds that a config may take to compile (600)")
    parser.add_argument("--steps", type=int, default=50, help="of the runs whose first step is awaited (50)")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file (results/training_<device kind>.json beside this script)")
    parser.add_argument("--memory", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--compile", choices=every, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    batch = flags.batch or (8 if jax.default_backend() == "cpu" else 128)
    if flags.memory or flags.compile:  # what a process of its own is for
        print(json.dumps(measure_memory(flags.memory, flags.types[0], batch) if flags.memory else compile_alone(flags.compile)))
        return
    parts = {
        "step": lambda: step(batch, flags.rounds, flags.types, dict.fromkeys(["diffux", *flags.contenders])),
        "loading": lambda: loading(batch, flags.pairs),
        "compiling": lambda: compiling(flags.configs or every, flags.limit),
        "first_step": lambda: first_step(flags.configs or ["ddpm_digits"], flags.steps),
    }
    record("training", {part: parts[part] for part in parts if getattr(flags, part)} or parts, flags.out)


if __name__ == "__main__":
    main()
