"""What each key of a config and each flag of a command may be, written down a second time and apart from the library.

A value that the library takes and that breaks its rule here is nonsense that went through. What hangs on other values, such as a
number of steps that a grid has room for, is no matter of these rules: it shows in what a run does. Not a script: `mutations.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

_INT32 = 2**31 - 1
Rule = Callable[[Any], bool]


def whole(least: int, most: int = _INT32) -> Rule:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def number(least: float = -3.4e38, most: float = 3.4e38, open_below: bool = False, open_above: bool = False) -> Rule:
    def fits(value):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return False
        return (least < value if open_below else least <= value) and (value < most if open_above else value <= most)

    return fits


def text(value: Any) -> bool:
    return isinstance(value, str)


def boolean(value: Any) -> bool:
    return isinstance(value, bool)


def section(value: Any) -> bool:
    return isinstance(value, dict)


def words(*known: str) -> Rule:
    return lambda value: isinstance(value, str) and value in known


def optional(rule: Rule) -> Rule:
    return lambda value: value is None or rule(value)


def either(*rules: Rule) -> Rule:
    return lambda value: any(rule(value) for rule in rules)


def several(rule: Rule, least: int = 0, most: int = 10**9) -> Rule:
    return lambda value: isinstance(value, list | tuple) and least <= len(value) <= most and all(map(rule, value))


def parted(value: Any) -> bool:
    """Pairs of a pattern and what goes for it."""
    pairs = isinstance(value, list | tuple) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in value)
    return pairs and all(text(pair[0]) for pair in value)


_ABOVE_0 = number(0, open_below=True)
_SHARE = number(0, 1, open_above=True)
_INSIDE = number(0, 1, open_below=True, open_above=True)
_PART = either(text, section)  # a part by its name, or by its name and arguments

_BY_RULE: list[tuple[Rule, str]] = [
    (section, "system nets data.options optimizer.options sample.options sample.given"),
    (whole(0, 2**32 - 1), "seed --seed"),
    (text, "data.name data.split optimizer.name"),
    (optional(either(text, _INSIDE)), "data.held_out"),
    (optional(either(whole(1), several(whole(1), 2, 2))), "data.size"),
    (optional(either(whole(1, 1), whole(3, 3))), "data.channels"),
    (boolean, "data.flip data.dequantize ema.warmup system.clip system.learned system.denoise system.likelihood_weighting "
              "system.importance system.normalize system.root system.inpaints"),
    (optional(whole(0)), "data.crop"),
    (whole(0, 1024), "data.workers"),
    (whole(1), "data.batch_size optimizer.accumulate training.steps training.log_every training.eval_examples training.keep "
               "training.checkpoint_every sample.n system.channels system.blocks system.levels system.inner system.length "
               "system.side system.anneal "
               "system.width system.layers system.latent system.codes system.tokens system.text_layers system.text_heads "
               "system.base system.units system.basis system.scales system.dense_out system.draws "
               "system.encoder_channels system.encoder_blocks --n --batch --frames --probes --draws --processes"),
    (whole(0), "optimizer.warmup ema.snapshot_every training.sample_every training.eval_every training.keep_best "
               "training.keep_every sharding.smallest faults.most_skips --dequantizer-steps --process"),
    (number(0, 1e6), "optimizer.learning_rate"),
    (words("constant", "cosine", "linear", "halved"), "optimizer.schedule"),
    (optional(_ABOVE_0), "system.temperature optimizer.clip faults.largest_loss faults.largest_gradient system.snr"),
    (parted, "optimizer.groups sharding.rules"),
    (either(_SHARE, several(_SHARE)), "ema.decay"),
    (either(number(0, 0.29, open_below=True), several(number(0, 0.29, open_below=True))), "ema.power"),
    (optional(either(text, number())), "ema.samples_from"),
    (optional(text), "training.start sample.solver sample.grid"),
    (optional(whole(1, 1_000_000)), "sample.steps system.steps system.discrete system.classes system.enlarges "
     "system.head_channels --steps"),
    (number(0, 10), "sample.eta --eta"),
    (optional(either(text, number(), several(either(text, number())))), "sample.guidance"),
    (words("float32", "bfloat16"), "compute.dtype sharding.gradients"),
    (words("none", "blocks", "contractions"), "compute.remat system.remat"),
    (either(whole(1), whole(-1, -1)), "sharding.data sharding.fsdp sharding.tensor"),
    (words("with_parameters", "sharded"), "sharding.optimizer"),
    (words("stop", "skip"), "faults.action"),
    (_PART, "system.betas system.parameterization system.weighting system.codec system.solver system.threshold system.normalizer"),
    (optional(_PART), "system.grid"),
    (either(whole(1), several(whole(1), 1)), "system.heads system.depth"),  # of some networks one for each level
    (optional(whole(1)), "system.groups system.text_width system.tile"),
    (several(words("plain", "self", "cross")), "system.kinds"),
    (words("plain", "self", "cross"), "system.middle"),
    (words("joined", "cross"), "system.looks"),
    (words("kl", "vq", "vq_moving"), "system.regular"),
    (_SHARE, "system.decay system.restart"),
    (optional(words("random")), "system.distance"),
    (optional(whole(0)), "system.start"),
    (words("clean", "first"), "system.last"),
    (either(whole(0), several(whole(0), 1)), "system.empty"),
    (whole(0), "system.padding"),
    (optional(either(number(), several(number(), 1))), "system.shift"),
    (optional(either(_ABOVE_0, several(_ABOVE_0, 1))), "system.scale"),
    (boolean, "system.legacy system.drawn system.kept"),
    (number(0), "system.kl system.perceptual_weight system.adversarial_weight system.beta"),
    (optional(either(_PART, several(_PART))), "training.loggers system.transforms"),
    (either(_PART, _ABOVE_0), "system.variance"),
    (_SHARE, "system.dropout system.label_dropout system.text_dropout system.embedding_dropout system.text_share"),
    (several(number(0, open_below=True), 1), "system.multipliers"),  # of some networks fractions
    # without layers of its own each of these networks is still one: a linear map, the undilated stages, the other branch
    (several(whole(1)), "system.attention system.dense system.upper system.dilations system.widths system.convolutions"),
    (optional(whole(1)), "system.best"),
    (whole(1), "system.components"),
    (whole(2), "system.buckets"),
    (number(0, 100, open_above=True), "system.percentile"),
    (number(0, 1, open_below=True), "system.coldest"),
    (_ABOVE_0, "system.sigma_min system.sigma_max system.sigma_data system.std system.rho "
               "system.step system.beta_min system.beta_max"),
    # runs, which no value of a config is
    (optional(words()), "system.encoder system.first_stage system.text system.perceptual system.low system.contrastive "
     "system.dvae"),
    (_INSIDE, "system.first system.smallest --start"),
    (optional(_INSIDE), "system.end"),
    (words("linear", "cosine", "geometric"), "system.schedule"),
    (words("hybrid", "bound"), "system.loss"),
    (words("features", "contrastive"), "system.match"),
    (words("absolute", "squared"), "system.norm"),
    (words("small", "large"), "system.noised"),
    (words("wanted", "all"), "system.over"),
    (optional(_PART), "system.problem"),
    (optional(_PART), "system.operator"),
    (text, "system.condition"),
    (whole(1), "system.colours system.factor system.patch"),
    (optional(whole(1)), "system.falls"),
    (number(0), "system.sigma_max_given"),
    (words("cubic", "linear", "area"), "system.kernel"),
    (optional(number(0, 1)), "system.most"),
    (number(0, 1), "system.level system.blur"),
    (words("scaled", "index"), "system.told"),
    (number(0), "system.share system.offset"),
    (number(0, 1), "system.towards_upper system.augment system.mirrored"),
    (words("linspace", "leading", "trailing"), "system.spacing"),
    (several(number(0)), "system.churn"),
    (number(), "system.log_snr_min system.log_snr_max system.mean"),
    (words("vp", "sub_vp", "ve"), "system.sde"),
    (words("gaussian", "binomial"), "system.kind"),
    (optional(text), "system.network system.data system.name"),
    (number(), "--classifier-scale --lora-scale"),
    (number(0, 1, open_below=True), "--tolerance"),
    (whole(0, 10_000), "--profile"),
    (_ABOVE_0, "--start-timeout"),
    (words("float32", "bfloat16", "float16"), "--dtype"),
    (words("exact", "rademacher", "gaussian"), "--trace"),
]  # fmt: skip

RULES: dict[str, Rule] = {name: rule for rule, names in _BY_RULE for name in names.split()}


def of(name: str) -> Rule:
    """The rule of a key, such as "data.batch_size" or "system.steps", or of a flag; a flag without one is a word of any kind."""
    return RULES[name] if not name.startswith("--") else RULES.get(name, lambda value: isinstance(value, str | bool))
