"""What the backward pass keeps of the forward pass, and what it computes anew."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn

POLICIES = ("none", "blocks", "contractions")


def rematerialised(policy: str | bool, initializing: bool) -> Callable[..., type[nn.Module]]:
    """`lift(module_class, static_argnums=())`, which gives a class whose calls keep for the backward pass what `policy` says.

    - "none" (or False): everything that is needed.
    - "blocks" (or True): what enters the call (Chen et al., 2016).
    - "contractions": that, and the results of convolutions and matrix products; what is computed anew is then pointwise
      work and reductions, which cost an accelerator little beside them.

    XLA for CPU begins the second computation before the first one's memory is needed again: it costs time there and saves none.

    While parameters are made (`initializing`) there is nothing to keep, and the class is left as it is, because lifting
    would hide the parameters from `initialize`.

    Raises:
        ValueError: for another policy.

    Example:
        >>> rematerialised("none", initializing=False)(nn.Dense) is nn.Dense
        True
    """
    policy = {True: "blocks", False: "none"}.get(policy, policy)
    if policy not in POLICIES:
        raise ValueError(f"remat is one of {', '.join(POLICIES)}, got {policy!r}.")
    if policy == "none" or initializing:
        return lambda module, static_argnums=(): module
    keep = _is_contraction if policy == "contractions" else None
    return lambda module, static_argnums=(): nn.remat(module, static_argnums=static_argnums, policy=keep)


def _is_contraction(primitive, *_, **__) -> bool:
    return primitive.name in ("conv_general_dilated", "dot_general")
