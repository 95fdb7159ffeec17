"""Fields: what one entry of a batch is, a file a kind; nobody else has to know whether it is an image or a text."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

import numpy as np

from diffux.errors import DataError, unknown
from diffux.fields.bits import Bits
from diffux.fields.embedding import Embedding
from diffux.fields.field import Field
from diffux.fields.image import Image
from diffux.fields.label import Label
from diffux.fields.mask import Mask
from diffux.fields.point import Point
from diffux.fields.text import Text
from diffux.fields.tokens import Tokens
from diffux.fields.video import Video


def kinds() -> list[str]:
    """The kinds of fields: the files of this folder but two."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in ("field", "drawing"))


def from_json(said: Mapping[str, Any]) -> Field:
    """The field that `Field.as_json` wrote; DataError for anything else.

    Example:
        >>> from_json(Label(3, ("cat", "dog", "bird")).as_json()).words([2])
        ['bird']
    """
    said = dict(said)
    kind = said.pop("kind", None)
    if kind not in kinds():
        raise DataError(str(unknown("kind of field", kind, kinds())))
    made = getattr(importlib.import_module(f"diffux.fields.{kind}"), kind.capitalize())
    try:
        field = made(**{key: tuple(value) if isinstance(value, list) else value for key, value in said.items()})
        sound = np.dtype(field.dtype) and all(isinstance(side, int) and side > 0 for side in field.shape)
    except TypeError as error:
        raise DataError(f"a field of the kind {kind} cannot be made of {said}") from error
    if not sound:
        raise DataError(f"a field of the kind {kind} has no shape {field.shape}")
    return field


def read(said: Mapping[str, Any]) -> dict[str, Field]:
    """The fields of a data.json, {"fields": {name: JSON}} or as earlier versions wrote it: one field and a number of classes.

    Raises DataError, KeyError or TypeError for anything else.
    """
    if "fields" in said:
        if not isinstance(said["fields"], Mapping):
            raise TypeError(f"the fields are {said['fields']!r}")
        return {name: from_json(field) for name, field in said["fields"].items()}
    kind, shape, classes = said.get("field", "image"), tuple(said["shape"]), said["classes"]
    if not isinstance(classes, int | None) or not all(isinstance(side, int) and side > 0 for side in shape):
        raise TypeError(f"the shape is {shape} and the classes are {classes!r}")
    name = "bits" if kind == "sequence" else kind
    known = {"shape": shape, "dtype": said.get("dtype", "float32"), "levels": said.get("levels")}
    known = {key: list(value) if key == "shape" else value for key, value in known.items() if value is not None}
    if name == "point":
        known.pop("levels", None)
    return {name: from_json({"kind": name, **known})} | ({} if classes is None else {"label": Label(classes)})


__all__ = [
    "Bits", "Embedding", "Field", "Image", "Label", "Mask", "Point", "Text", "Tokens", "Video", "from_json", "kinds", "read",
]  # fmt: skip
