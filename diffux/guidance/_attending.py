"""What a network's attentions look at, read or edited from outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from flax import struct

from diffux.networks.attention import Looking, attention_weights
from diffux.types import Cond, Denoiser, Prediction, as_part


@struct.dataclass
class Attending:
    """Every attention's `look` goes through `edit`."""

    edit: Callable
    keeps: bool = struct.field(pytree_node=False, default=False)

    def __call__(self, denoise: Denoiser) -> Denoiser:
        def attended(x, level, cond):
            outside = jax.extend.core.get_opaque_trace_state()

            def intercept(look, args, options, context):
                if context.method_name != "look" or not isinstance(context.module, Looking):
                    return look(*args, **options)
                if self.keeps and jax.extend.core.get_opaque_trace_state() != outside:
                    raise ValueError("attention cannot be read out of a network that computes it anew in the backward pass: "
                                     "take remat='none' (compute.remat of the config)")  # fmt: skip
                return self.edit("/".join(context.module.path), look, *args, **options)

            with nn.intercept_methods(intercept):
                return denoise(x, level, cond)

        return attended


def attending(edit: Callable) -> Attending:
    """A transform that puts `edit` in the place of what every attention of the network does.

    edit(name, look, query, key, value, mask, bias) -> (B, T, heads, width): `name` is the attention's path in the network,
    "down_1_0_attention"; `look(query, key, value, mask, bias)` is what it would have done; shapes as in
    `networks.attention.attend`. Prompt-to-prompt is such an edit (Hertz et al., 2022, sec. 3.1). Works within rematerialised
    networks, under gradients and in every solver.

    Example:
        >>> attending(lambda name, look, *inputs: 0 * look(*inputs)).keeps
        False
    """
    return Attending(as_part(edit))


def attention_maps(denoise: Denoiser, x, level, cond: Cond = {}) -> tuple[Prediction, dict[str, Any]]:  # noqa: B006
    """(the prediction, {name of an attention: its weights (B, heads, T, S)}) of one evaluation.

    It can be differentiated. Raises ValueError for a network that rematerialises its attentions.
    """
    maps = {}

    def keep(name, look, query, key, value, mask=None, bias=None):
        maps[name] = attention_weights(query, key, mask, bias)
        return look(query, key, value, mask, bias)

    return Attending(keep, keeps=True)(denoise)(x, level, cond), maps
