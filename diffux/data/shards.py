"""Archives of pictures, as WebDataset has them: files of one name in a .tar are an example, its picture, its caption and its class.

Read by index: where each file lies in its archive is found once, with the standard library alone, when the data set is loaded.
"""

from __future__ import annotations

import dataclasses
import glob
import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from diffux.data import _captions, _pictures
from diffux.data._pictures import SPLITS, Row, is_class, splits_in
from diffux.data.source import Source
from diffux.errors import DataError, NoSplit, one_sentence
from diffux.fields import Field
from diffux.fields.image import SUFFIXES
from diffux.files import path_of

FORMS = ()  # archives of one's own come as shards:/path
_MOST = 100_000  # shards that braces may name
_PADDING = 2**20  # bytes behind the end of an archive that are looked at


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive, which is read like a path: `size` bytes from the place `start` on."""

    shard: str
    name: str
    start: int
    size: int

    def __str__(self):
        return f"{self.name} in {self.shard}"

    def read_bytes(self) -> bytes:
        with open(self.shard, "rb") as file:
            file.seek(self.start)
            found = file.read(self.size)
        if len(found) < self.size:
            raise OSError("the archive has been cut short")
        return found


def load(rest: str, *, split: str = "train", caption: str | None = None, label: str = "label", captions: bool = True,
         length: int | None = None, vocabulary: int | None = None, tokenizer: str | None = None, size=None,
         channels: int | None = None, pixels: int | None = None, like: Mapping[str, Field] | None = None) -> Source:  # fmt: skip
    """The examples in the archives `rest`: a .tar, a pattern as train-*.tar or train-{000..009}.tar, or a folder of them.

    An example are the files of an archive that are called the same up to the first point: a picture, 7.jpg or of another ending
    that a `folder` knows, and beside it the caption as 7.txt, or as an entry of 7.json, and the class as a number in 7.cls, or as
    the entry "label" of 7.json; other files are left out. Archives are plain, not compressed. In a folder splits are subfolders
    train, validation and test, or archives whose names begin so; all else is "train".

    - caption, label: the entries of .json; by default the first there is of caption, text and prompt, and label.
    - captions: whether captions are read; length, vocabulary, tokenizer, size, channels, pixels, like: as of a `folder`.

    Raises:
        NoSplit: no such split.
        DataError: no such archives, one that cannot be read, or what a folder of such pictures is refused for.
    """
    rows, bad, odd = [], [], 0
    for shard in _shards(rest, split):
        examples: dict[str, dict[str, Member]] = {}
        for key, ending, member in _members(shard):
            examples.setdefault(key, {})[ending] = member
        for files in examples.values():
            picture = next((member for ending, member in files.items() if ending in SUFFIXES), None)
            if picture is None:
                odd += 1
                continue
            try:
                rows.append(Row(picture, *_said(files, captions, caption, label)))
            except DataError as error:
                bad.append(error)
    if not rows and not bad:
        raise DataError(f"the archives {rest} have no images ({', '.join(sorted(SUFFIXES))}).")
    captioned = captions and (caption is not None or any(row.captions for row in rows))
    notes = [f"{odd:,} names in {rest} have no image and are left out"] if odd else []
    return _pictures.source_of(rows, bad, rest, name=f"shards:{rest}", split=split, captioned=captioned, size=size,
                               channels=channels, pixels=pixels, length=length, vocabulary=vocabulary, tokenizer=tokenizer,
                               like=like, notes=notes)  # fmt: skip


def describe(rest: str, *, split: str = "train", caption: str | None = None, label: str = "label", captions: bool = True,
             length: int | None = None, vocabulary: int | None = None, tokenizer: str | None = None, size=None,
             channels: int | None = None, pixels: int | None = None) -> dict[str, Field]:  # fmt: skip
    """The fields; of archives that are not there as of a folder that is not."""
    if size is not None and not _there(rest):
        return _pictures.described(size, channels, captions, length, vocabulary, tokenizer)
    return load(rest, split=split, caption=caption, label=label, captions=captions, length=length, vocabulary=vocabulary,
                tokenizer=tokenizer, size=size, channels=channels, pixels=pixels).fields  # fmt: skip


def splits(rest: str) -> dict[str, int]:
    """The splits of archives and their numbers of examples."""
    return {split: len(load(rest, split=split, size=1)) for split in _found(rest)}


def expanded(pattern: str) -> list[str]:
    """The names that braces stand for, in order.

    Raises DataError for more than a hundred thousand.

    Example:
        >>> expanded("a-{008..010}.tar"), expanded("{train,test}-{0..1}.tar")
        (['a-008.tar', 'a-009.tar', 'a-010.tar'], ['train-0.tar', 'train-1.tar', 'test-0.tar', 'test-1.tar'])
    """
    before, found, after = _braces(pattern)
    if found is None:
        return [pattern]
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", found)
    if numbers:
        first, last = (int(number) for number in numbers.groups())
        if last - first >= _MOST:
            raise DataError(f"the braces of {pattern} stand for {last - first + 1:,} names, and at most {_MOST:,} are read.")
        words = [f"{number:0{len(numbers[1])}}" for number in range(first, last + 1)]
    else:
        words = found.split(",")
    rest = expanded(after)
    if len(words) * len(rest) > _MOST:
        raise DataError(f"the braces of {pattern} stand for {len(words) * len(rest):,} names, and at most {_MOST:,} are read.")
    return [before + word + end for word in words for end in rest]


def _braces(pattern: str) -> tuple[str, str | None, str]:
    """(what stands before the first braces, what is in them or None, what stands behind)."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    return (pattern, None, "") if found is None else (pattern[: found.start()], found[1], pattern[found.end() :])


