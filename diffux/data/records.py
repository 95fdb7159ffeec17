"""TFDS data sets without TensorFlow: the embedded ones are prepared on first use, a prepared copy of any other is read.

TFDS is imported inside the functions: it costs a good part of a second, and a folder of images does without.
"""

from __future__ import annotations

import difflib
import functools
import importlib
from pathlib import Path

from diffux.data import cache
from diffux.data.generated import GENERATED
from diffux.data.images import decode
from diffux.data.source import Source
from diffux.errors import DataError

EMBEDDED = {"digits": (None,), "patches": ("16", "32")}
"""The data sets that need no network, and their configs; the first is the default."""
_LEVELS = {"digits": 17}


class Records:
    """Reads one split of a TFDS builder: `read(i)` -> (uint8 (H, W, channels), label or None)."""

    def __init__(self, records, *, channels, size, image_key="image", label_key=None):
        self.records, self.channels, self.size = records, channels, size
        self.image_key, self.label_key = image_key, label_key

    def __len__(self):
        return len(self.records)

    def read(self, index):
        example = self.records[index]
        image = decode(example[self.image_key], channels=self.channels, size=self.size)
        return image, None if self.label_key is None else int(example[self.label_key])


def open_builder(name: str, data_dir=None):
    """The TFDS builder of a prepared copy of `name`; an embedded data set is prepared first.

    Raises:
        DataError: an unknown name or config (with the near matches), a stock data set that is not prepared or not in a
            random-access format (with the command that prepares it), a cache that cannot be written.
    """
    if name.partition("/")[0] in EMBEDDED:
        return _embedded(name, cache.data_root(data_dir))
    return _stock(name, data_dir)


def load(name: str, *, split: str, size=None, channels=None, data_dir=None) -> Source:
    """One split of a TFDS image data set; see `diffux.data.load`."""
    import tensorflow_datasets as tfds

    builder = open_builder(name, data_dir)
    features = builder.info.features
    image_key = _image_key(name, features)
    label_key = _label_key(features)
    skip = {key: tfds.decode.SkipDecoding() for key, f in features.items() if isinstance(f, tfds.features.Image)}
    records = _records(builder, name, split, skip)
    stored = features[image_key].shape
    shape = _shape(stored, size, channels)
    channels = shape[-1]
    reader = Records(records, channels=channels, size=size, image_key=image_key, label_key=label_key)
    if None in shape:
        shape = reader.read(0)[0].shape
    label = None if label_key is None else features[label_key]
    return Source(
        reader,
        name=name,
        split=split,
        shape=shape,
        classes=getattr(label, "num_classes", None),
        class_names=tuple(label.names) if getattr(label, "names", None) else None,
        # resizing and mixing channels make values that were not there before
        levels=_LEVELS.get(builder.name, 256) if shape[:2] == stored[:2] and channels >= stored[-1] else 256,
    )


def describe(name: str, *, size=None, channels=None, data_dir=None) -> tuple[tuple[int, ...], int | None]:
    """The shape of the images of a TFDS data set, prepared or not, and its number of classes."""
    if name.partition("/")[0] in EMBEDDED:
        builder = _embedded_builder(name, cache.data_root(data_dir))
    else:
        builder = _stock_builder(name, data_dir)
    features = builder.info.features
    shape, label_key = _shape(features[_image_key(name, features)].shape, size, channels), _label_key(features)
    if None in shape:
        raise DataError(f"the images of {name} have different sizes: pass size= (say, size=64) to cut and resize them to one.")
    return shape, None if label_key is None else features[label_key].num_classes


def _shape(stored, size, channels):
    """The shape in which images stored as `stored` are read."""
    channels = channels or stored[-1] or 3
    return (*stored[:2], channels) if size is None else (size, size, channels)


def splits(name: str, data_dir=None) -> dict[str, int]:
    """The splits of a data set and their numbers of examples."""
    return {split: info.num_examples for split, info in open_builder(name, data_dir).info.splits.items()}


def _records(builder, name, split, skip):
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
        raise DataError(f"{name} has no split {split!r}; it has {known} (slices such as train[:10%] too).") from error
    except Exception as error:
        raise DataError(
            f"the prepared copy of {name} in {builder.data_dir} cannot be read ({_first_line(error)}):"
            " delete that directory and prepare it again."
        ) from error


# --- embedded


@functools.cache
def _builder_class(base):
    return importlib.import_module(f"diffux.data.{base}.{base}_dataset_builder").Builder


def _embedded_builder(name, root):
    base, _, config = name.partition("/")
    configs = EMBEDDED[base]
    config = config or configs[0]
    if config not in configs:
        fitting = ", ".join(f"{base}/{c}" if c else base for c in configs)
        raise DataError(f"unknown data set {name!r}; {base} comes as {fitting}.")
    return _builder_class(base)(data_dir=root, **({"config": config} if config else {}))


