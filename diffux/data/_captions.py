"""Captions: what is written of pictures, one of them for each, as the numbers of its words."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from diffux.errors import DataError, one_sentence
from diffux.fields import Field, Text, text
from diffux.files import path_of

NAMES = ("caption", "text", "prompt")
"""What a column of captions is called where nobody says it."""
_TOKENS = 77  # of texts by a tokenizer that is given, unless more are asked for


def lines(value: Any) -> tuple[str, ...]:
    """The captions in a text, one a line, or in a list of texts; empty ones are none, and neither is what is no text.

    Example:
        >>> lines("a cat\\n\\n  a tabby \\n"), lines(["a cat", ""]), lines(None)
        (('a cat', 'a tabby'), ('a cat',), ())
    """
    several = value if isinstance(value, list | tuple) else [value]
    stripped = (line.strip() for one in several if isinstance(one, str) for line in one.splitlines())
    return tuple(line for line in stripped if line)


def read(path: Any) -> tuple[str, ...]:
    """The captions in a file of text, or in what has `read_bytes` like one; DataError where it cannot be read."""
    try:
        return lines(decoded(path.read_bytes(), path))
    except OSError as error:
        raise DataError(f"{path} cannot be read as a caption ({one_sentence(error)})") from error


def decoded(content: bytes, where: Any) -> str:
    """The text of a file in UTF-8; DataError, naming `where` it is, for any other."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not in UTF-8 (byte {error.start}, {content[error.start]:#04x}): save it as that") from error


def chosen(captions: Sequence[str], name: str) -> str:
    """One of several captions, by a hash of what the picture is called: the same one always, whatever else the data set holds.

    Example:
        >>> chosen(["a cat"], "1.png"), len({chosen(["a cat", "a tabby"], f"{number}.png") for number in range(20)})
        ('a cat', 2)
    """
    return captions[zlib.crc32(os.fsencode(name)) % len(captions)]


def field(captions: Iterable[str], *, length: int | None = None, vocabulary: int | None = None, tokenizer: str | None = None,
          like: Mapping[str, Field] | None = None) -> Text:  # fmt: skip
    """The field of captions: that of the split that these go with, a tokenizer's, or one of the captions' own words.

    - length: tokens of a text; by default those of the longest, and 77 of a tokenizer that is given.
    - vocabulary: its size, see `fields.text.of_words`.
    - tokenizer: a tokenizer.json, or a folder as transformers writes it.

    Raises DataError for lengths and sizes below one, and for a tokenizer that cannot be read.
    """
    for name, value in (("length", length), ("vocabulary", vocabulary)):
        if value is not None and value < 1:
            raise DataError(f"{name} of captions is a whole number >= 1, got {value}.")
    known = (like or {}).get("caption")
    if isinstance(known, Text):
        return known
    if tokenizer is not None:
        path = path_of(tokenizer)
        return (text.of_folder if path.is_dir() else text.of_file)(path, length or _TOKENS)
    return text.of_words(captions, length, vocabulary, marks=True)


def described(length: int | None, vocabulary: int | None, tokenizer: str | None) -> dict[str, Field]:
    """The field of captions that are not there, where its shape and size are known without them."""
    known = tokenizer is not None or (length is not None and vocabulary is not None)
    return {"caption": field([], length=length, vocabulary=vocabulary, tokenizer=tokenizer)} if known else {}
