"""The conformance kit: every reader gives the answers that are kept, and the script still does."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.golden import kit
from tests.support import second_reader, statements
from tests.support.requirements import give_up, need

READER = statements.ROOT / "docs/reader-node"
UNREACHABLE = re.compile(r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|E404")


def wanted(name: str) -> kit.Answer:
    """The answers of a case, without what is said about it."""
    found = kit.kept(name)
    return {key: found[key] for key in found.keys() - {"what", "sha256"}}


@pytest.mark.matrix
@pytest.mark.parametrize("name", kit.CASES)
def test_lakelog_gives_the_answers(name: str, tmp_path: Path) -> None:
    """F15.4: lakelog reads every lake of the kit as it did when the lake was made."""
    assert kit.answers(kit.unpack(name, str(tmp_path))) == wanted(name)


def test_lakes_of_the_kit_are_never_rewritten() -> None:
    """F15.4: the kit is small, complete, and each lake is the one its answers were made of."""
    files = {path.name: path for path in kit.KIT.iterdir()}
    pairs = {f"{name}.{end}" for name in kit.CASES for end in ("tar.gz", "json")}
    assert files.keys() == {"README.md", *pairs}
    assert sum(path.stat().st_size for path in files.values()) < 2_000_000
    text = files["README.md"].read_text("utf-8")
    for name, (what, _) in kit.CASES.items():
        data = files[f"{name}.tar.gz"].read_bytes()
        assert hashlib.sha256(data).hexdigest() == kit.kept(name)["sha256"]
        assert f"| `{name}` | {what} |" in text
    assert (
        hashlib.sha256(files["format1.tar.gz"].read_bytes())
        .hexdigest()
        .startswith("94d6d2742f1062f5")
    )
    assert (
        hashlib.sha256(files["format2.tar.gz"].read_bytes())
        .hexdigest()
        .startswith("707fa716f1fd1b67")
    )
    assert (
        hashlib.sha256(files["format3.tar.gz"].read_bytes())
        .hexdigest()
        .startswith("e1bb24ef44db54a3")
    )


_ARRIVAL = 9
"""Where a row of the kit has the time at which its event arrived; its number is the last."""


def shape(found: kit.Answer, *, is_of_turns: bool = False) -> Any:
    """Answers without what differs: digests of bytes, times of no event, names drawn by lot,
    ciphertexts; where two writers took turns, also which of them is first in the tail."""
    text = re.sub(r"\b[0-9a-f]{64}\b", "digest", json.dumps(found))
    text = re.sub(r"\b[0-9a-f]{32}\b", "writer", text)
    text = re.sub(r'(\$sealed[\\":]*)[^"\\]+', r"\1token", text)
    shaped = json.loads(re.sub(r"segments/[0-9a-f]{2}/|ids/[0-9a-f]{2}/", "", text))
    shaped.pop("format", None)  # the script writes the newest
    for branch in shaped.get("branches", {}).values():
        branch["events"] = [row[1:] for row in branch.get("events", ())]
        if is_of_turns:
            rows = [[*row[: _ARRIVAL - 1], *row[_ARRIVAL:-1]] for row in branch["events"]]
            branch["events"] = sorted(rows, key=json.dumps)
        if "tail" in branch:
            branch["tail"]["duplicates"] = sorted(branch["tail"]["duplicates"])
    if "states" in found:
        counts = [{**state, "rows": "", "file": ""} for state in found["states"].values()]
        shaped["states"] = sorted(counts, key=lambda state: json.dumps(state, sort_keys=True))
    return shaped


@pytest.mark.matrix
@pytest.mark.parametrize("name", [name for name, (_, build) in kit.CASES.items() if build])
def test_the_script_still_makes_the_kit(name: str, tmp_path: Path) -> None:
    """A lake that the script makes now has the answers of the one that is kept."""
    kit.build(name, str(tmp_path / "lake"))
    answers, is_of_turns = kit.answers(str(tmp_path / "lake")), name == "streams"
    assert shape(answers, is_of_turns=is_of_turns) == shape(wanted(name), is_of_turns=is_of_turns)


@pytest.mark.parametrize("name", kit.CASES)
def test_the_second_reader_gives_the_answers(name: str, tmp_path: Path) -> None:
    """The Python reader of the tests reads and refuses the branches of the kit as lakelog does."""
    path, answer = kit.unpack(name, str(tmp_path)), wanted(name)
    for branch, right in answer.get("branches", {}).items():
        if "error" in right:
            with pytest.raises(second_reader.Damaged):
                second_reader.rows(path, branch)
            continue
        rows = second_reader.rows(path, branch)
        found = [[row[column] for column in kit.EVENT] for row in rows]
        assert sorted(found, key=lambda row: row[12]) == right["events"]
        bad = second_reader.rows(path, branch, kind="quarantine")
        found = [[row[column] for column in kit.BAD_LINE] for row in bad]
        assert sorted(found, key=lambda row: row[1:]) == right["quarantine"]
    if "error" in answer:
        with pytest.raises((second_reader.Damaged, ValueError)):
            second_reader.rows(path)


# --- the reader in JavaScript -----------------------------------------------------------------


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that runs the reader, with its packages beside it."""
    npm, node = need("npm"), need("node")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    major, minor = (int(part) for part in version[1:].split(".")[:2])
    if (major, minor) < (20, 15):
        give_up(f"node 20.15 or later, and this is {version.strip()}")
    place = tmp_path_factory.mktemp("reader")
    for file in READER.glob("*.mjs"):
        shutil.copy(file, place)
    (place / "node_modules").symlink_to(packages(npm))
    return [node, str(place / "answers.mjs")]


def packages(npm: str) -> Path:
    """Fetch the pinned packages once for all runs on this machine; return their directory."""
    lock = (READER / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "lakelog-tests")
    target = cache / f"reader-node-{hashlib.sha256(lock).hexdigest()[:16]}"
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            for name in ("package.json", "package-lock.json"):
                shutil.copy(READER / name, folder)
            done = subprocess.run(
                [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
                cwd=folder,
                capture_output=True,
                text=True,
            )
            if done.returncode and UNREACHABLE.search(done.stderr):
                give_up("a package index that npm can reach")
            assert done.returncode == 0, done.stderr
            if not target.exists():  # another process may have been faster
                os.rename(Path(folder, "node_modules"), target)
    return target


@pytest.mark.matrix
@pytest.mark.parametrize("name", kit.CASES)
def test_the_javascript_reader_gives_the_answers(
    name: str, tmp_path: Path, program: list[str]
) -> None:
    """The reader of docs/reader-node, which follows FORMAT.md, gives the answers of the kit."""
    path = kit.unpack(name, str(tmp_path))
    done = subprocess.run([*program, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == wanted(name)


def test_the_javascript_reader_is_small_and_pinned() -> None:
    """It can be read in ten minutes: 400 lines at most; each package has one version and digest."""
    assert len((READER / "lake.mjs").read_text("utf-8").splitlines()) <= 400
    lock = json.loads((READER / "package-lock.json").read_text("utf-8"))["packages"]
    wants = json.loads((READER / "package.json").read_text("utf-8"))["dependencies"]
    pinned = {name.removeprefix("node_modules/"): each for name, each in lock.items() if name}
    assert {name: each["version"] for name, each in pinned.items()} == wants
    assert all(each["integrity"].startswith("sha512-") for each in pinned.values())
    assert "resolved" not in json.dumps(lock)
