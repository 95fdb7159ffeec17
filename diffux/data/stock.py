"""Any image set of TFDS, read from a prepared copy without TensorFlow."""

from __future__ import annotations

import difflib
from pathlib import Path

from diffux.data._records import fields_of, first_line, image_key_of, source_of
from diffux.data.source import Source
from diffux.errors import DataError
from diffux.fields import Field
from diffux.files import path_of

FORMS = ()  # every name that is no other file's


def load(rest: str, *, split: str, size=None, channels: int | None = None, data_dir=None) -> Source:
    """One split of the TFDS data set `rest`; see `diffux.data.load`."""
    return source_of(_stock(rest, data_dir), rest, split, size, channels)


def describe(rest: str, *, split: str, size=None, channels: int | None = None, data_dir=None) -> dict[str, Field]:
    """The fields of a TFDS data set, prepared or not."""
    return fields_of(_stock_builder(rest, data_dir), rest, size, channels)


def splits(rest: str, *, data_dir=None) -> dict[str, int]:
    """The splits of a prepared data set and their numbers of examples."""
    return {split: info.num_examples for split, info in _stock(rest, data_dir).info.splits.items()}


def _stock_builder(name, data_dir):
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, **({} if data_dir is None else {"data_dir": path_of(data_dir)}))
    except Exception as error:  # TFDS raises many kinds, some with its whole catalogue as the message
        raise DataError(_cannot_make(name, error)) from error


def _stock(name, data_dir):
    builder = _stock_builder(name, data_dir)
    image_key_of(name, builder.info.features)
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
            return f"TFDS needs a package to describe {name!r} ({first_line(cause)}): pip install diffux[tfds]."
        cause = cause.__cause__
    configs = list(tfds.builder_cls(base).builder_configs) if base in catalogue else []
    if config and not configs:
        return f"unknown data set {name!r}; {base} has no configs, ask for {base!r}."
    if config and config not in configs:
        near = difflib.get_close_matches(config, configs, n=4, cutoff=0.4) or configs[:4]
        return f"unknown data set {name!r}; {base} comes as {', '.join(f'{base}/{c}' for c in near)}."
    return f"TFDS cannot make {name!r}: {str(error).strip().splitlines()[-1]}"


def _unknown(name, catalogue) -> str:
    from diffux.data import names

    bases = dict.fromkeys(known.partition("/")[0] for known in names())
    known = {k.replace("_", ""): k for k in [*bases, *catalogue]}
    base = name.partition("/")[0].lower().replace("-", "").replace("_", "")
    near = [known[k] for k in difflib.get_close_matches(base, known, n=3, cutoff=0.6)]
    hint = f"did you mean {' or '.join(near)}?" if near else f"without a download there are {', '.join(names())}."
    return f"unknown data set {name!r}; {hint} Any TFDS image set, or folder:/path/to/images, fits."
