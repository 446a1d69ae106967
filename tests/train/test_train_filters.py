"""What is left out of a training set by rule, and how its tokens are counted: named and counted."""

from __future__ import annotations

import base64
import importlib.util
import json
import random
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from lakelog import train
from lakelog.errors import ExportRefused, InvalidRecipe
from lakelog.train import filters, tokenizer
from tests.support import trainsets
from tests.support.requirements import need_module
from tests.support.trainsets import lake_of, recipe, rows

ALL = {"split": {"train": 1.0}}
GOOD = (
    "The station opened in the spring of 1911 and has served travellers from four counties. "
    "Its long hall was built by masons who came north for work, and their marks can still be"
    " found on pillars beside platform two. During winter storms people waited here for hours,"
    " with coffee from a small stand that Martha Keane ran until her retirement. Nobody remembers"
    " exactly when clocks were added, yet photographs show them by 1930. Restoration began later."
)
GERMAN = (
    "Der Bahnhof wurde im Frühjahr eröffnet und dient seither Reisenden aus der ganzen Region."
    " Die Halle haben Maurer gebaut, die für diese Arbeit aus dem Süden kamen."
)


def notes(*texts: str | None) -> list[dict[str, Any]]:
    return [{"type": "n", "message": text} if text else {"type": "n"} for text in texts]


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("gopher_length", "Too short to be a page."),
        ("gopher_word_length", "a b c d " * 20),
        ("gopher_symbols", GOOD.replace(" ", " # ", 20)),
        ("gopher_symbols", GOOD.replace(" ", "… ", 20)),
        ("gopher_bullets", "\n".join(f"- {line}." for line in GOOD.split(". "))),
        ("gopher_ellipses", "\n".join(f"{line}..." for line in GOOD.split(". "))),
        ("gopher_letters", GOOD.replace(" ", " 1234 ", 30)),
        ("gopher_stop_words", " ".join(w for w in GOOD.split() if len(w) > 4) * 2),
        ("gopher_repetition", "\n".join([GOOD] * 3)),
        ("gopher_repetition", "buy this now " * 30 + GOOD),
        ("c4_sentences", GOOD.replace(".", ",")),
        ("c4_curly_bracket", GOOD + " function() { return 1; }"),
        ("c4_lorem_ipsum", GOOD + " Lorem ipsum dolor."),
    ],
)
def test_a_text_breaks_the_rule_it_breaks(rule: str, text: str) -> None:
    """Each published rule finds its kind of text, and an ordinary page breaks none."""
    assert filters.first_broken_rule(text, [rule]) == rule
    assert filters.first_broken_rule(GOOD, filters.RULE_NAMES) is None


def test_drops_are_counted_and_need_consent(home: Path) -> None:
    """What filters leave out is refused with the counts, or counted on card and manifest."""
    events = notes(GOOD, "short", "brief.", GOOD + " {", None)
    with lake_of(home / "lake", events) as lake:
        asked = recipe("text", filter={"quality": ["gopher", "c4"]}, **ALL)
        with pytest.raises(ExportRefused) as caught:
            train.export(lake, asked, home / "out")
        said = str(caught.value)
        assert "texts of fewer than 50 words or more than 100,000 (2, the first is 'short')" in said
        assert '[filter] drop = ["gopher_length","c4_curly_bracket"]' in said
        assert not (home / "out").exists()
        asked["filter"]["drop"] = ["gopher", "c4_curly_bracket"]
        made = train.export(lake, asked, home / "out")
    assert made.manifest["losses"] == {"no_text": 1, "gopher_length": 2, "c4_curly_bracket": 1}
    assert [row["text"] for row in rows(home / "out")] == [GOOD]
    card = (home / "out" / "README.md").read_text()
    assert "rows without text (1); texts of fewer than 50 words or more than 100,000 (2)" in card
    assert train.check(home / "out").clean


def test_other_languages_are_left_out(home: Path) -> None:
    """Texts in languages that were not asked for are counted as such, in conversations too."""
    need_module("py3langid")
    talk = [
        {"type": "c", "subject": name, "data": {"role": role, "content": text}}
        for name, text in (("en", GOOD), ("de", GERMAN))
        for role in ("user", "assistant")
    ]
    shape = {"role": "data.role", "content": "data.content"}
    wanted = {"languages": ["en"], "drop": ["language"]}
    with lake_of(home / "lake", [*notes(GOOD, GERMAN), *talk]) as lake:
        asked = recipe("text", "FROM events WHERE type = 'n'", filter=wanted, **ALL)
        made = train.export(lake, asked, home / "text")
        query = "FROM events WHERE type = 'c'"
        chats = train.export(
            lake, recipe("messages", query, shape=shape, filter=wanted, **ALL), home / "chats"
        )
        assert train.rebuild(lake, home / "text").same
    assert made.manifest["losses"] == chats.manifest["losses"] == {"language": 1}
    assert [row["text"] for row in rows(home / "text")] == [GOOD]
    assert "py3langid" in made.manifest["versions"]


