"""ADM on ImageNet at 64x64 with the numbers of Dhariwal and Nichol (2021), table 11 and 12, and of their released commands.

  diffux train --config adm_imagenet64 --workdir runs/adm
  diffux train --config adm_imagenet64:classifier --workdir runs/adm_classifier
  diffux evaluate --workdir runs/adm --net classifier=runs/adm_classifier --guidance "classifier(1, moves='mean')" --steps 250

540,000 steps of batch 2048 and 300,000 of batch 1024: made for accelerators, and not trained here. The paper reports a Frechet
inception distance of 2.07 without guidance. Other sizes are this config with --config.system.network=adm_128, adm_256 or adm_512
(and adm_classifier_128, ...), linear betas, data of that size and batches of 256: 2.97 at 128 (scale 0.5), 4.59 at 256 (scale 1)
and 7.72 at 512 (scale 4) with guidance; with adm_u_256 (--config.system.enlarges=4) 3.94 at 256.

Half of the pictures are mirrored, as by the authors' code. Their classifier also saw random crops, of four fifths and more of the
full pictures, which the 64x64 copies do not have.
"""

from ml_collections import ConfigDict


def get_config(part: str = "model"):
    if part not in ("model", "classifier"):
        raise ValueError(f"adm_imagenet64 is adm_imagenet64:model or adm_imagenet64:classifier, got {part}")
    config = ConfigDict()
    config.seed = 0
    if part == "model":
        config.system = ConfigDict({"name": "adm", "network": "adm_64", "betas": "cosine", "steps": 1000, "classes": 1000})
        config.data = ConfigDict({"name": "imagenet_resized/64x64", "batch_size": 2048, "flip": True})
        config.optimizer = ConfigDict({"name": "adam", "learning_rate": 3e-4, "schedule": "constant", "warmup": 0, "clip": None})
        config.sample = ConfigDict({"n": 64, "steps": 250})
    else:
        config.system = ConfigDict(
            {"name": "noisy_classifier", "network": "adm_classifier_64", "schedule": "cosine", "steps": 1000, "classes": 1000}
        )
        config.data = ConfigDict({"name": "imagenet_resized/64x64", "batch_size": 1024, "flip": True})
        config.optimizer = ConfigDict({"name": "adamw", "learning_rate": 3e-4, "schedule": "linear", "warmup": 0, "clip": None})
        config.optimizer.options = {"weight_decay": 0.05}
    config.ema = ConfigDict({"decay": 0.9999, "warmup": False})
    steps = 540_000 if part == "model" else 300_000
    config.training = ConfigDict({"steps": steps, "log_every": 100, "checkpoint_every": 10_000})
    return config
