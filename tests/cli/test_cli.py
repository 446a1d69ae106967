"""The command line: every verb does what its help says, and says so in words or in JSON."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import lakelog
from lakelog.cli import MODULES, SECTIONS, app, cli, sample
from lakelog.cli import demo as tour
from lakelog.runtime.tables import ModuleFiles
from tests.support.cli import answer, flip, lines, run, segments
from tests.support.tree import ROOT

VERBS = [verb for verbs in SECTIONS.values() for verb in verbs]
SAMPLE_SHA256 = {
    (1000, 3): "a8844c670d5614f52aa98afca8896b221a9d16ef98190a321fdf27c24f59fa6e",
    (17, 1): "61cbaae64a1070d65df7494d7051bb7004dcff262f470986b44ab57006173edc",
}


# --- help, version, options -----------------------------------------------------------------------


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """A lake with ten published events under the tag v1, and five more in the tail."""
    path = tmp_path / "lake"
    run(path, "append", input=lines(10))
    run(path, "tag", "v1", "-m", "first")
    run(path, "append", input=lines(5, "PONG"))
    return path


def test_help_names_every_verb_and_exit_code(tmp_path: Path) -> None:
    """`lakelog -h` shows each verb in a section, the exit codes and how to write a REF."""
    shown = run(tmp_path, "-h").stdout
    assert all(f"  {verb} " in shown for verb in VERBS)
    assert "seal" not in shown.split()
    assert "3 a check found problems" in shown
    assert "REF~N" in shown


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (("stauts",), 2, "'stats'"),
        (("train", "chek"), 2, "'check'"),
        (("help", "exprot"), 2, "'export'"),
        (("help", "train", "chek"), 2, "'check'"),
        (("sql", "SELECT 1", "--formt", "csv"), 2, "'--format'"),
        (("sql", "SELECT 1", "--format", "jsnol"), 2, "'jsonl'"),
        (("view", "relability"), 2, "'reliability'"),
        (("view", "drop", "slwo"), 2, "'slow'"),
        (("config", "get", "memory"), 2, "'memory_bytes'"),
        (("dedupe", "--by", "tpe"), 2, "'type'"),
        (("diff", "mian"), 1, "'main'"),
        (("tag", "--delete", "relase"), 1, "'release'"),
        (("stats", "--branch", "mian"), 1, "'main'"),
        (("sql", "FROM evnts"), 1, "'events'"),
        (("sql", "FROM relability"), 1, "'reliability'"),
        (("sql", "FROM slwo"), 1, "'slow'"),
        (("sql", 'FROM "relase".events'), 1, "'release'"),
        (("sql", "FROM omega.evnts"), 1, "'events'"),
    ],
)
def test_a_mistyped_name_suggests_the_nearest(
    lake: Path, words: tuple[str, ...], code: int, hint: str
) -> None:
    """Verbs, options, their values, views, refs, settings and tables: one line, one suggestion."""
    run(lake, "view", "create", "slow", "-", input="SELECT type FROM events")
    run(lake, "tag", "release")
    said = run(lake, *words, code=code).stderr
    assert said.count("\n") == 1
    assert said.lower().count("did you mean") == 1
    assert f"id you mean {hint}?" in said


def test_a_table_that_is_like_none_lists_what_there_is(lake: Path) -> None:
    """The engine's own catalog is no suggestion."""
    said = run(lake, "sql", "FROM zzzqqq", code=1).stderr
    assert "pg_" not in said
    assert "`lakelog views`" in said
    assert "data->>'x'" in run(lake, "sql", "SELECT data.x FROM events", code=1).stderr


def test_help_verb_shows_the_help_of_a_verb(tmp_path: Path) -> None:
    """`lakelog help VERB` is `lakelog VERB -h`, also of a verb's own verbs; alone it is `-h`."""
    assert run(tmp_path, "help").stdout == run(tmp_path, "-h").stdout
    assert run(tmp_path, "help", "export").stdout == run(tmp_path, "export", "-h").stdout
    assert run(tmp_path, "help", "train", "check").stdout.startswith("Usage: lakelog train check")


