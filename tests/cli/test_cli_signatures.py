"""key, sign, prove and check-proof on the command line, and what else takes a key."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import lakelog
from lakelog.cli import signatures
from tests.support.cli import answer, lines, run


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """A lake of two events, and the keys a and b beside it."""
    path = tmp_path / "lake"
    run(path, "append", input=lines(5, id="x") + lines(1, "OTHER", id="one"))
    for name in ("a", "b"):
        run(path, "key", "generate", str(tmp_path / name), "--comment", f"key {name}")
    return path


def key(lake: Path, name: str) -> str:
    return str(lake.parent / name)


def test_a_tag_is_signed_and_verified(lake: Path) -> None:
    """In one command or two; the exit code says whether an accepted key signed."""
    run(lake, "tag", "v1", "--sign", key(lake, "a"))
    run(lake, "verify", "--signed-by", key(lake, "a.pub"))
    run(lake, "verify", "v1", "--signed-by", key(lake, "b.pub"), "--signed-by", key(lake, "a.pub"))
    report = answer(lake, "verify", "v1", "--signed-by", key(lake, "b.pub"), code=3)
    (problem,) = report["problems"]
    assert problem["kind"] == "unsigned"
    assert "not accepted" in problem["reason"]
    run(lake, "tag", "v2")
    text = run(lake, "verify", "--signed-by", key(lake, "a.pub"), "--format", "table", code=3)
    assert "`lakelog sign v2 --key KEY`" in " ".join(text.stdout.split())
    assert "lakelog repair" not in text.stdout
    assert answer(lake, "sign", "v2", "--key", key(lake, "a"))["tag"] == "v2"
    run(lake, "verify", "--signed-by", key(lake, "a.pub"))


def test_a_branch_is_signed_with_all_that_was_appended(lake: Path) -> None:
    """What is still in the WAL is published first."""
    run(lake, "append", "type=LATE")
    said = answer(lake, "sign", "main", "--key", key(lake, "a"), "--expires", "1d")
    assert said["tag"] == ""
    assert said["events"] == answer(lake, "stats")["events"]
    assert said["expires"] > said["time"]
    run(lake, "verify", "main", "--signed-by", key(lake, "a.pub"))


def test_events_that_nobody_signed_are_a_problem(lake: Path) -> None:
    """Whatever SQL shows of a branch is signed, or verify says so: of the WAL, and published."""
    run(lake, "tag", "v1", "--sign", key(lake, "a"))
    signed = ("--signed-by", key(lake, "a.pub"))
    run(lake, "compact")
    run(lake, "verify", *signed)  # the same events in other segments
    run(lake, "append", "type=FORGED")
    (problem,) = answer(lake, "verify", *signed, code=3)["problems"]
    assert (problem["path"], problem["kind"]) == ("wal/main", "unsigned")
    assert "1 of the events that it shows" in problem["reason"]
    with lakelog.open(str(lake), create=False) as opened:
        opened.settle()
    (problem,) = answer(lake, "verify", *signed, code=3)["problems"]
    assert (problem["path"], problem["kind"]) == ("refs/heads/main", "unsigned")
    run(lake, "verify", "v1", *signed)
    run(lake, "sign", "main", "--key", key(lake, "a"))
    run(lake, "verify", *signed)
    run(lake, "append", "type=FORGED")
    answer(lake, "verify", "main", *signed, code=3)


def test_an_event_is_proven(lake: Path) -> None:
    """By id or by seq, to a file or to standard output; checked by the key alone."""
    run(lake, "tag", "v1", "--sign", key(lake, "a"))
    file = lake.parent / "proof"
    run(lake, "prove", "one", "--at", "v1", "-o", str(file))
    nowhere = lake.parent / "no-lake"
    proven = answer(nowhere, "check-proof", str(file), "--signed-by", key(lake, "a.pub"))
    assert proven["proven"] is True
    assert proven["event"]["type"] == "OTHER"
    assert proven["statement"]["tag"] == "v1"
    seq = str(proven["event"]["seq"])
    assert run(lake, "prove", "--seq", seq).stdout_bytes == file.read_bytes()
    text = run(
        nowhere, "check-proof", str(file), "--signed-by", key(lake, "a"), "--format", "table"
    )
    assert text.stdout.startswith(f"proven: event {int(seq) + 1} of 2 of tag v1, snapshot ")
    failed = run(nowhere, "check-proof", str(file), "--signed-by", key(lake, "b.pub"), code=3)
    assert "not accepted" in failed.stderr
    file.write_bytes(file.read_bytes().replace(b"OTHER", b"0THER"))
    failed = run(nowhere, "check-proof", str(file), "--signed-by", key(lake, "a.pub"), code=3)
    assert (
        failed.stderr
        == f"lakelog: error: {file}: the proof is damaged: its checksum does not match\n"
    )


def test_a_file_that_is_no_proof(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty, of another kind, or longer than a proof can be."""
    file = lake.parent / "proof"
    for data in (b"", b"{}\n", b"\xff" * 1000):
        file.write_bytes(data)
        failed = run(lake, "check-proof", str(file), "--signed-by", key(lake, "a.pub"), code=3)
        assert "the proof is damaged" in failed.stderr
    monkeypatch.setattr(signatures, "_PROOF_MAX", 999)
    failed = run(lake, "check-proof", str(file), "--signed-by", key(lake, "a.pub"), code=3)
    assert "too long" in failed.stderr


