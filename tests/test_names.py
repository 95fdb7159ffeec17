"""Names of files and folders that cannot be: one sentence each, before anything is made."""

import os

import pytest

from diffux import cli, data
from diffux.errors import UserError
from diffux.files import path_of


@pytest.mark.parametrize(("word", "said"), [
    ("~nosuchuser/runs", "there is no home directory of such a user here"),
    ("runs/" + "a" * 300, "is a name of 300 bytes, and file systems allow 255"),
    ("ü" * 200, "is a name of 400 bytes"),
    ("a/" * 2500, "is a name of"),
    (os.fsdecode(b"runs/\xff"), "is no name in UTF-8"),
    ("runs/\0", "has a null byte in it"),
])  # fmt: skip
def test_names_that_cannot_be(word, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        path_of(word)
    for command in (["train", "--config", "ddpm_digits", "--workdir", word], ["sample", "--workdir", word, "--out", "x.png"],
                    ["export", "--workdir", word, "--out", "x.safetensors"], ["evaluate", "--workdir", word]):  # fmt: skip
        assert cli.main(command) == 2
        error = capsys.readouterr().err
        assert said in error and error.startswith("error: ") and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_cache_without_a_home(monkeypatch):
    """A container's user without an entry in passwd and without HOME."""
    monkeypatch.delenv("DIFFUX_CACHE", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: (_ for _ in ()).throw(KeyError(uid)))
    with pytest.raises(UserError, match=r"the cache has no place .* set DIFFUX_CACHE to a folder that can be written"):
        data.cache_dir()
