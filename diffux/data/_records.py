"""What TFDS has prepared, read without TensorFlow, and the embedded sets prepared on first use.

TFDS is imported inside the functions: it costs a good part of a second, and a folder of images does without.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffux.data import cache
from diffux.data.images import decode, sides
from diffux.data.source import Source
from diffux.errors import DataError, NoSplit
from diffux.fields import Field, Image, Label


class Records:
    """Reads one split of a TFDS builder: `read(i)` -> {"image": uint8 (H, W, channels), "label": int}."""

    def __init__(self, records, *, channels, size, image_key="image", label_key=None):
        self.records, self.channels, self.size = records, channels, size
        self.image_key, self.label_key = image_key, label_key

    def __len__(self):
        return len(self.records)

    def read(self, index):
        example = self.records[index]
        image = decode(example[self.image_key], channels=self.channels, size=self.size)
        return {"image": image} | ({} if self.label_key is None else {"label": int(example[self.label_key])})


def source_of(builder: Any, name: str, split: str, size=None, channels=None, levels: int = 256, **about: Any) -> Source:
    """A split of a prepared builder; `levels` is the number of values of its pixels, and `about` goes to `Source`."""
    features = builder.info.features
    image_key, label_key = image_key_of(name, features), _label_key(features)
    records = records_of(builder, name, split)
    stored = features[image_key].shape
    shape = _shape(stored, size, channels)
    reader = Records(records, channels=shape[-1], size=size, image_key=image_key, label_key=label_key)
    if None in shape:
        shape = reader.read(0)["image"].shape
    return Source(reader, name=name, split=split, fields=_fields(shape, stored, features, levels), **about)


def fields_of(builder: Any, name: str, size=None, channels=None, levels: int = 256) -> dict[str, Field]:
    """The fields of a builder, prepared or not."""
    features = builder.info.features
    stored = features[image_key_of(name, features)].shape
    shape = _shape(stored, size, channels)
    if None in shape:
        raise DataError(f"the images of {name} have different sizes: pass size= (say, size=64) to cut and resize them to one.")
    return _fields(shape, stored, features, levels)


def _fields(shape, stored, features, levels: int) -> dict[str, Field]:
    # resizing and mixing channels make values that were not there before
    as_stored = shape[:2] == stored[:2] and shape[-1] >= (stored[-1] or 1)
    found: dict[str, Field] = {"image": Image(tuple(shape), levels if as_stored else 256)}
    key = _label_key(features)
    if key is not None:
        label = features[key]
        plain = all(name == str(i) for i, name in enumerate(label.names or ()))
        found["label"] = Label(label.num_classes, None if plain else tuple(label.names))
    return found


def _shape(stored, size, channels):
    """The shape in which images stored as `stored` are read."""
    channels = channels or stored[-1] or 3
    return (*stored[:2], channels) if size is None else (*sides(size), channels)


def records_of(builder: Any, name: str, split: str) -> Any:
    """The examples of a split by index, as TFDS stores them: images are the bytes of their files."""
    import tensorflow_datasets as tfds

    images = (key for key, feature in builder.info.features.items() if isinstance(feature, tfds.features.Image))
    skip = {key: tfds.decode.SkipDecoding() for key in images}
    try:
        records = builder.as_data_source(split, decoders=skip)
        if not len(records):
            raise DataError(f"the split {split!r} of {name} is empty.")
        records[len(records) - 1]  # a truncated file shows here
        return records
    except DataError:
        raise
    except ValueError as error:
        known = ", ".join(builder.info.splits)
        raise NoSplit(f"{name} has no split {split!r}; it has {known} (slices such as train[:10%] too).") from error
    except Exception as error:
        raise DataError(
            f"the prepared copy of {name} in {builder.data_dir} cannot be read ({first_line(error)}):"
            " delete that directory and prepare it again."
        ) from error


def prepared(make_builder: Any, root: Path) -> Any:
    """The builder that make_builder(directory) gives, prepared in the cache `root` on first use.

    Raises DataError where the cache cannot be written.
    """
    builder = make_builder(root)
    if not _complete(builder):

        def make(scratch):
            with cache.quiet():
                aside = make_builder(scratch)
                aside.download_and_prepare(file_format="array_record")
            return Path(aside.data_dir)

        cache.install(make, Path(builder.data_dir), root, complete=lambda: _complete(make_builder(root)))
        builder = make_builder(root)
    return builder


def _complete(builder) -> bool:
    """Whether a prepared directory has its description and every record file, and the last record of each reads."""
    import tensorflow_datasets as tfds

    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    directory = Path(builder.data_dir)
    if not (directory / "dataset_info.json").is_file() or not (directory / "features.json").is_file():
        return False
    try:
        for split, info in builder.info.splits.items():
            if any(Path(file).stat().st_size == 0 for file in info.filepaths):
                return False
            records = builder.as_data_source(split, deserialize_method=raw)
            if len(records) != info.num_examples:
                return False
            records[len(records) - 1]
    except Exception:  # whatever a damaged file makes the readers raise
        return False
    return bool(builder.info.splits)


def image_key_of(name, features):
    import tensorflow_datasets as tfds

    images = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    key = "image" if "image" in images else images[0] if len(images) == 1 else None
    if key is None:
        raise DataError(f"{name} is not an image data set: its features are {', '.join(features)}.")
    return key


def _label_key(features):
    import tensorflow_datasets as tfds

    return "label" if "label" in features and isinstance(features["label"], tfds.features.ClassLabel) else None


def first_line(error) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
