"""Convolution gradients inside `lax.scan` against outside, XLA's own rule against ours; and the U-Net's step with each.

    python experiments/benchmarks/convolution.py [--repeats 7] [--groups] [--unet] [--large]

The goal is a ratio of at most 1.5. `--groups` adds the kernel's gradient by groups of images, `--unet` first-compile and step time
of a small U-Net's gradient, `--large` (minutes) those of the 35.7 M one at batch 8. Times are medians of interleaved repeats: run
it on a quiet machine.
"""

from __future__ import annotations

import argparse
import contextlib
import time
import unittest.mock

import jax
import jax.numpy as jnp
import numpy as np
from harness import CONSOLE, processor, verdict
from jax import lax
from rich.table import Table

from diffux.networks import convolution as rules
from diffux.networks.convolution import convolution, plain_convolution
from diffux.networks.initialize import initialize
from diffux.networks.unet import UNet

GOAL = 1.5
STEPS = 4
SHAPES = [(64, 8, 32), (16, 16, 64), (8, 32, 128)]  # batch, side, channels
GROUPS = (1, 2, 4, 8)
GROUPED = [(8, 32, 128), (8, 16, 256), (8, 16, 512), (8, 8, 256), (8, 8, 512), (8, 4, 512), (64, 8, 32), (128, 8, 64),
           (128, 16, 64), (16, 32, 64), (32, 28, 32)]  # fmt: skip
RULES = {"XLA's": plain_convolution, "ours": contextlib.nullcontext}


def gradients(which: int, strides: int):
    """A step that moves the input (0) or the kernel (1) against its gradient."""

    def step(arrays):
        gradient = jax.grad(lambda x, kernel: jnp.sum(jnp.sin(convolution(x, kernel, strides))), which)(*arrays)
        return tuple(array - 1e-6 * gradient if place == which else array for place, array in enumerate(arrays))

    return step


def scanned(step):
    return lambda arrays: lax.scan(lambda carry, _: (step(carry), None), arrays, None, STEPS)[0]


def medians(functions: dict, arguments: dict, repeats: int) -> dict:
    """Seconds a call, every function once in each round, after one call that is not counted."""
    times: dict = {name: [] for name in functions}
    for _ in range(repeats + 1):
        for name, function in functions.items():
            begin = time.perf_counter()
            jax.block_until_ready(function(arguments[name]))
            times[name].append(time.perf_counter() - begin)
    return {name: float(np.median(values[1:])) for name, values in times.items()}


def convolutions(repeats: int) -> Table:
    table = Table(title=f"3x3 convolution gradients on {jax.default_backend()}: ms a step (goal: inside / outside <= {GOAL})")
    for column in ("batch x side x channels", "stride", "gradient of", "rule", "outside", "inside a scan", "ratio", ""):
        table.add_column(column)
    generator = np.random.default_rng(0)
    for batch, side, channels in SHAPES:
        x = generator.normal(size=(batch, side, side, channels)).astype(np.float32)
        kernel = 0.05 * generator.normal(size=(3, 3, channels, channels)).astype(np.float32)
        for strides in (1, 2):
            functions = {}
            for rule, context in RULES.items():
                for which in (0, 1):
                    step = gradients(which, strides)
                    with context():
                        functions[rule, which, "outside"] = jax.jit(step).lower((x, kernel)).compile()
                        functions[rule, which, "inside"] = jax.jit(scanned(step)).lower((x, kernel)).compile()
            spent = medians(functions, dict.fromkeys(functions, (x, kernel)), repeats)
            for which in (0, 1):
                for rule in RULES:
                    outside, inside = spent[rule, which, "outside"], spent[rule, which, "inside"] / STEPS
                    met = verdict(inside / outside <= GOAL) if rule == "ours" else ""
                    numbers = (f"{1e3 * outside:.2f}", f"{1e3 * inside:.2f}", f"{inside / outside:.2f}")
                    table.add_row(f"{batch} x {side} x {channels}", str(strides), ("input", "kernel")[which], rule, *numbers, met)
    return table


