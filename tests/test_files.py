"""Files written beside their place: the old one stands until the new one is whole, and nothing is left of one that failed."""

import pytest

from diffux.files import aside


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "words.json"
    path.write_text("old")
    with pytest.raises(OSError, match="full"), aside(path) as part:
        part.write_text("ne")
        raise OSError("the disk is full")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with aside(path) as part:
        part.write_text("new")
        assert path.read_text() == "old" and part.parent == tmp_path
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_a_failure_before_anything_was_written_is_the_one_that_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere"), aside(tmp_path / "nowhere" / "words.txt") as part:
        part.write_text("never")