def test_a_missing_library_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library of an extra the export says in a sentence which one to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with lake_of(home / "lake", notes(GOOD)) as lake:
        for more, words in (
            ({"filter": {"languages": ["en"]}}, r"pip install 'lakelog\[language\]'"),
            ({"budget": {"tokenizer": "tiktoken:gpt2"}}, r"pip install 'lakelog\[tiktoken\]'"),
            ({"budget": {"tokenizer": "tokenizers:x.json"}}, r"'lakelog\[tokenizers\]'"),
        ):
            with pytest.raises(ExportRefused, match=words):
                train.export(lake, recipe("text", **more, **ALL), home / "out")


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"filter": {"quality": ["gofer"]}}, "did you mean gopher"),
        ({"filter": {"drop": ["langage"]}}, "did you mean language"),
        ({"filter": {"languages": ["English"]}}, "codes such as en"),
        ({"budget": {"tokenizer": "gpt2"}}, "tiktoken:ENCODING or tokenizers:FILE"),
        ({"shape": {"kind": "events"}, "filter": {"quality": ["c4"]}}, r"needs \[shape\] text"),
    ],
)
def test_a_wrong_filter_names_the_key(section: dict[str, Any], words: str) -> None:
    """A name that there is not is a fault of the recipe."""
    with pytest.raises(InvalidRecipe, match=words):
        train.load({**recipe("text"), **section})


def test_tokenizers_count(home: Path) -> None:
    """Tokens are those of the file that the recipe names, on the card and in the budget."""
    need_module("tokenizers")
    saved = {
        "version": "1.0",
        "truncation": {"max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None}
        | {"pad_id": 0, "pad_type_id": 0, "pad_token": "[U]"},
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": {"[U]": 0}, "unk_token": "[U]"},
    }
    (home / "words.json").write_text(json.dumps(saved))
    dice = random.Random(1)
    texts = [f"{n} " + " ".join("abcdefgh"[: dice.randint(1, 8)]) for n in range(40)]
    counts = sorted(len(text.split()) for text in texts)
    name = f"tokenizers:{home}/words.json"
    with lake_of(home / "lake", notes(*texts)) as lake:
        budget = {"tokenizer": name}
        asked = recipe("text", budget=budget, dedupe={"near": False}, **ALL)
        export = train.export(lake, asked, home / "out")
        budget["tokens"] = sum(counts) // 2
        small = train.export(lake, asked, home / "small")
        budget["tokenizer"] = f"tokenizers:{home}/none.json"
        with pytest.raises(ExportRefused, match="on this machine"):
            train.export(lake, asked, home / "no")
    assert export.manifest["splits"]["train"]["tokens"] == sum(counts)
    assert small.manifest["splits"]["train"]["tokens"] <= sum(counts) // 2
    assert (
        f"words.json` of tokenizers {version('tokenizers')}"
        in (home / "out" / "README.md").read_text()
    )
    assert train.check(home / "out").clean


def test_a_learnt_vocabulary_counts_alike_in_both_libraries(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Byte pairs learnt from text are counted whole: a file that says to cut or fill does not."""
    tokenizers = need_module("tokenizers")
    need_module("tiktoken")
    texts = [
        f"{n}: {t}" for n, t in enumerate([*trainsets.texts(60, 5), "naïve 漢字 🙂\n\n  x=1;"])
    ]
    level = tokenizers.pre_tokenizers.ByteLevel
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = level(add_prefix_space=False)
    learner = tokenizers.trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=level.alphabet(), special_tokens=[], show_progress=False
    )
    made.train_from_iterator(texts, learner)
    counts = [len(made.encode(text).ids) for text in texts]
    assert sum(counts) < 0.8 * sum(len(t.encode()) for t in texts)
    _as_encoding(home, made, monkeypatch)
    made.add_special_tokens(["[CLS]"])
    ends = [("[CLS]", made.token_to_id("[CLS]"))]
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [CLS]", special_tokens=ends
    )
    made.enable_truncation(16)
    made.enable_padding(length=64, pad_token="[CLS]")
    made.save(str(home / "tokenizer.json"))
    for name in (f"tokenizers:{home}/tokenizer.json", "tiktoken:learnt"):
        assert tokenizer.load(name).counts([*texts, None]) == [*counts, 0], name


def _as_encoding(home: Path, made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tiktoken have the vocabulary, by a file of ranks as it ships them."""
    from tiktoken import registry

    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]  # as GPT-2 writes bytes
    others = [n for n in range(256) if n not in shown]
    byte = {chr(n): n for n in shown} | {chr(256 + k): n for k, n in enumerate(others)}
    lines = [
        base64.b64encode(bytes(byte[c] for c in text)).decode() + f" {rank}"
        for text, rank in sorted(made.get_vocab().items(), key=lambda pair: pair[1])
    ]
    (home / "learnt.tiktoken").write_text("\n".join(lines))
    (home / "plugin/tiktoken_ext").mkdir(parents=True)
    (home / "plugin/tiktoken_ext/learnt.py").write_text(
        "from tiktoken.load import load_tiktoken_bpe\n"
        "from tiktoken_ext.openai_public import r50k_pat_str\n"
        "def learnt():\n    return dict(name='learnt', pat_str=r50k_pat_str, special_tokens={},\n"
        f"        mergeable_ranks=load_tiktoken_bpe({str(home / 'learnt.tiktoken')!r}))\n"
        "ENCODING_CONSTRUCTORS = {'learnt': learnt}\n"
    )
    monkeypatch.syspath_prepend(home / "plugin")
    monkeypatch.setattr(registry, "ENCODING_CONSTRUCTORS", None)
    registry._available_plugin_modules.cache_clear()
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(home / "cache"))


