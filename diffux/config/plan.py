"""A config as objects, made once: everything that can be refused is refused here, and nobody below sees a mapping."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

from jax.sharding import Mesh

from diffux import averages, data, systems
from diffux.config import optimizers, parts
from diffux.config.schema import KEYS, check, complete
from diffux.devices.mesh import Sharding, batch_devices
from diffux.errors import UserError, explained, unknown
from diffux.fields import Field
from diffux.loggers import Opener, opener
from diffux.naming import accepts, parse
from diffux.systems.trainable import not_averaged
from diffux.types import reads

SHARE = 0.05
"""Of the training examples, where the data set has none that are held out."""


@dataclasses.dataclass(frozen=True)
class Data:
    """What a run is trained on, a name and its options; `own` are sources made in Python, which take its place.

    The other fields are the arguments of `data.loader`; `batch_size` is of all processes together.
    """

    name: str
    split: str
    held_out: str | float | None
    batch_size: int
    options: Mapping[str, Any]
    flip: bool
    crop: int | None
    dequantize: bool
    workers: int
    own: tuple[data.Source, data.Source | None] | None = None

    def sources(self) -> tuple[data.Source, data.Source | None]:
        """(the examples that are trained on, those that are held out or None); UserError where they cannot be had or do not agree.

        Where the data set has no split "test", and nothing else was asked for, a share of the training examples is held out.
        """
        with explained():
            train, test = self.own or (data.load(self.name, split=self.split, **self.options), self.held_out)
            if isinstance(test, str):
                try:
                    test = data.load(self.name, split=test, like=train.fields, **self.options)
                except data.NoSplit:
                    if test != KEYS["data.held_out"].default:
                        raise
                    test = SHARE
            if isinstance(test, float):
                return data.parted(train, test)
            return train, None if test is None else data.agreeing(test, train)

    def batches(self, source: data.Source, seed: int, start: int) -> Iterator[dict[str, Any]]:
        """The batches of this process from number `start` on."""
        with explained():
            return data.loader(source, batch_size=self.batch_size, seed=seed, train=True, flip=self.flip, crop=self.crop,
                               dequantize=self.dequantize, workers=self.workers, start=start)  # fmt: skip

    def fields(self, source: data.Source | None = None) -> dict[str, Field]:
        """The fields of a batch, of a data set that need not be there."""
        with explained():
            source = self.own[0] if self.own else source
            found = source.fields if source else data.describe(self.name, split=self.split, **self.options)
            return data.handed_out(found, self.dequantize)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run before it begins.

    - config: the whole config as JSON, which the run's folder, its checkpoints and its exports keep, and which nobody else reads.
    - name: of the system; `nets` are the frozen parts that it was built with.
    - accumulate: into how many parts a batch is split; snapshot_every: steps between stored averages, 0 for none.
    - compute, training, faults: the config's sections of these names.
    - loggers: what makes those that the config names, once the run's folder is there.
    - pictures: how many samples the pictures show, `walk` how they are drawn (None: not at all), `given` what is asked for.
    """

    config: dict[str, Any]
    name: str
    seed: int
    system: Any
    nets: Mapping[str, Any]
    data: Data
    optimizer: optimizers.Optimizer
    accumulate: int
    averages: averages.Averages
    snapshot_every: int
    sharding: Sharding
    compute: SimpleNamespace
    training: SimpleNamespace
    faults: SimpleNamespace
    pictures: int
    walk: dict[str, Any] | None
    given: Mapping[str, str]
    loggers: tuple[Opener, ...] = ()

    @property
    def keep(self) -> tuple[int, int, int]:
        """Which checkpoints stay: the last so many, the best so many, and every so many steps."""
        return self.training.keep, self.training.keep_best, self.training.keep_every

    def check_data(self, fields: Mapping[str, Field]) -> None:
        """Raise UserError where what the system reads as it is given has other sizes than the data's fields, and where a part of
        its row refuses these."""
        if hasattr(self.system, "given"):
            with explained():
                self.system.given.known(fields)
        for name, size in (reads(self.system) or {}).items():
            if size is None or name not in self.system.given.names:
                continue
            field = fields.get(name)
            found = field and (field.categories or (field.shape[-1] if field.shape else None))
            if found != size:
                raise UserError(f"the system knows {size} values of {name}, and {self.data.name} has {found or 'none'}")

    def check_batch(self, mesh: Mesh) -> None:
        """Raise UserError where the devices of `mesh` do not divide the batch."""
        rows, devices = self.data.batch_size, batch_devices(mesh)
        if rows // self.accumulate % devices:
            raise UserError(f"data.batch_size {rows} (over optimizer.accumulate {self.accumulate}) must be a multiple of the "
                            f"{devices} devices that share it")  # fmt: skip


