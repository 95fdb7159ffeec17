"""Sohl-Dickstein et al. (2015) on binary heartbeats: the binomial chain of 2000 steps, three layers of 50 units.

  diffux train --config diffusion2015_heartbeats --workdir runs/heartbeats

About four minutes on two CPU cores, most of them spent on two million weights, as every step has a readout of its own.
The bound is K = -2.43 bits a sequence (paper: -2.414; no model exceeds log2(1/5) = -2.322), and all of 2000 samples are
heartbeats. `readout="shared"` in the place of a readout a step reaches -2.34 in a minute.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict(
        {
            "name": "diffusion2015",
            "data": "bits",
            "kind": "binomial",
            "codec": "bits",
            "steps": 2000,
            "network": "mlp",
            "widths": (50, 50, 50),
        }
    )
    config.data = ConfigDict({"name": "heartbeats", "batch_size": 512})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 5e-3, "schedule": "cosine", "warmup": 100, "clip": 1.0})
    config.ema = ConfigDict({"decay": 0.998})
    config.training = ConfigDict(
        {
            "steps": 8000,
            "log_every": 500,
            "sample_every": 4000,
            "eval_every": 1000,
            "eval_examples": 2000,
            "checkpoint_every": 4000,
        }
    )
    config.sample = ConfigDict({"n": 64, "solver": None, "steps": None})
    return config
