"""Texts: strings that a tokenizer turns into token numbers on the host."""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from diffux.errors import DataError, one_sentence
from diffux.fields import drawing
from diffux.fields.field import Field, whole_numbers
from diffux.fields.tokens import read_text, save_words
from diffux.files import path_of


@dataclasses.dataclass(frozen=True)
class Text(Field):
    """A string as `length` token numbers (length,), cut or filled up with `padding`.

    tokenizer: the JSON of a tokenizer of the package `tokenizers`, so that a run knows its vocabulary wherever it is read.
    blank: what is asked for where nothing is said, if anything.
    """

    length: int
    tokenizer: str = dataclasses.field(repr=False)
    padding: int = 0
    blank: str | None = None
    dtype: str = "int32"
    things: ClassVar[str] = "texts"
    array: ClassVar[str] = "texts"
    suffixes: ClassVar[tuple[str, ...]] = (".png", ".npz", ".txt")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.length,)

    @property
    def size(self) -> int:
        """The number of tokens of the vocabulary."""
        return _tokenizer(self.tokenizer).get_vocab_size()

    def signs(self) -> dict[str, str]:
        """The words that begin, end and fill up a text, as transformers calls them; a tokenizer may have none that begin or end."""
        found, empty = _tokenizer(self.tokenizer), _tokenizer(self.tokenizer).encode("").ids
        numbers = {"pad_token": self.padding} | ({"bos_token": empty[0], "eos_token": empty[-1]} if len(empty) > 1 else {})
        return {name: found.id_to_token(number) for name, number in numbers.items()}

    def encode(self, strings: Sequence[str]) -> np.ndarray:
        """Token numbers (n, length) of strings."""
        out = np.full((len(strings), self.length), self.padding, np.int32)
        for row, found in zip(out, _tokenizer(self.tokenizer).encode_batch(list(strings)), strict=True):
            ids = found.ids[: self.length]
            row[: len(ids)] = ids
        return out

    @property
    def categories(self):
        return self.size

    def turn(self, n):
        return None if self.blank is None else np.repeat(self.encode([self.blank]), n, 0)

    def check(self, values):
        return whole_numbers(super().check(values), self.size, "the tokens of a text")

    def read(self, word):
        """The string itself, or the lines of a .txt file."""
        strings = [word]
        if word.endswith(".txt"):
            strings = [line for line in read_text(word).splitlines() if line.strip()]
            if not strings:
                raise DataError(f"{word} holds no line of text")
        return self.encode(strings)

    def words(self, values):
        rows = [[i for i in row if i != self.padding] for row in np.asarray(values).tolist()]
        return _tokenizer(self.tokenizer).decode_batch(rows)

    def sheet(self, values, captions=None, real=None):
        return drawing.page(self.words(values))

    single: ClassVar[str] = ".txt"

    def save_one(self, path, value, **about):
        save_words(self, path, np.asarray(value)[None])

    def load_one(self, path):
        return self.encode([read_text(path).strip("\n")])[0]

    def save(self, path, values, captions=None, **about):
        return save_words(self, path, values) if path.suffix.lower() == ".txt" else super().save(path, values, captions, **about)


def of_words(strings: Iterable[str], length: int | None, size: int | None = None, marks: bool = False) -> Text:
    """A text of lower-case words, with the vocabulary of `strings`; token 0 fills up and 1 stands for unknown words.

    length: in words; None for that of the longest string. size: of the vocabulary: the commonest words have it, and where there are
    fewer, numbers without a word fill it. marks: whether each punctuation mark is a word of its own.
    Raises DataError for a vocabulary without room for a word.

    Example:
        >>> field = of_words(["a red cat", "a dog"], length=4)
        >>> field.encode(["a red bird"]).tolist(), field.words([[2, 4, 3, 0]])
        ([[2, 5, 1, 0]], ['a dog cat'])
        >>> of_words(["a cat", "a dog"], length=4, size=3).encode(["a cat"]).tolist(), of_words(["a"], length=4, size=9).size
        ([[2, 1, 0, 0]], 9)
    """
    package = _package()
    before = package.pre_tokenizers
    normal, apart = package.normalizers.Lowercase(), before.WhitespaceSplit()
    if marks:
        apart = before.Sequence([apart, before.Punctuation("isolated")])
    # what the tokenizer itself takes for words: Python's lower case and spaces are not quite the same
    found, longest = collections.Counter(), 1
    for string in strings:
        words = [word for word, _ in apart.pre_tokenize_str(normal.normalize_str(string))]
        found.update(words)
        longest = max(longest, len(words))
    known = sorted(found.keys() - {*_SIGNS})
    if size is not None:
        if size <= len(_SIGNS):
            raise DataError(f"a vocabulary has {len(_SIGNS)} signs besides its words, so at least {len(_SIGNS) + 1}, got {size}")
        known = sorted(sorted(known, key=lambda word: (-found[word], word))[: size - len(_SIGNS)])
        known += [f"[no word {number}]" for number in range(len(known) + len(_SIGNS), size)]  # has spaces, so that no text has it
    vocabulary = {word: i for i, word in enumerate([*_SIGNS, *known])}
    made = package.Tokenizer(package.models.WordLevel(vocabulary, unk_token=_SIGNS[1]))
    made.normalizer, made.pre_tokenizer = normal, apart
    if marks:
        made.decoder = package.decoders.WordPiece(prefix="\n", cleanup=True)  # no space before a full stop, and no pieces of words
    return Text(longest if length is None else length, made.to_str())