def groups(repeats: int) -> Table:
    table = Table(title=f"3x3 kernel gradients by groups of images, on {processor()}: ms")
    for column in ("batch x side x channels", *map(str, GROUPS), "chosen", "one group / chosen"):
        table.add_column(column)
    generator = np.random.default_rng(0)
    for batch, side, channels in GROUPED:
        x, dy = (generator.normal(size=(batch, side, side, channels)).astype(np.float32) for _ in range(2))
        kernel, functions = np.zeros((3, 3, channels, channels), np.float32), {}
        for count in (count for count in GROUPS if batch % count == 0):
            with unittest.mock.patch.object(rules, "groups_of", lambda shape, count=count: count):
                back = lambda arrays, kernel=kernel: jax.vjp(lambda kernel: convolution(arrays[0], kernel), kernel)[1](arrays[1])  # noqa: E731
                functions[count] = jax.jit(back).lower((x, dy)).compile()
        spent, chosen = medians(functions, dict.fromkeys(functions, (x, dy)), repeats), rules.groups_of(dy.shape)
        times = [f"{1e3 * spent[count]:.2f}" if count in spent else "" for count in GROUPS]
        table.add_row(f"{batch} x {side} x {channels}", *times, str(chosen), f"{spent[1] / spent[chosen]:.2f}")
    return table


def unets(repeats: int, large: bool) -> Table:
    table = Table(title="U-Net: seconds")
    for column in ("network", "rule", "initialize", "trace", "compile", "forward", "forward + backward"):
        table.add_column(column)
    cases = [("channels 32, (1, 2), 1 block, 8x8x1, batch 64", UNet(32, (1, 2), 1, (4,), dropout=0.0), (64, 8, 8, 1))]
    if large:
        cases.append(("channels 128, (1, 2, 2, 2), 2 blocks, 32x32x3, batch 8", UNet(dropout=0.0), (8, 32, 32, 3)))
    for name, network, shape in cases:
        x, noise = np.ones(shape, np.float32), np.ones(shape[0], np.float32)
        begin = time.perf_counter()
        params = jax.block_until_ready(initialize(jax.random.key(0), network, x, noise))
        drawn = time.perf_counter() - begin
        count = sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6

        def forward(params, network=network, x=x, noise=noise):
            return network.apply({"params": params}, x, noise)

        def loss(params, forward=forward):
            return jnp.mean((forward(params) - 1) ** 2)

        functions, spent = {}, {}
        for rule, context in RULES.items():
            with context():
                begin = time.perf_counter()
                lowered = jax.jit(jax.value_and_grad(lambda params, loss=loss: loss(params))).lower(params)
                traced = time.perf_counter()
                functions[rule, "both"] = lowered.compile()
                spent[rule] = traced - begin, time.perf_counter() - traced
                functions[rule, "forward"] = jax.jit(lambda params, forward=forward: forward(params)).lower(params).compile()
        steady = medians(functions, dict.fromkeys(functions, params), repeats)
        for rule in RULES:
            numbers = (drawn, *spent[rule], steady[rule, "forward"], steady[rule, "both"])
            table.add_row(f"{name}: {count:.1f} M", rule, *(f"{number:.3f}" for number in numbers))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--groups", action="store_true", help="also the kernel's gradient by groups of images")
    parser.add_argument("--unet", action="store_true", help="also a small U-Net")
    parser.add_argument("--large", action="store_true", help="also the 35.7 M U-Net")
    arguments = parser.parse_args()
    CONSOLE.print(convolutions(arguments.repeats))
    if arguments.groups:
        CONSOLE.print(groups(arguments.repeats))
    if arguments.unet or arguments.large:
        CONSOLE.print(unets(arguments.repeats, arguments.large))


if __name__ == "__main__":
    main()
