"""What blocks and attentions are called in all networks of diffusers, today and in older files."""

from __future__ import annotations

import re

from diffux.pretrained._table import CONV, DENSE, NORM

RESIDUAL = (
    ("norm_0", "norm1", NORM),
    ("conv_0", "conv1", CONV),
    ("embedding", "time_emb_proj", DENSE),
    ("norm_1", "norm2", NORM),
    ("conv_1", "conv2", CONV),
    ("shortcut", "conv_shortcut", CONV),
)
PROJECTIONS = (("query", "to_q", DENSE), ("key", "to_k", DENSE), ("value", "to_v", DENSE), ("out", "to_out.0", DENSE))
ATTENTION = (("norm", "group_norm", NORM), *PROJECTIONS)

OLDER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def modern(name: str) -> str:
    """The name that a tensor has today: the parts of attentions were called otherwise in older files."""
    return re.sub(rf"(attentions\.\d+)\.({'|'.join(OLDER)})\.", lambda found: f"{found[1]}.{OLDER[found[2]]}.", name)