_SIGNS = ("[pad]", "[unknown]")


def of_file(path: Any, length: int, padding: int = 0) -> Text:
    """A text of the tokenizer in a tokenizer.json of the Hugging Face format; DataError where it cannot be read."""
    try:
        text = path_of(path).read_text()
    except (OSError, ValueError) as error:
        raise DataError(f"the tokenizer {path} cannot be read: {one_sentence(error)}") from error
    field = Text(length, text, padding)
    _tokenizer(text)
    return field


def of_folder(folder: Any, length: int, blank: str | None = "") -> Text:
    """A text of the tokenizer in a folder as transformers writes it: a tokenizer.json, or CLIP's vocab.json and merges.txt. What is
    longer than `length` is cut before its end sign.

    Raises DataError where neither can be read.
    """
    folder, package = path_of(folder), _package()
    words = {name: word["content"] if isinstance(word, dict) else word
             for file in ("tokenizer_config.json", "special_tokens_map.json") for name, word in _json(folder / file).items()
             if name.endswith("_token")}  # fmt: skip
    if (folder / "tokenizer.json").is_file():
        made = _tokenizer(of_file(folder / "tokenizer.json", length).tokenizer)
    else:  # which transformers fills up with the end sign unless told
        made, words = _clip(package, folder, words), {"pad_token": "<|endoftext|>"} | words
    made.no_padding()
    made.enable_truncation(length)
    pad = made.token_to_id(words.get("pad_token", ""))
    return Text(length, made.to_str(), 0 if pad is None else pad, blank)


def _clip(package, folder, words):
    """CLIP's tokenizer of bytes in pairs, lower case (Radford et al., 2021, code)."""
    try:
        made = package.Tokenizer(package.models.BPE.from_file(
            str(folder / "vocab.json"), str(folder / "merges.txt"), unk_token=words.get("unk_token", "<|endoftext|>"),
            continuing_subword_prefix="", end_of_word_suffix="</w>", fuse_unk=False))  # fmt: skip
    except Exception as error:
        raise DataError(f"{folder} holds no tokenizer that can be read, a tokenizer.json or CLIP's vocab.json and merges.txt: "
                        f"{one_sentence(error)[:200]}") from error  # fmt: skip
    begin, end = words.get("bos_token", "<|startoftext|>"), words.get("eos_token", "<|endoftext|>")
    numbers = [made.token_to_id(word) for word in (begin, end)]
    if None in numbers:
        raise DataError(f"the vocabulary in {folder} lacks {begin} or {end}")
    normal, before = package.normalizers, package.pre_tokenizers
    made.normalizer = normal.Sequence([normal.NFC(), normal.Replace(package.Regex(r"\s+"), " "), normal.Lowercase()])
    parts = package.Regex(r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+""")
    made.pre_tokenizer = before.Sequence([before.Split(parts, "removed", invert=True), before.ByteLevel(add_prefix_space=False)])
    made.decoder = package.decoders.ByteLevel()
    pair = list(zip((begin, end), numbers, strict=True))
    made.post_processor = package.processors.RobertaProcessing(pair[1], pair[0], trim_offsets=False, add_prefix_space=False)
    made.add_special_tokens([begin, end])
    return made


def _json(path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@functools.lru_cache(maxsize=8)
def _tokenizer(text: str):
    try:
        return _package().Tokenizer.from_str(text)
    except DataError:
        raise
    except Exception as error:  # the package raises plain exceptions
        raise DataError(f"a tokenizer cannot be read: {one_sentence(error)[:200]}") from error


def _package():
    try:
        import tokenizers
    except ImportError as error:
        raise DataError('texts need the package tokenizers: pip install "diffux[text]"') from error
    return tokenizers
