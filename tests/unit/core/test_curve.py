"""Key files: made once, read by their owner only, and one clear line for what is wrong with one."""

import os
from pathlib import Path

import pytest

from dimint.cli import main
from dimint.curve import create_key_file, read_key
from dimint.errors import SettingsError


def test_what_is_made_is_read(tmp_path: Path) -> None:
    """The file is its owner's alone, and never written over."""
    path = tmp_path / "key"
    made = create_key_file(path)
    assert read_key(path) == made
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(SettingsError, match="exists"):
        create_key_file(path)
    assert read_key(path) == made
    assert read_key(None) is None


def test_the_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`dimint key create`."""
    assert main(["key", "create", str(tmp_path / "key")]) == 0
    assert read_key(tmp_path / "key") is not None
    assert main(["key", "create", str(tmp_path / "key")]) == 2
    assert "a key is never written over" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No such file"),
        ("", "no key stands in it"),
        ('curve\n    public-key = "abc"\n', "is damaged"),
        ('curve\n    public-key = "{}"\n    secret-key = "{}"\n'.format("a" * 40, "b" * 40), "is damaged"),
    ],
)
def test_what_is_no_key(tmp_path: Path, content: str | None, problem: str) -> None:
    """A file that is not there, empty, cut, or of two keys."""
    path = tmp_path / "key"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError, match=problem):
        read_key(path)


def test_others_may_not_read_it(tmp_path: Path) -> None:
    """As ssh has it."""
    path = tmp_path / "key"
    create_key_file(path)
    os.chmod(path, 0o640)
    with pytest.raises(SettingsError, match="others may read"):
        read_key(path)
