"""Lakes are written by one module, so that crash tests see each write; checked with ast alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.support.tree import Sources, nodes, sources

DISK_MODULE = "lakelog/disk/disk.py"
DISK_SCOPE = tuple(
    f"lakelog/{name}"
    for name in """disk/ store/ wal/ moves/ appends/ history/ segments/ chunks/ maintain/ query/
        lake.py""".split()
)
DISK_CALLS = {
    "os": """rename replace renames link symlink unlink remove rmdir removedirs mkdir makedirs
        truncate ftruncate fsync fdatasync sync write writev pwrite pwritev sendfile copy_file_range
        O_WRONLY O_RDWR O_CREAT O_TRUNC O_APPEND""".split(),
    "shutil": "rmtree move copy copy2 copyfile copytree".split(),
    "tempfile": "NamedTemporaryFile TemporaryDirectory mkstemp mkdtemp".split(),
}
PATH_METHODS = "write_text write_bytes touch mkdir rmdir unlink symlink_to hardlink_to".split()


def disk_breaches(tree: Sources) -> list[str]:
    """Report writes, syncs, links and removals of the lake's files outside its one module."""
    return sorted(
        {
            f"{path}:{line}: {use} goes through {DISK_MODULE}"
            for path, text in tree.items()
            if path.startswith(DISK_SCOPE) and path != DISK_MODULE
            for line, use in disk_uses(text)
        }
    )


def disk_uses(text: str) -> Iterator[tuple[int, str]]:
    imports = [alias for node in nodes(text, ast.Import) for alias in node.names]
    modules = {alias.asname or alias.name: alias.name for alias in imports}
    for node in nodes(text, ast.ImportFrom):
        for alias in node.names:
            if alias.name in DISK_CALLS.get(node.module or "", ()):
                yield node.lineno, f"{node.module}.{alias.name}"
    for node in nodes(text, ast.Attribute):
        module = modules.get(ast.unparse(node.value), "")
        if node.attr in DISK_CALLS.get(module, ()):
            yield node.lineno, f"{module}.{node.attr}"
    for call in nodes(text, ast.Call):
        receiver, _, name = ast.unparse(call.func).rpartition(".")
        of_disk = receiver.startswith("File(") or receiver.split(".")[-1] in ("disk", "_disk")
        if of_disk or modules.get(receiver) in DISK_CALLS:
            continue
        if (name in PATH_METHODS and receiver) or names_a_move(call, receiver, name):
            yield call.lineno, f".{name}()"
        if name in ("open", "fdopen") and opens_to_write(call, receiver):
            yield call.lineno, "open to write"


def names_a_move(call: ast.Call, receiver: str, name: str) -> bool:
    """Tell Path.rename(x) and Path.replace(x) from the replace of texts, values and tables."""
    if name not in ("rename", "replace") or receiver in ("", "dataclasses") or call.keywords:
        return False
    return len(call.args) == 1 and not isinstance(call.args[0], (ast.Dict, ast.DictComp))


def opens_to_write(call: ast.Call, receiver: str) -> bool:
    """Tell whether a mode is given that may write; Path.open takes the mode first, open second."""
    given = [keyword.value for keyword in call.keywords if keyword.arg == "mode"]
    given += call.args[:2] if receiver else call.args[1:2]
    for mode in given:
        if isinstance(mode, ast.Constant):
            if re.fullmatch(r"(?=.*[wax+])[rwaxbt+]{1,4}([:|]\w*)?", str(mode.value)):
                return True
        elif not receiver:
            return True  # open(path, mode): nobody can see what it does
    return False


def test_one_module_writes_to_disk() -> None:
    """No file of the packages that keep a lake breaches this."""
    assert "\n".join(disk_breaches(sources("lakelog"))) == ""


@pytest.mark.parametrize(
    "text",
    [
        "import os\nos.replace(a, b)",
        "import os as system\nsystem.fsync(fd)",
        "from os import unlink",
        "import os\nremove = os.remove",
        "import os\nfd = os.open(path, os.O_RDONLY | os.O_CREAT)",
        "import shutil\nshutil.rmtree(path)",
        "import tempfile\ntempfile.mkstemp()",
        "open(path, 'wb')",
        "open(path, mode='a')",
        "open(path, 'r+b')",
        "open(path, mode)",
        "path.open('x')",
        "gzip.open(path, 'wt')",
        "path.write_text('x')",
        "(root / 'x').write_bytes(b'x')",
        "path.unlink()",
        "path.rename(other)",
        "Path(name).replace(other)",
    ],
)
@pytest.mark.parametrize("path", ["store/wal.py", "query/session.py", "lake.py"])
def test_a_write_outside_the_disk_module_is_reported(path: str, text: str) -> None:
    """A planted write, sync, link or removal in store, query or lake.py is reported once."""
    assert len(disk_breaches({f"lakelog/{path}": text})) == 1


def test_reads_and_the_disk_module_are_allowed() -> None:
    """Reading, calls of the disk module, and the replace of texts and values are not reported."""
    reads = (
        "import os, dataclasses\nos.open(p, os.O_RDONLY)\nopen(p)\nopen(p, 'rb')\np.open('rb')\n"
    )
    calls = "File(p).rename(q)\nself.disk.open(p, 'wb')\nFile(p).replace(b)\nlakelog.open('wax')\n"
    values = (
        "t.replace('a', 'b')\ndataclasses.replace(s)\nd.replace(tzinfo=z)\nf.rename({'a': 'b'})"
    )
    tree = {"lakelog/store/wal.py": reads + calls.replace("'wax'", "'lake'") + values}
    tree[DISK_MODULE] = tree["lakelog/cli/output.py"] = "import os\nos.replace(a, b)\nopen(p, 'wb')"
    assert disk_breaches(tree) == []