def test_several_events_of_one_id(lake: Path) -> None:
    """They are listed; --source chooses."""
    run(lake, "append", "type=B", "id=one", "source=other")
    run(lake, "tag", "v1", "--sign", key(lake, "a"))
    failed = run(lake, "prove", "one", code=2)
    assert "2 events have the id 'one'" in failed.stderr
    body = json.loads(run(lake, "prove", "one", "--source", "other").stdout)
    assert body["event"]["type"] == "B"
    assert "no event with id 'none'" in run(lake, "prove", "none", code=1).stderr
    assert "no event with seq 99" in run(lake, "prove", "--seq", "99", code=1).stderr


def test_mistakes_are_one_line(lake: Path) -> None:
    """A key that cannot sign leaves no tag; options that do not go together are refused."""
    for name, words in (("a.pub", "no private key"), ("none", "no such file")):
        failed = run(lake, "tag", "v1", "--sign", key(lake, name), code=2 if "." in name else 1)
        assert words in failed.stderr
        assert failed.stderr.count("\n") == 1
    assert answer(lake, "tag", "--list") == []
    run(lake, "tag", "--list", "--sign", key(lake, "a"), code=2)
    run(lake, "prove", code=2)
    run(lake, "prove", "one", "--seq", "1", code=2)
    assert "nothing in this lake is signed" in run(lake, "prove", "one", code=1).stderr
    run(lake, "key", "show", key(lake, "a"), "--comment", "x", code=2)
    run(lake, "key", "generate", key(lake, "a"), code=1)
    run(lake, "verify", "--repair", "--signed-by", key(lake, "a"), code=2)


def test_keys_are_shown(lake: Path) -> None:
    """Both files of a pair have the same id and comment; the private key is not printed."""
    shown = [answer(lake, "key", "show", key(lake, name)) for name in ("a", "a.pub")]
    assert [s.pop("kind") for s in shown] == ["private", "public"]
    assert shown[0] == shown[1]
    assert shown[0]["comment"] == "key a"
    assert "PRIVATE" not in shown[0]["public"]


def test_without_the_extra(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says what to install."""
    for name in [n for n in sys.modules if n.startswith("cryptography")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    failed = run(lake, "key", "generate", key(lake, "c"), code=1)
    assert failed.stderr == (
        "lakelog: error: signatures need the package cryptography: pip install 'lakelog[sign]'\n"
    )
    assert not Path(key(lake, "c")).exists()