def test_jsonl_is_a_synonym_of_ndjson(lake: Path, tmp_path: Path) -> None:
    """--format jsonl and -o x.jsonl write JSON lines, with sql and with export."""
    assert run(lake, "sql", "SELECT 1 AS a", "--format", "jsonl").stdout == '{"a":1}\n'
    out = tmp_path / "x.jsonl"
    run(lake, "sql", "SELECT 1 AS a", "-o", str(out))
    assert out.read_text() == '{"a":1}\n'
    for words in (("-o", str(out)), ("-o", str(tmp_path / "x.out"), "--format", "jsonl")):
        run(lake, "export", "SELECT 1 AS a", *words)
    assert out.read_text() == '{"a":1}\n'


@pytest.mark.parametrize(
    ("environment", "painted"),
    [({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False), ({}, False)],
)
def test_force_color_paints_a_pipe(lake: Path, environment: dict[str, str], painted: bool) -> None:
    """FORCE_COLOR paints where there is no terminal; NO_COLOR wins over it."""
    said = run(lake, "sql", "SELECT 1 AS a", "--format", "table", env=environment, color=True)
    assert ("\x1b[" in said.stdout) is painted


def test_lakelog_alone_shows_one_line_for_each_verb(tmp_path: Path) -> None:
    """At 80 columns no verb's line is wrapped, and each verb stands under its section."""
    shown = run(tmp_path, "-h").stdout.splitlines()
    assert max(map(len, shown)) <= 80
    for section, verbs in SECTIONS.items():
        start = shown.index(f"{section}:") + 1
        assert [line.split()[0] for line in shown[start : start + len(verbs)]] == list(verbs)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_fits_and_has_examples(tmp_path: Path, verb: str) -> None:
    """Each verb's help fits 80 columns and ends with examples."""
    shown = run(tmp_path, verb, "-h").stdout
    assert max(map(len, shown.splitlines())) <= 80
    summaries = shown.partition("Commands:")[2].partition("Examples:")[0]
    assert "..." not in summaries  # a summary that is cut short
    # Of 80 columns click leaves two free and cuts at 76, but a test's runner gives it 80.
    assert max([0, *map(len, summaries.splitlines())]) <= 76
    assert "lakelog" in shown.split("Examples:")[1]


def test_every_verb_and_no_other_has_examples() -> None:
    """Each verb, and each verb of a group, has its examples; none are of a verb that is gone."""

    def paths(command: click.Command, path: str) -> list[str]:
        below = command.commands.items() if isinstance(command, click.Group) else ()
        return [path, *(found for name, verb in below for found in paths(verb, f"{path} {name}"))]

    context = click.Context(cli)
    commands = [(verb, cli.get_command(context, verb)) for verb in VERBS]
    shared = {"omega rollback", "omega list-revisions", "omega rollout-status"}
    verbs = {path for verb, command in commands if command for path in paths(command, verb)}
    examples = ModuleFiles(app.__file__).tables("examples.toml")
    assert verbs - shared == set(examples)
    too_long = [line for text in examples.values() for line in text.splitlines() if len(line) > 76]
    assert too_long == []  # four columns are in front of each


def test_examples_mean_the_same_to_a_shell() -> None:
    """A variable of a query is not one of the shell, and no option is a command of its own."""
    for verb, text in ModuleFiles(app.__file__).tables("examples.toml").items():
        assert not re.search(r"[^\\]\n *--", text), verb
        # Single quotes first, so that those within double ones are a part of these.
        for quoted in re.findall(r"""'[^']*'|"(?:\\.|[^"\\])*\"""", text):
            assert quoted[0] == "'" or not re.search(r"[^\\]\$\w", quoted), verb


def test_the_version_is_the_package_s(lake: Path) -> None:
    """`--version` prints one line; a LAKELOG_VERSION of somebody else does not ask for it."""
    assert run(lake, "--version").stdout == f"lakelog {lakelog.__version__}\n"
    assert run(lake, "config", "get", "seal", env={"LAKELOG_VERSION": "7"}).stdout == "auto\n"


def test_every_verb_loads_under_its_own_name() -> None:
    """What the table of verbs names is a command in that module."""
    context = click.Context(cli)
    for verb in MODULES:
        assert isinstance(cli.get_command(context, verb), click.Command)  # type: ignore[attr-defined]


def test_global_options_may_follow_the_verb(lake: Path) -> None:
    """--lake, --branch, -q and -v are understood after the verb as well."""
    result = CliRunner().invoke(cli, ["stats", "--lake", str(lake), "--json"])
    assert json.loads(result.stdout)["path"] == str(lake)
    assert "no branch 'x'" in run(lake, "log", "--branch", "x", code=1).stderr
    assert run(lake, "snapshot", "-q").stderr == ""


def test_options_come_from_the_environment(lake: Path) -> None:
    """LAKELOG_LAKE names the lake, LAKELOG_SQL_FORMAT the format of sql."""
    environment = {"LAKELOG_LAKE": str(lake), "LAKELOG_SQL_FORMAT": "csv"}
    result = CliRunner().invoke(cli, ["sql", "SELECT count(*) AS n FROM events"], env=environment)
    assert result.stdout_bytes == b"n\r\n15\r\n"


def test_python_m_lakelog_is_the_command_line(lake: Path) -> None:
    """`python -m lakelog` runs it, too."""
    command = [sys.executable, "-m", "lakelog", "--lake", str(lake), "config", "get", "seal"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stdout, done.stderr) == (0, "auto\n", "")


# --- init, config ---------------------------------------------------------------------------------


def test_init_makes_a_lake_with_settings(tmp_path: Path) -> None:
    """init takes settings as people write them; the directory may follow the verb."""
    said = run(tmp_path / "a", "init", "--setting", "rotate_bytes=2MB", "--setting", "seal=never")
    assert said.stderr == f"created a lake at {tmp_path / 'a'}\n"
    assert run(tmp_path / "a", "config", "get", "rotate_bytes").stdout == "2000000\n"
    run(tmp_path / "a", "init", str(tmp_path / "b"))
    assert run(tmp_path / "b", "config", "get", "seal").stdout == "auto\n"


def test_config_shows_and_sets(lake: Path) -> None:
    """config lists value, default and meaning of all settings; set changes some."""
    rows = {row["setting"]: row for row in answer(lake, "config")}
    assert rows["gc_grace_hours"]["meaning"].startswith("How long a file stays")
    assert rows["seal"]["value"] == rows["seal"]["default"] == "auto"
    run(lake, "config", "set", "seal=inline", "threads=2")
    assert run(lake, "config", "get", "seal").stdout == "inline\n"
    shown = run(lake, "config", "--format", "table").stdout
    assert "(default auto)" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_config_without_a_lake_shows_the_defaults(tmp_path: Path) -> None:
    """Where there is no lake, config says so and shows the defaults."""
    shown = run(tmp_path / "none", "config")
    assert "these are the defaults" in shown.stderr
    assert len(shown.stdout.splitlines()) == len(lakelog.Settings.__dataclass_fields__)


# --- stats, log, show, diff -----------------------------------------------------------------------


def test_stats_counts_what_is_published_and_pending(lake: Path) -> None:
    """stats gives the numbers of the branch, with times as ISO 8601, and a panel for people."""
    numbers = answer(lake, "stats")
    assert (numbers["events"], numbers["pending"], numbers["types"]) == (10, 5, {"PING": 10})
    assert numbers["snapshot_time"].endswith("Z")
    panel = run(lake, "stats", "--format", "table").stdout
    assert "10 in 1 segment; 5 more in the tail" in panel
    assert max(map(len, panel.splitlines()[1:])) <= 80
    assert answer(lake, "stats", "--at", "main@1")["events"] == 0


def test_stats_say_which_events_they_do_not_list(lake: Path) -> None:
    """Shares are of all events, though segments with many sources do not count each of them."""
    with lakelog.open(str(lake)) as opened:
        opened.append(
            [{"type": "PING", "source": f"s{n}"} for n in range(1_500)]
        )  # with the 5 before
        opened.settle()
        opened.append([{"type": "PING", "source": "few"}] * 5)
        opened.settle()
    panel = run(lake, "stats", "--format", "table").stdout
    (few,) = (line.split() for line in panel.splitlines() if line.split()[:1] == ["few"])
    assert few[1:3] == ["5", "0.3%"]
    assert "  1,505 events more, of too many sources to list" in panel
    assert "types to list" not in panel


def test_stats_columns_add_up_to_the_segments(lake: Path) -> None:
    """stats --columns accounts for every byte of the segments."""
    rows = answer(lake, "stats", "--columns")
    *parts, whole = rows
    assert whole["column"] == "all"
    assert sum(p["bytes"] for p in parts) == whole["bytes"] == segments(lake)[0].stat().st_size
    assert "bytes/event" in run(lake, "stats", "--columns", "--format", "table").stdout


def test_log_lists_moves_newest_first(lake: Path) -> None:
    """log gives number, time, op, events, tags and author of each move."""
    moves = answer(lake, "log")
    assert [m["op"] for m in moves] == ["seal", "init"]
    assert (moves[0]["events"], moves[0]["tags"], moves[0]["author"]) == (10, ["v1"], "tester")
    assert [m["move"] for m in answer(lake, "log", "-n", "1")] == [2]
    assert "[v1]" in run(lake, "log", "--format", "table").stdout


def test_show_describes_one_state(lake: Path) -> None:
    """show gives a state by any spelling of a REF, the branch's head without one."""
    state = answer(lake, "show", "v1")
    assert (state["events"], state["types"], state["tags"]) == (10, {"PING": 10}, ["v1"])
    for ref in ("main", "@2", "main@2", state["id"][:8]):
        assert answer(lake, "show", ref)["id"] == state["id"]
    assert answer(lake, "show", "v1~1")["events"] == 0
    shown = run(lake, "show", "--format", "table").stdout
    assert shown.startswith(f"snapshot {state['id']}\n")


def test_diff_counts_what_separates_two_states(lake: Path) -> None:
    """diff settles the branch, counts events by type, and exits with 3 only when asked to."""
    found = answer(lake, "diff", "v1")
    assert (found["events"], found["types"], found["differs"]) == (5, {"PONG": 5}, True)
    assert [len(found["added"]), len(found["removed"])] == [1, 0]
    run(lake, "diff", "v1", "main", "--exit-code", code=3)
    run(lake, "diff", "v1", "v1", "--exit-code", code=0)
    shown = run(lake, "diff", "v1", "--format", "table").stdout
    assert "+5" in shown
    assert "the two states are equal" in run(lake, "diff", "v1", "v1", "--format", "table").stdout


@pytest.mark.parametrize(
    ("form", "expected"),
    [("table", "no rows"), ("csv", ""), ("ndjson", ""), ("json", "[]"), ("md", ""), ("html", "")],
)
@pytest.mark.parametrize(
    "words",
    [("alerts", "list"), ("subscriptions", "list"), ("stream", "s"), ("erase", "list"), ("tag",)],
    ids=" ".join,
)
def test_a_new_lake_has_empty_lists(
    tmp_path: Path, words: tuple[str, ...], form: str, expected: str
) -> None:
    """Verbs that list something say that there is none, in every format."""
    run(tmp_path / "lake", "init")
    result = run(tmp_path / "lake", *words, "--format", form)
    assert expected in result.output
    assert '""' not in result.stdout
    assert "columns shown" not in result.output


# --- snapshot, tag, branch, rollback, undo --------------------------------------------------------


def test_snapshot_records_a_message(lake: Path) -> None:
    """snapshot publishes what is pending and keeps the message in the log."""
    assert answer(lake, "snapshot", "-m", "before the import")["events"] == 15
    assert answer(lake, "log", "-n", "1")[0]["message"] == "before the import"


def test_tags_are_made_listed_and_deleted(lake: Path) -> None:
    """A tag names a state for good, is listed with its message, and can be removed."""
    run(lake, "tag", "first", "main@1")
    listed = {t["tag"]: t for t in answer(lake, "tag", "--list")}
    assert listed.keys() == {"first", "v1"}
    assert (listed["v1"]["message"], listed["v1"]["author"]) == ("first", "tester")
    said = run(lake, "tag", "--delete", "first").stderr
    assert said.startswith("deleted tag first; `lakelog tag first ")
    assert [t["tag"] for t in answer(lake, "tag")] == ["v1"]
    assert "exists" in run(lake, "tag", "v1", code=1).stderr


def test_what_takes_a_deletion_back_can_be_typed(lake: Path) -> None:
    """Also of a name with a blank, which a shell takes for two."""
    run(lake, "tag", "a b")
    run(lake, "branch", "c d")
    for verb, name in (("tag", "a b"), ("branch", "c d")):
        said = run(lake, verb, "--delete", name).stderr
        command = re.findall("`lakelog (.*)`", said)[0].replace("@N", "@1")
        run(lake, *shlex.split(command))
        assert name in {row[verb] for row in answer(lake, verb)}


def test_branches_have_events_of_their_own(lake: Path) -> None:
    """A branch starts at a state, takes its own events, and can be ended but not sawn off."""
    run(lake, "branch", "try", "v1")
    run(lake, "--branch", "try", "append", input=lines(2))
    count = "SELECT count(*) AS n FROM events"
    assert answer(lake, "--branch", "try", "sql", count) == [{"n": 12}]
    assert answer(lake, "sql", count) == [{"n": 15}]
    assert [b["branch"] for b in answer(lake, "branch")] == ["main", "try"]
    assert "in use" in run(lake, "branch", "--delete", "main", code=1).stderr
    run(lake, "branch", "-d", "try")
    assert [b["branch"] for b in answer(lake, "branch", "--list")] == ["main"]
    assert "exists" in run(lake, "branch", "main", code=1).stderr


def test_rollback_goes_back_and_undo_returns(lake: Path) -> None:
    """rollback and undo say where the branch is now; nothing is lost."""
    assert answer(lake, "rollback", "v1", "--verify")["events"] == 10
    assert "5" in run(lake, "undo").stderr
    assert answer(lake, "sql", "SELECT count(*) AS n FROM events") == [{"n": 15}]
    assert "10 events (was 15)" in run(lake, "rollback", "@2", "--keep-cursors").stderr


def test_undo_asks_what_becomes_of_later_events(lake: Path) -> None:
    """undo refuses to drop later events unless forced or told where to keep them."""
    run(lake, "rollback", "v1")
    run(lake, "append", input=lines(3))
    assert "--to-branch" in run(lake, "undo", code=1).stderr
    assert answer(lake, "undo", "--to-branch", "rescued")["events"] == 15
    assert answer(lake, "--branch", "rescued", "show")["events"] == 13
    run(lake, "append", input=lines(1))
    assert answer(lake, "undo", "--force")["events"] == 13


# --- verify, repair, compact, gc, retention -------------------------------------------------------


def test_verify_names_the_damaged_file(lake: Path) -> None:
    """verify exits with 0 on an intact lake and with 3 naming a damaged file inside it."""
    assert answer(lake, "verify")["intact"] is True
    assert answer(lake, "verify", "v1")["intact"] is True
    flip(segments(lake)[0])
    report = answer(lake, "verify", code=3)
    inside = str(segments(lake)[0].relative_to(lake))
    assert (report["intact"], report["problems"][0]["path"]) == (False, inside)
    shown = run(lake, "verify", "--format", "table", code=3).stdout
    assert inside in shown
    assert max(map(len, shown.splitlines())) <= len(inside) + 3
    run(lake, "verify", "v1", code=3)


def test_repair_fetches_from_a_copy(lake: Path, tmp_path: Path) -> None:
    """repair --from takes the damaged file from an intact copy; then verify is content."""
    run(lake, "snapshot")
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", str(lake), str(copy)], check=True)
    flip(segments(lake)[0])
    assert answer(lake, "repair", "--dry-run", code=3)["intact"] is False
    done = answer(lake, "repair", "--from", str(copy), "--yes")
    assert (len(done["fetched"]), done["lost"], done["after"]["intact"]) == (1, [], True)
    run(lake, "verify")


def test_repair_lists_what_is_lost(lake: Path) -> None:
    """Without a copy repair sets the file aside and says which events are gone."""
    run(lake, "snapshot")
    flip(segments(lake)[0])
    said = run(lake, "repair", "--yes", "--format", "table")
    assert "cache/damaged" in said.stdout
    assert "events of segment" in said.stdout
    assert answer(lake, "sql", "SELECT count(*) AS n FROM events")[0]["n"] in (5, 10)


def test_verify_repair_mends_at_once(lake: Path) -> None:
    """verify --repair --yes repairs what it found and then exits with 0."""
    flip(segments(lake)[0])
    run(lake, "verify", "--repair", "--yes")
    run(lake, "verify")


def test_repair_leaves_an_intact_lake_alone(lake: Path) -> None:
    """On an intact lake repair changes nothing and asks nothing."""
    before = answer(lake, "log")
    assert answer(lake, "repair")["intact"] is True
    assert answer(lake, "log") == before


def test_compact_merges_segments(lake: Path) -> None:
    """compact publishes the tail and merges; no event changes."""
    assert answer(lake, "compact")["added"] == 1
    assert answer(lake, "stats")["segments"] == 1
    assert run(lake, "compact", "--format", "table").stdout == "nothing to merge\n"
    assert answer(lake, "compact", "--smallest")["added"] == 1
    assert answer(lake, "sql", "SELECT count(*) AS n FROM events") == [{"n": 15}]


def test_gc_deletes_only_what_nothing_needs(lake: Path) -> None:
    """gc finds nothing on a fresh lake; what a killed process left goes after the grace."""
    run(lake, "config", "set", "gc_grace_hours=0")
    assert answer(lake, "gc")["deleted"] == 0
    (lake / "segments" / "00").mkdir(exist_ok=True)
    left = lake / "segments" / "00" / ".tmp-0123456789abcdef"
    left.write_bytes(b"left")
    os.utime(left, (0, 0))
    would = answer(lake, "gc", "--dry-run")
    assert (would["deleted"], would["dry_run"]) == (1, True)
    assert "would delete 1 file" in run(lake, "gc", "--dry-run", "--format", "table").stdout
    assert answer(lake, "gc", "--yes")["deleted"] == 1


def test_retention_removes_what_was_just_appended(tmp_path: Path) -> None:
    """Old events that are not published yet go with the others."""
    lake = tmp_path / "lake"
    with lakelog.open(str(lake), settings={"seal": "never"}) as opened:
        opened.append({"type": "A", "time": "2001-01-01T00:00:00Z"})
        opened.append({"type": "B"})
    done = answer(lake, "retention", "--older-than", "30d", "--apply", "--yes")
    assert done["events"] == 1
    assert answer(lake, "sql", "SELECT list(type) AS types FROM events") == [{"types": ["B"]}]


def test_retention_says_before_it_does(tmp_path: Path) -> None:
    """retention only counts without --apply; with it the events go, and undo brings them back."""
    lake = tmp_path / "lake"
    run(lake, "append", input=lines(4, time="2020-01-01") + lines(2))
    run(lake, "snapshot")
    would = answer(lake, "retention", "--older-than", "30d")
    assert (would["events"] >= 4, would["applied"]) == (True, False)
    done = answer(lake, "retention", "--older-than", "30d", "--apply", "--yes")
    assert (done["events"], done["applied"]) == (4, True)
    assert answer(lake, "show")["events"] == 2
    assert answer(lake, "undo")["events"] == 6
    assert "no event" in run(lake, "retention", "--older-than", "999w", "--format", "table").stdout


# --- doctor, seal, demo ---------------------------------------------------------------------------


def test_doctor_looks_at_everything(lake: Path) -> None:
    """doctor checks the machine and the lake, and warns of what was set aside."""
    (lake / "cache" / "cut").mkdir()
    (lake / "cache" / "cut" / "frame").write_bytes(b"torn")
    states = {check["check"]: check["state"] for check in answer(lake, "doctor")}
    assert states.keys() == {
        *("python", "lakelog", "libraries", "lake", "disk", "head", "tail", "kept", "hints"),
        *("rollback", "clock"),
    }
    assert states["kept"] == "warning"
    assert {*states.values()} == {"OK", "warning"}
    shown = run(lake, "doctor", "--format", "table").stdout
    assert max(map(len, shown.splitlines())) <= 80


def test_doctor_needs_no_lake(tmp_path: Path) -> None:
    """Without a lake doctor checks the machine alone and is content."""
    assert "only the machine" in run(tmp_path / "none", "doctor").stdout


def test_doctor_fails_on_an_unreadable_head(lake: Path) -> None:
    """A head that cannot be read is a failed check and exit code 1, not an exception."""
    for move in lake.glob("refs/heads/main/*.json"):
        move.write_bytes(b"{}")
    states = {c["check"]: c["state"] for c in answer(lake, "doctor", code=1)}
    assert states["head"] == "failed"


def test_seal_publishes_quietly(lake: Path) -> None:
    """The hidden verb publishes the tail, says nothing, and exits with 0 even without a lake."""
    for path, words in ((lake, ["--branch", "main"]), (lake / "none", [])):
        # A process of its own, as it gives way to all others.
        command = [sys.executable, "-m", "lakelog", "--lake", str(path), "seal", *words]
        done = subprocess.run(command, capture_output=True, timeout=240, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert answer(lake, "stats")["pending"] == 0


@pytest.mark.parametrize(("count", "seed"), SAMPLE_SHA256)
def test_the_sample_is_the_same_bytes(tmp_path: Path, count: int, seed: int) -> None:
    """The sample's bytes depend on count and seed alone, from the package and from the script."""
    text = "".join(sample.lines(count, seed))
    assert hashlib.sha256(text.encode()).hexdigest() == SAMPLE_SHA256[count, seed]
    path = tmp_path / "sample.jsonl"
    script = [sys.executable, ROOT / "data" / "generate.py", f"--events={count}", f"--seed={seed}"]
    subprocess.run([*script, path], cwd=tmp_path, check=True, timeout=240)
    assert path.read_text() == text


@pytest.mark.thorough
@pytest.mark.parametrize("is_given", [True, False])
def test_demo_takes_the_whole_tour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_given: bool
) -> None:
    """demo appends, asks, goes back, finds the flipped bit, trains, erases, and keeps the lake."""
    monkeypatch.setattr(tour, "_SECONDS", 0.5)
    monkeypatch.setattr(tour, "EVENTS", 600)
    path = tmp_path / "events.jsonl"
    path.write_text("".join(sample.lines(600, 1)) + "not json\n")
    lake, given = tmp_path / "kept", ["--sample", str(path)] if is_given else []
    shown = run(tmp_path, "demo", *given, "--lake", str(lake)).stdout
    assert "the content does not match its name" in shown
    assert "$ lakelog rollback before --verify" in shown
    assert "each is stored exactly once" in shown
    assert "no leak found" in shown
    assert "done (asked on 3 May)" in shown
    subject = shown.split("erase --subject ")[1].split()[0]
    kept = answer(lake, "sql", f"SELECT count(*) AS n FROM events WHERE subject = '{subject}'")
    assert kept == [{"n": 0}]
    # Its own sample ends now, so that the last hours of a dashboard have events.
    latest = "SELECT count(*) AS n FROM events WHERE time > now() - INTERVAL 1 DAY"
    [row] = answer(lake, "sql", f"{latest} AND type NOT LIKE 'lakelog.%'")
    assert (row["n"] > 50) is not is_given
    # Others name the state before the rollback, and what the training set was made of.
    assert "before" in [t["tag"] for t in answer(lake, "tag")]
    assert "choose another" in run(tmp_path, "demo", "--lake", str(lake), code=2).stderr
