"""What people read: messages, help texts and guides are written in the field's words."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakelog.errors import InvalidEvent
from lakelog.values import parse_value
from tests.support.tree import ROOT, nodes, sources

HOUSE_WORDS = re.compile(
    r"\btaken in\b|\btakes? (?:\w+ )?in\b|\blet go\b|\banew\b|\bmade a(?: new)? lake\b"
    r"|\bcreated the projection\b|\bthat lakelog brings\b|\btold by\b"
)


DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of each literal of a module that is no docstring."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.value)
        for owner in nodes(source, *documented)
        if isinstance(owner, documented)
        for node in owner.body
        if isinstance(node, ast.Expr)
    }
    for node in nodes(source, ast.Constant):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in docstrings:
            yield node.lineno, node.value


def test_messages_avoid_house_words() -> None:
    """No text that a module may print says it in words of ours."""
    found = [
        f"{path}:{line}: {text.strip()[:80]}"
        for path, source in sources("lakelog").items()
        if "train" not in path.split("/")
        for line, text in texts(source)
        if HOUSE_WORDS.search(text)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_documents_avoid_house_words(page: Path) -> None:
    """What a stranger reads first says it in the words of the field."""
    lines = enumerate(page.read_text("utf-8").splitlines(), 1)
    found = [f"{line}: {text}" for line, text in lines if HOUSE_WORDS.search(text)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{"a":', "not JSON: expecting value at column 6"),
        (b'{"a":1,}', "not JSON: expecting property name enclosed in double quotes at column 8"),
        (b'"a', "not JSON: unterminated string starting at column 1"),
        (b'{"a":\n x}', "not JSON: expecting value at line 2, column 2"),
        (b"NaN", "not JSON: NaN is not a JSON number"),
    ],
)
def test_what_is_no_json_names_its_place_once(text: bytes, words: str) -> None:
    """The column, and the line only where there are several."""
    with pytest.raises(InvalidEvent) as caught:
        parse_value(text)
    assert str(caught.value) == words
