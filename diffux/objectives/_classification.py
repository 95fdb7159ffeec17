"""Classification: the cross-entropy of a classifier's logits at random noise levels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffux.processes import Process
from diffux.types import as_part


@struct.dataclass
class Classification:
    """-log p(label | x_t) at random t."""

    process: Any
    times: Any

    def init(self):
        return ()

    def apply(self, key, denoise, x, cond, state):
        if "label" not in cond:
            raise ValueError(f'classification needs cond["label"], got {sorted(cond) or "no condition"}; a condition that fits: '
                             "conditions.labelled(0.0)")  # fmt: skip
        key_t, key_x = jax.random.split(key)
        level = self.process.schedule(self.times(key_t, x.shape[0]).astype(x.dtype))
        logits = denoise(self.process.marginal(x, level).sample(key_x), level, cond).x0
        scores = jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
        loss = -jnp.take_along_axis(scores, cond["label"][:, None], 1)[:, 0]
        return loss, {"accuracy": jnp.mean(jnp.argmax(logits, -1) == cond["label"])}, state


def classification(process: Process, times: Callable) -> Classification:
    """E_t -log p(label | x_t), in nats, for a "denoiser" whose estimate is logits (B, classes) (Dhariwal and Nichol, 2021,
    sec. 4; Song et al., 2021, app. I.1). Its metric is the batch's accuracy, over all noise levels.

    `parameterizations.direct` makes such a denoiser of a network. The labels (B,) are cond["label"].

    Example:
        >>> from diffux import Prediction, processes, schedules, times
        >>> objective = classification(processes.Gaussian(schedules.linear()), times.uniform())
        >>> sure = lambda x, level, cond: Prediction(jnp.asarray([[0.0, 50.0]]))
        >>> loss, metrics, _ = objective.apply(jax.random.key(0), sure, jnp.zeros((1, 3)), {"label": jnp.asarray([1])}, ())
        >>> abs(loss.item()), metrics["accuracy"].item()
        (0.0, 1.0)
    """
    return Classification(process, as_part(times))
