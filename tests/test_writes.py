"""Every write of popup goes through popup/files.py, and every file of others is read through it: nobody else opens one.

Walks the syntax tree of every file. What is allowed beside: files of fixed names, under /proc and os.devnull, and what is said
below.
"""

import ast
import os
import stat

import pytest

from popup.files import (
    IrregularFile,
    append,
    create,
    open_lock,
    open_regular,
    own_folder,
    read_regular,
    remove_own,
    remove_parts,
    write_atomically,
)
from tests.test_imports import ROOT, files

OPENERS = {"open", "read_text", "read_bytes", "write_text", "write_bytes", "open_memmap", "mkdir", "makedirs", "copyfile",
           "copytree", "mkdtemp", "mkstemp", "truncate", "touch", "symlink_to", "tofile", "fromfile", "save_file", "load_file",
           "unlink", "rmtree", "rename", "rmdir", "chmod"}
SAVERS = {("np", "save"), ("np", "load"), ("numpy", "save"), ("torch", "save"), ("torch", "load"), ("np", "savez"),
          ("json", "dump"), ("json", "load"), ("pickle", "load"), ("pickle", "dump")}
ALLOWED = {  # by file: what it may call, and why
    "popup/files.py": None,
    "run.py": {"open"},                       # os.devnull
    "popup/lab/machine.py": {"open"},         # /proc
    "popup/lab/precision.py": {"open"},       # /proc
    "popup/lab/training/ranks.py": {"open"},  # os.devnull
    "popup/lab/runs/cell.py": {"read_text"},  # /proc/self/mountinfo
    "popup/lab/data/decode.py": {"open"},     # Image.open of a file that open_regular has opened
    "popup/lab/data/cache.py": {"np.save", "np.load", "rename", "rmtree", "unlink", "chmod"},  # a folder that it has made itself
    "popup/lab/data/folder.py": {"np.save"},  # into memory
    "popup/lab/runs/targets.py": {"load_file"},         # what --target names, if it is a file
    "popup/lab/runs/logs.py": {"rmtree"},               # which follows no link
    "popup/lab/commands/prove_command.py": {"unlink"},  # the ticket that it has just written
    "popup/lab/runs/directory.py": {"mkdir"},           # --out itself, which the user names
    "popup/ticket/ticket.py": {"mkdir"},                # what save_pretrained is given
    "popup/callbacks.py": {"mkdir"},                    # what a trainer gives in its place
}


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Name) and function.id == "open":
                yield node.lineno, "open"
            elif isinstance(function, ast.Attribute):
                owner = function.value.id if isinstance(function.value, ast.Name) else ""
                if (owner, function.attr) in SAVERS:
                    yield node.lineno, f"{owner}.{function.attr}"
                elif function.attr in OPENERS:
                    yield node.lineno, function.attr
                elif function.attr == "savefig" and not (node.args and getattr(node.args[0], "id", "") == "content"):
                    yield node.lineno, "savefig"


@pytest.mark.parametrize("path", [path for path in files() if "models" not in path.parts], ids=lambda path: str(path.name))
def test_only_one_place_opens_files(path):
    allowed = ALLOWED.get(str(path.relative_to(ROOT)), set())
    assert allowed is None or [call for call in calls(ast.parse(path.read_text())) if call[1] not in allowed] == []


@pytest.fixture
def victim(tmp_path):
    path = tmp_path / "victim"
    path.write_text("a victim")
    return path


def irregular(path, victim):
    """Each kind of thing that is no file, in turn, in the place of `path`."""
    for make in (lambda: os.mkfifo(path), lambda: path.symlink_to("/dev/zero"), lambda: path.symlink_to(victim.with_name("pipe")),
                 lambda: path.mkdir()):
        make()
        yield
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def test_what_is_no_file_is_not_read_and_what_is_too_large_neither(tmp_path, victim):
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / "file"
    for _ in irregular(path, victim):
        with pytest.raises(IrregularFile, match=r"file is (a pipe|a device|a folder), where popup has a regular file"):
            read_regular(path)
    path.symlink_to(victim)
    with open_regular(path) as file:
        assert read_regular(path) == file.read() == b"a victim", "links to files are read"
    with pytest.raises(IrregularFile, match="larger than 7 bytes"):
        read_regular(path, 7)
    assert read_regular(path, 8) == b"a victim"
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "absent")


@pytest.mark.parametrize("write", [lambda path: append(path, b"x"), open_lock, create])
def test_nothing_is_opened_for_writing_through_a_link(write, tmp_path, victim):
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / "file"
    for target in (victim, tmp_path / "new"):
        path.symlink_to(target)
        with pytest.raises((IrregularFile, FileExistsError)):
            write(path)
        path.unlink()
    for _ in irregular(path, victim):
        with pytest.raises((IrregularFile, FileExistsError)):
            write(path)
    assert victim.read_text() == "a victim" and not (tmp_path / "new").exists()


def test_a_link_is_replaced_and_a_lock_keeps_what_it_holds(tmp_path, victim):
    path = tmp_path / "file"
    path.symlink_to(victim)
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new" and not path.is_symlink() and victim.read_text() == "a victim"
    open_lock(path).close()
    assert path.read_bytes() == b"new" and stat.S_IMODE(path.stat().st_mode) == 0o644
    append(path, b" and more", durable=True)
    assert path.read_bytes() == b"new and more"
    with create(tmp_path / "made") as file:
        file.write(b"x")
    with pytest.raises(FileExistsError):
        create(tmp_path / "made")


def test_a_folder_that_is_a_link_is_not_written_into(tmp_path, victim):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IrregularFile, match="link is a link"):
        own_folder(tmp_path / "link")
    assert own_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "elsewhere" / "kept").touch()
    remove_own(tmp_path / "link" / "kept")
    assert (tmp_path / "elsewhere" / "kept").exists()
    remove_own(tmp_path / "elsewhere" / "kept")
    remove_own(tmp_path / "elsewhere" / "kept")
    assert not (tmp_path / "elsewhere" / "kept").exists()
    (tmp_path / ".x.part").symlink_to(victim)
    remove_parts(tmp_path)
    assert victim.exists() and not (tmp_path / ".x.part").is_symlink()
