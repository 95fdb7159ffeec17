"""NCSNv2 on CelebA at 64x64 with the numbers of Song and Ermon (2020), appendix B, and of their code.

  python experiments/train.py --config experiments/configs/ncsnv2_celeba.py --workdir runs/ncsnv2_celeba

210,000 steps of batch 128, 29.7 million parameters, sampled with 500 levels of 5 Langevin steps: made for an accelerator, and not
trained here. CelebA must have been prepared once; the error says how where it was not. The paper reports a Frechet
inception distance of 10.23, on faces cut out around their centre.

Our loss is the mean over dimensions of what the papers sum and halve: Adam's eps of 1e-8 becomes 1e-8 * 2 / 12288.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict(
        {
            "name": "ncsnv2",
            "levels": 500,
            "sigma_min": 0.01,
            "sigma_max": 90.0,
            "step": 0.033,
            "inner": 5,
            "channels": 128,
            "multipliers": (1, 2, 2, 2),
            "dilations": (2, 4),
        }
    )
    config.data = ConfigDict({"name": "celeb_a", "batch_size": 128, "size": 64, "flip": True})
    config.optimizer = ConfigDict(
        {
            "name": "adam",
            "learning_rate": 1e-4,
            "schedule": "constant",
            "warmup": 0,
            "clip": None,
            "options": {"b1": 0.9, "b2": 0.999, "eps": 1.6e-12},
        }
    )
    config.ema = ConfigDict({"decay": 0.999, "warmup": False})
    config.training = ConfigDict(
        {
            "steps": 210_000,
            "log_every": 100,
            "sample_every": 5000,
            "eval_every": 5000,
            "eval_examples": 2048,
            "checkpoint_every": 5000,
        }
    )
    # None: the system's own solver over all of its levels
    config.sample = ConfigDict({"n": 64, "solver": None, "steps": None})
    return config