def _embedded(name, root):
    builder = _embedded_builder(name, root)
    target = Path(builder.data_dir)
    if not _complete(builder):

        def make(scratch):
            with cache.quiet():
                aside = _embedded_builder(name, scratch)
                aside.download_and_prepare(file_format="array_record")
            return Path(aside.data_dir)

        cache.install(make, target, root, complete=lambda: _complete(_embedded_builder(name, root)))
        builder = _embedded_builder(name, root)
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


# --- stock


def _stock_builder(name, data_dir):
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, **({} if data_dir is None else {"data_dir": Path(data_dir).expanduser()}))
    except Exception as error:  # TFDS raises many kinds, some with its whole catalogue as the message
        raise DataError(_cannot_make(name, error)) from error


def _stock(name, data_dir):
    builder = _stock_builder(name, data_dir)
    _image_key(name, builder.info.features)
    directory = Path(builder.data_dir)
    arguments = f"'{name}'" if data_dir is None else f"'{name}', data_dir='{data_dir}'"
    command = (
        f'python -c "import tensorflow_datasets as tfds; tfds.builder({arguments})'
        ".download_and_prepare(file_format='array_record')\""
    )
    if not (directory / "dataset_info.json").is_file():
        raise DataError(
            f"{name} is not prepared in {builder.data_dir}: install the extra (pip install diffux[tfds]) and run"
            f" `{command}`, which {_download(builder)}; a copy prepared elsewhere is found with data_dir=."
        )
    formats = {f.value for f in builder.info.available_file_formats()}
    if not formats & {"array_record", "parquet"}:
        raise DataError(
            f"{name} in {builder.data_dir} is stored as {' and '.join(sorted(formats))}, which has no random access:"
            f" delete that directory (or choose another data_dir) and run `{command}`."
        )
    return builder


def _download(builder) -> str:
    infos = getattr(builder, "url_infos", None) or {}
    size = sum(int(info.size or 0) for info in infos.values())
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        return "needs files that you download by hand (TFDS says which)"
    return f"downloads up to {_readable(size)}" if size else "downloads an amount that TFDS does not state"


def _readable(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _cannot_make(name, error) -> str:
    """Why TFDS has no builder of this name: the data set, its config, a missing package, or TFDS's own words."""
    import tensorflow_datasets as tfds

    base, _, config = name.partition("/")
    base = base.partition(":")[0]
    catalogue = tfds.list_builders(with_community_datasets=False)
    if base not in catalogue and ":" not in name:
        return _unknown(name, catalogue)
    cause = error
    while cause is not None:
        if isinstance(cause, ImportError):
            return f"TFDS needs a package to describe {name!r} ({_first_line(cause)}): pip install diffux[tfds]."
        cause = cause.__cause__
    configs = list(tfds.builder_cls(base).builder_configs) if base in catalogue else []
    if config and not configs:
        return f"unknown data set {name!r}; {base} has no configs, ask for {base!r}."
    if config and config not in configs:
        near = difflib.get_close_matches(config, configs, n=4, cutoff=0.4) or configs[:4]
        return f"unknown data set {name!r}; {base} comes as {', '.join(f'{base}/{c}' for c in near)}."
    return f"TFDS cannot make {name!r}: {str(error).strip().splitlines()[-1]}"


def _unknown(name, catalogue) -> str:
    known = {k.replace("_", ""): k for k in [*EMBEDDED, *GENERATED, *catalogue]}
    base = name.partition("/")[0].lower().replace("-", "").replace("_", "")
    near = [known[k] for k in difflib.get_close_matches(base, known, n=3, cutoff=0.6)]
    hint = f"did you mean {' or '.join(near)}?" if near else f"without a download there are {', '.join(names())}."
    return f"unknown data set {name!r}; {hint} Any TFDS image set by its name, or folder:/path/to/images, fits."


def _image_key(name, features):
    import tensorflow_datasets as tfds

    images = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    key = "image" if "image" in images else images[0] if len(images) == 1 else None
    if key is None:
        raise DataError(f"{name} is not an image data set: its features are {', '.join(features)}.")
    return key


def _label_key(features):
    import tensorflow_datasets as tfds

    return "label" if "label" in features and isinstance(features["label"], tfds.features.ClassLabel) else None


def _first_line(error) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def names() -> list[str]:
    """The data sets that need no network, as `load` takes them."""
    embedded = [f"{base}/{config}" if config else base for base, configs in EMBEDDED.items() for config in configs]
    return [*embedded, *GENERATED]
