"""Files that are replaced: links, devices, full disks."""

import os
import subprocess
import sys

import pytest

from keras_saq.whole_file import replaced
from keras_saq.whole_file import replaced_path
from keras_saq.whole_file import target


def write(path, content=b"new"):
    with replaced(path) as file:
        file.write(content)


def test_a_file_is_written_and_replaced(tmp_path):
    path = tmp_path / "a.bin"
    for content in (b"first", b"second"):
        write(path, content)
        assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_an_error_leaves_the_older_file(tmp_path):
    path = tmp_path / "a.bin"
    write(path, b"old")
    with pytest.raises(KeyboardInterrupt):
        with replaced(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt
    with pytest.raises(RuntimeError):
        with replaced_path(path) as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("exists", [True, False])
def test_links_are_followed(exists, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    if exists:
        (folder / "real.bin").write_bytes(b"old")
    (tmp_path / "a.bin").symlink_to("b.bin")
    (tmp_path / "b.bin").symlink_to(folder / "real.bin")
    write(tmp_path / "a.bin")
    assert (tmp_path / "a.bin").is_symlink()
    assert (tmp_path / "b.bin").is_symlink()
    assert (folder / "real.bin").read_bytes() == b"new"
    assert [p.name for p in folder.iterdir()] == ["real.bin"]


def test_what_is_no_file_is_refused(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    (tmp_path / "to_folder").symlink_to("folder")
    os.mkfifo(tmp_path / "pipe")
    names = ("loop", "folder", "to_folder", "pipe")
    for path in (*(tmp_path / name for name in names), "/dev/null"):
        with pytest.raises(ValueError, match="is no file that could be"):
            target(path)
        with pytest.raises(ValueError, match="is no file that could be"):
            write(path)
    assert (tmp_path / "loop").is_symlink()
    assert len(list(tmp_path.iterdir())) == 4


def test_a_full_disk(tmp_path):
    """The limit on a file's size is what a full disk is to a program."""
    program = (
        "import resource, sys\n"
        "from keras_saq.whole_file import replaced\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    with replaced(sys.argv[1]) as file:\n"
        "        file.write(bytes(5000))\n"
        "except OSError as error:\n"
        "    print(type(error).__name__)\n"
    )
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", program, path],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": "jax"},
    )
    assert done.stdout == "OSError\n", done.stderr
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]