def test_tiktoken_counts_and_downloads_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoding that is here counts; a vocabulary that is not is refused, not fetched."""
    tiktoken = need_module("tiktoken")
    (home / "plugin" / "tiktoken_ext").mkdir(parents=True)
    (home / "plugin" / "tiktoken_ext" / "letters.py").write_text(
        "def letters():\n    return dict(name='letters', pat_str='.', special_tokens={},\n"
        "        mergeable_ranks={bytes([n]): n for n in range(256)})\n"
        "ENCODING_CONSTRUCTORS = {'letters': letters}\n"
    )
    monkeypatch.syspath_prepend(home / "plugin")
    monkeypatch.setattr(tiktoken.registry, "ENCODING_CONSTRUCTORS", None)
    tiktoken.registry._available_plugin_modules.cache_clear()
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(home / "cache"))
    with lake_of(home / "lake", notes("one", "three")) as lake:
        asked = recipe("text", budget={"tokenizer": "tiktoken:letters"}, **ALL)
        made = train.export(lake, asked, home / "out")
        assert made.manifest["splits"]["train"]["tokens"] == 8
        for name, words in (("o200k_base", "is not on this machine"), ("x", "has no encoding 'x'")):
            asked["budget"]["tokenizer"] = f"tiktoken:{name}"
            with pytest.raises(ExportRefused, match=words):
                train.export(lake, asked, home / "no")
    tiktoken.registry._available_plugin_modules.cache_clear()
    sys.modules.pop("tiktoken_ext.letters", None)


def losses_of(home: Path, kind: str, events: list[dict[str, Any]], **shape: Any) -> Any:
    """What an export of a shape counts as lost, and how many rows it has."""
    name = f"{kind}-{len(shape)}"
    near = {} if kind in ("decision", "sequence") else {"dedupe": {"near": False}}
    with lake_of(home / f"{name}-lake", events) as lake:
        made = train.export(lake, recipe(kind, shape=shape, **near, **ALL), home / name)
    assert train.check(home / name).clean
    return made.manifest["losses"], sum(made.rows.values())


@pytest.mark.thorough
def test_texts_and_pairs_count_what_is_no_row(home: Path) -> None:
    """Events without text, label or two answers are counted by reason, without consent."""
    said = [("a", "x"), ("b", None), (" ", "x"), (None, None)]
    events = [{"type": "n", "message": m, "data": {"label": label}} for m, label in said]
    assert losses_of(home, "text", events) == ({"no_text": 2}, 2)
    with pytest.raises(ExportRefused, match=r"there are rows without text \(2\); rows with a text"):
        losses_of(home, "classification", events, label="data.none", text="message")
    lost = losses_of(home, "classification", events, label="data.label")
    assert lost == ({"no_text": 2, "no_label": 1}, 1)
    pairs = [("p", "1", "2"), ("p", "1", "1"), ("p", None, "2"), (None, "1", "2")]
    events = [{"type": "n", "data": {"p": p, "a": a, "b": b}} for p, a, b in pairs]
    lost = losses_of(
        home, "preference", events, prompt="data.p", chosen="data.a", rejected="data.b"
    )
    assert lost == ({"no_pair": 2, "equal_answers": 1}, 1)
    scored = [("p", "1", 1), ("p", "2", 2), ("q", "1", 1), ("q", "2", 1), ("r", "1", None)]
    events = [{"type": "n", "data": {"p": p, "r": r, "s": s}} for p, r, s in scored]
    shutil.rmtree(home / "preference-3-lake")
    shutil.rmtree(home / "preference-3")
    lost = losses_of(home, "preference", events, prompt="data.p", response="data.r", score="data.s")
    assert lost == ({"no_pair": 1, "equal_answers": 1}, 1)


def test_histories_count_what_is_no_row(home: Path) -> None:
    """Decisions and tokens without subject, choice, outcome or history are counted by reason."""
    acts = [("D", "u", "a"), ("O", "u", None), ("D", "u", None), ("D", None, "a"), ("D", "v", "b")]
    events = [
        {"type": t, "subject": s, "time": f"2026-01-01T00:0{n}:00Z", "data": {"chosen": c}}
        for n, (t, s, c) in enumerate(acts)
    ]
    lost = losses_of(home, "decision", events, decision="D", outcome=["O"], window="1h")
    assert lost == ({"no_subject": 1, "no_choice": 1, "no_outcome_yet": 1}, 1)
    later = {**events[0], "time": "2026-01-01T02:00:00Z"}
    lost = losses_of(home, "sequence", [*events, later], token="data.chosen")
    assert lost == ({"no_subject": 1, "no_token": 2, "no_history": 2}, 1)