def plan(config: Any, *, nets: Mapping[str, Any] = {}, source: Any = None) -> Plan:
    """The plan of a config: a mapping as in experiments/configs, or what `schema.check` made of one.

    nets: {name: part} of what the config's `nets` name, see `runs.nets`. source: a `data.Source`, or arrays by name, in the place
    of the config's data set; or a pair of these for training and the held-out loss.
    Raises UserError, in one sentence and before anything is compiled, for whatever cannot work.

    Example:
        >>> plan({"system": {"name": "ddpm", "channels": 16, "multipliers": (1,), "attention": ()}}).system.steps
        1000
    """
    own = _own(source)
    config = check(config if own is None else _of(complete(config), own))
    sections = {key: SimpleNamespace(**value) for key, value in config.items() if isinstance(value, dict)}
    compute, sample, ema, wanted = config["compute"], dict(config["sample"]), config["ema"], dict(config["data"])
    system = parts.system(config["system"], **compute, nets=nets)
    n, given = sample.pop("n"), sample.pop("given")
    accepted = accepts(systems.module(config["system"]["name"]).build)[0]
    for name in nets:
        if name not in (*accepted, *_named(sample["guidance"])):
            raise unknown("net (nothing in this system or its guidance takes it)", name, {*accepted} - {*config["system"]})
    form = {key: wanted.pop(key) for key in ("size", "channels")}
    optimizer = {key: value for key, value in config["optimizer"].items() if key != "accumulate"}
    averaged = dataclasses.replace(averages.kept(**ema), leave=frozenset(not_averaged(system)))
    return Plan(
        config=config, name=config["system"]["name"], seed=config["seed"], system=system, nets=nets,
        data=Data(**wanted | {"options": form | wanted["options"], "own": own}),
        optimizer=optimizers.made(config["training"]["steps"], **optimizer), accumulate=config["optimizer"]["accumulate"],
        averages=averaged, snapshot_every=ema["snapshot_every"], sharding=Sharding(**config["sharding"]),
        compute=sections["compute"], training=sections["training"], faults=sections["faults"], pictures=n, given=given,
        walk=parts.walk(system, **sample, nets=nets) if hasattr(system, "generate") else None,
        loggers=tuple(map(opener, _several(config["training"]["loggers"]))),
    )  # fmt: skip


def named_nets(config: Mapping[str, Any]) -> dict[str, Any]:
    """{name: path} of the frozen networks that a checked config names."""
    return dict(config["nets"])


def _own(source: Any) -> tuple[data.Source, data.Source | None] | None:
    if source is None:
        return None
    pair = tuple(source) if isinstance(source, list | tuple) else (source, None)
    pair = tuple(data.of_arrays(one) if isinstance(one, Mapping) else one for one in pair)
    if len(pair) != 2 or not isinstance(pair[0], data.Source) or not isinstance(pair[1], data.Source | None):
        raise UserError("source is a data.Source or arrays by name, or a pair of these for training and the held-out loss, got "
                        f"{type(source).__name__}")  # fmt: skip
    return pair


def _of(config: dict[str, Any], own: tuple[data.Source, data.Source | None]) -> dict[str, Any]:
    """The config with the names of sources in the place of its data set."""
    named = {"name": own[0].name, "split": own[0].split, "held_out": None if own[1] is None else own[1].split}
    return config | {"data": config["data"] | named}


def _several(specs: Any) -> list[Any]:
    """Names of parts, of which one may stand alone and None is for none."""
    return specs if isinstance(specs, list) else [] if specs is None else [specs]


def _named(guidance: Any) -> list[str]:
    """The transforms that a config's guidance names, those inside of others as well."""
    specs = [parse("guidance", spec, around=True) for spec in _several(guidance) if isinstance(spec, str)]
    inner = [value for _, arguments, options in specs for value in (*arguments, *options.values()) if isinstance(value, str)]
    return [name for name, *_ in specs] + (_named(inner) if inner else [])
