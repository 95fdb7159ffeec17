"""Scenes of coloured shapes with captions that need no network: drawn from a seed."""

from __future__ import annotations

import dataclasses

import tensorflow_datasets as tfds

from diffux.data.captioned_shapes import scenes
from diffux.data.images import encode


@dataclasses.dataclass
class Config(tfds.core.BuilderConfig):
    """`size` is the side of the pictures in pixels, `examples` the number of training scenes, of at most so many `objects`."""

    size: int = 32
    examples: int = 20_000
    objects: int = 3
    seed: int = 0

    def count(self, split: str) -> int:
        """The number of scenes of a split."""
        return self.examples if split == "train" else max(self.examples // 10, 1)


class Builder(tfds.core.GeneratorBasedBuilder):
    """Scenes with a caption, a mask and labels, in the order of their numbers: more examples begin with those of fewer."""

    VERSION = tfds.core.Version("1.0.0")

    def _create_builder_config(self, builder_config, version):
        return builder_config  # TFDS warns of one that is not on a list, and these are any number

    def _info(self):
        size = self.builder_config.size
        return tfds.core.DatasetInfo(
            builder=self,
            description="Pictures of one to three coloured shapes, with captions, masks and labels.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(size, size, 3)),
                    "caption": tfds.features.Text(),
                    "mask": tfds.features.LabeledImage(labels=4, shape=(size, size, 1)),
                    **{name: tfds.features.ClassLabel(names=list(names)) for name, names in scenes.CLASSES.items()},
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in scenes.SPLITS}

    def _generate_examples(self, split):
        how = self.builder_config
        for i in range(how.count(split)):
            scene = scenes.scene(split, i, how.seed, how.objects)
            image, mask = scenes.draw(scene, how.size)
            about = {"caption": scenes.caption(scene, split, i, how.seed), **scenes.labels(scene)}
            yield i, {"image": encode(image), "mask": encode(mask[..., None]), **about}
