"""Classification: the cross-entropy of a classifier's logits at random noise levels."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from diffux import times as training_times
from diffux.objectives.objective import mean_over_dims, noised
from diffux.processes import Process
from diffux.types import as_part


@struct.dataclass
class Classification:
    """-log p(label | x_t) at random t."""

    process: Process
    times: Any
    reads: ClassVar = {"label": None}

    def init(self):
        return training_times.init(self.times)

    def apply(self, key, denoise, x, cond, state):
        if "label" not in cond:
            raise ValueError(f'classification needs cond["label"], got {sorted(cond) or "no condition"}; a system that gives it '
                             'has given("label")')  # fmt: skip
        xt, level, t, share = noised(self.process, self.times, key, x, state)
        logits, label = denoise(xt, level, cond).x0, cond["label"]
        labelled = label >= 0
        scores = jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
        each = -jnp.take_along_axis(scores, jnp.where(labelled, label, 0)[..., None], -1)[..., 0]
        loss = mean_over_dims(each, labelled)
        right = jnp.sum((jnp.argmax(logits, -1) == label) & labelled) / jnp.maximum(jnp.sum(labelled), 1)
        return share * loss, {"accuracy": right}, training_times.learned(self.times, state, t, loss)


def classification(process: Process, times: Any) -> Classification:
    """E_t -log p(label | x_t), in nats, for a "denoiser" whose estimate is logits (B, classes) (Dhariwal and Nichol, 2021,
    sec. 4; Song et al., 2021, app. I.1). Its metric is the batch's accuracy, over all noise levels.

    `parameterizations.direct` makes such a denoiser of a network. The labels are cond["label"], (B,) or one a position (B, *p)
    with logits (B, *p, classes); a negative one is not known and does not count.

    Example:
        >>> from diffux import Prediction, processes, schedules, times
        >>> objective = classification(processes.Gaussian(schedules.linear()), times.uniform())
        >>> sure = lambda x, level, cond: Prediction(jnp.asarray([[0.0, 50.0]]))
        >>> loss, metrics, _ = objective.apply(jax.random.key(0), sure, jnp.zeros((1, 3)), {"label": jnp.asarray([1])}, ())
        >>> abs(loss.item()), metrics["accuracy"].item()
        (0.0, 1.0)
    """
    return Classification(process, as_part(times))