def _there(rest: str) -> bool:
    try:
        return bool(_found(rest))
    except DataError:
        return False


def _shards(rest: str, split: str) -> list[Path]:
    """The archives of a split."""
    found = _found(rest)
    if split not in found:
        raise NoSplit(f"{rest} has no split {split!r}; it has {', '.join(found)}: archives in a folder, in subfolders {split} and "
                      f"train or with names that begin so, have splits.")  # fmt: skip
    return found[split]


def _found(rest: str) -> dict[str, list[Path]]:
    """{split: archives}."""
    if not rest:
        raise DataError("archives of pictures are named with their path, as shards:/path/to/train-{000..009}.tar.")
    top = path_of(rest)
    if not top.is_dir():
        return {"train": [path for name in expanded(str(top)) for path in _named(name)]}
    folders = splits_in(top, {".tar"}) or {"train": top}
    found = {split: sorted(path for path in folder.glob("*.tar") if not path.name.startswith("."))
             for split, folder in folders.items()}  # fmt: skip
    for split, paths in found.items():
        if not paths:
            raise DataError(f"the folder {folders[split]} has no archives (.tar).")
    parts = {split: [path for path in found["train"] if re.match(rf"({'|'.join(words)})(?![a-z])", path.name.lower())]
             for split, words in SPLITS.items()}  # fmt: skip
    if len(found) == 1 and parts["train"] and sum(map(len, parts.values())) == len(found["train"]):
        return {split: paths for split, paths in parts.items() if paths}
    return found


def _named(name: str) -> list[Path]:
    paths = sorted(Path(found) for found in glob.glob(name)) if glob.has_magic(name) and not Path(name).exists() else [Path(name)]
    if not paths or not paths[0].is_file():
        raise DataError(f"there is no archive {name}.")
    return paths


def _members(shard: Path) -> Iterator[tuple[str, str, Member]]:
    """(name up to the first point, ending in lower case, file) of the files of an archive; no hidden names."""
    try:
        with tarfile.open(shard, "r:") as archive:
            for entry in archive:
                path = PurePosixPath(entry.name)
                stem, point, ending = path.name.partition(".")
                hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
                if entry.isreg() and not entry.issparse() and point and not hidden:
                    member = Member(str(shard), entry.name, entry.offset_data, entry.size)
                    yield str(path.parent / stem), f".{ending.lower()}", member
            end = archive.offset
        with open(shard, "rb") as file:  # a header that is none, or none at all, ends an archive for tarfile without a word
            file.seek(end)
            rest = file.read(_PADDING)
        if len(rest) < tarfile.BLOCKSIZE or rest.strip(b"\0"):
            raise tarfile.ReadError(f"it has no end where its files end, at byte {end:,}")
    except (OSError, tarfile.TarError, ValueError, EOFError) as error:
        raise DataError(f"{shard} cannot be read as a plain .tar, one that is whole and not compressed: "
                        f"{one_sentence(error)}") from error  # fmt: skip


def _said(files: Mapping[str, Member], captions: bool, caption: str | None, label: str) -> tuple[tuple[str, ...], int | str | None]:
    """(the captions of an example, its class or None)."""
    entries = _entries(files[".json"]) if ".json" in files else {}
    lines = _captions.read(files[".txt"]) if captions and ".txt" in files else ()
    if captions and not lines:
        names = (caption,) if caption is not None else _captions.NAMES
        lines = next((found for name in names if (found := _captions.lines(entries.get(name)))), ())
    kind = " ".join(_captions.read(files[".cls"])) if ".cls" in files else entries.get(label)
    if ".cls" in files and not is_class(kind):
        raise DataError(f"{files['.cls']} is no number of a class, got {kind[:40]!r}")
    if type(kind) is int or ".cls" in files:
        return lines, int(kind) if is_class(kind) else str(kind)
    return lines, kind if isinstance(kind, str) else None


def _entries(member: Member) -> dict[str, Any]:
    try:
        found = json.loads(_captions.decoded(member.read_bytes(), member))
    except DataError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{member} cannot be read as JSON ({one_sentence(error)})") from error
    return found if isinstance(found, dict) else {}
