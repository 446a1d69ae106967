"""The dashboard in a real browser: what an operator does, with hostile events all over the lake.

Needs the package playwright, which is not in the extra `dev` (it brings 120 MB), and chromium.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

import lakelog
from tests.support.cli import run
from tests.support.dashboard_day import watched
from tests.support.http_lake import JSON_LINES, HttpLake, lines, serving
from tests.support.requirements import need, need_module

HOSTILE = [
    "<script>window.attacked=1</script>",
    "<img src=x onerror=window.attacked=1>",
    "javascript:window.attacked=1",
    "\u202eevil\u202c",
    "\x1b[31mred\x1b[0m",
    "'\"`${window.attacked=1}</textarea>",
    "<svg/onload=window.attacked=1>",
    "<svg><script href=data:,window.attacked=1 /></svg>",
    "<iframe srcdoc='<script>parent.attacked=1</script>'>",
    "<math><mtext><style><img src=x onerror=window.attacked=1></style></mtext></math>",
    "</title></script><script>window.attacked=1</script>",
    '"><a href=javascript:window.attacked=1 autofocus onfocus=window.attacked=1>',
    "{{constructor.constructor('window.attacked=1')()}}",
    "<%= window.attacked=1 %> #{window.attacked=1}",
    "data:text/html,<script>opener.attacked=1</script>",
    "<style>*{background:url(//example.org/x)}</style>",
    "<link rel=stylesheet href=//example.org/x><base href=//example.org>",
    "\u2066\u2067right\u2069 to left\u2069\u200b\u200f",
    "\x1b]8;;javascript:window.attacked=1\x07link\x1b]8;;\x07\x9b2J",
    "constructor",
    "%00%0d%0aSet-Cookie: a=b",
    "__proto__",
    "x" * 1_000_000,
]
PAGES = "overview explore traces patterns history sources sql alerts settings".split()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpLake]:
    need("chromium")
    need_module("playwright")
    path = tmp_path_factory.mktemp("browsed") / "lake"
    now = datetime.now(UTC)
    with lakelog.open(path) as lake:
        lake.append(
            [
                {
                    "type": "log",
                    "source": f"s{number % 3}",
                    "level": ["INFO", "WARN", "ERROR"][number % 3],
                    "message": f"event number {number}",
                    "time": now - timedelta(minutes=number),
                    "data": {"n": number, "traceId": f"{number % 9:032x}"},
                }
                for number in range(1, 600)
            ]
        )
        lake.tag("v1", message=HOSTILE[0])
        lake.append(
            [
                {
                    **dict.fromkeys(("type", "source", "category", "subject"), text[:200]),
                    "message": text,
                    "level": "ERROR",
                    "time": now - timedelta(hours=20, seconds=number),
                    "data": {
                        text[:90]: text,
                        "traceId": "ff" * 16,
                        "name": text,
                        "error": text,
                        "attributes": {"session.id": text, "gen_ai.prompt": text},
                    },
                }
                for number, text in enumerate(HOSTILE)
            ]
        )
        lake.append(
            [
                {"type": name, "source": text[:200], "subject": text[:200], "message": text}
                for text in HOSTILE
                for name in ("FAIL", "ANOMALY", "PATTERN_DETECTED")
            ]
        )
        lake.quarantine([(text[:90], 1, text[:90], text) for text in HOSTILE])
        lake.snapshot(HOSTILE[1])
    with serving(path) as served:
        yield served


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = need("chromium")
    api = need_module("playwright.sync_api")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


def until(page: Any, condition: str) -> None:
    """Wait until a condition of JavaScript holds. Playwright's own way needs `unsafe-eval`."""
    for _ in range(200):
        if page.evaluate(f"Boolean({condition})"):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"not within 10 s: {condition}")


def followed(response: Any) -> bool:
    """Whether an answer is the beginning of the live tail."""
    return "/tail" in response.url and bool(response.ok)


class Tab:
    """A tab with the dashboard, and everything that went wrong in it."""

    def __init__(self, browser: Any, server: HttpLake, width: int = 1280) -> None:
        self.address = f"http://127.0.0.1:{server.port}/"
        self.page = browser.new_page(viewport={"width": width, "height": 800})
        self.faults: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", self._console)
        self.page.on("request", self._request)
        self.page.add_init_script(
            "window.violations = []; document.addEventListener('securitypolicyviolation',"
            " (event) => violations.push(event.violatedDirective));"
        )

    def _console(self, message: Any) -> None:
        if message.type == "error":
            self.faults.append(message.text)

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.address, "data:", "blob:")):
            self.faults.append(f"asks {request.url}")

    def open(self, name: str, ready: str = "main h1, main h2") -> Any:
        self.page.goto("about:blank")
        self.page.goto(f"{self.address}#/{name}")
        self.page.wait_for_selector(ready, state="attached")
        return self.page

    def close(self) -> list[str]:
        """Close it; return what went wrong."""
        self.faults += self.page.evaluate("[...violations, ...(window.attacked ? ['run'] : [])]")
        self.page.close()
        return self.faults


@pytest.fixture
def tab(browser: Any, server: HttpLake) -> Iterator[Tab]:
    each = Tab(browser, server)
    yield each
    assert each.close() == []


@pytest.mark.parametrize("width", [380, pytest.param(1280, marks=pytest.mark.thorough)])
def test_every_page_shows_hostile_events_as_text(
    browser: Any, server: HttpLake, width: int
) -> None:
    tab = Tab(browser, server, width)
    shown = "explore?q=attacked traces?sessions=1 sources?tab=files sources?tab=quarantine"
    past = "overview?at=v1 explore?at=v1 patterns?new=v1 history?a=v1&b=main"
    for name in [*PAGES, *shown.split(), *past.split(), f"traces?id={'ff' * 16}"]:
        page = tab.open(name)
        until(page, "!document.querySelector('[aria-busy]')")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        assert page.locator(".fault").count() == 0, name
    assert tab.close() == []


@pytest.mark.parametrize("name", ["overview", "explore"])
def test_long_names_leave_their_counts_in_sight(tab: Tab, name: str) -> None:
    """A type or source of 200 characters is cut short, and pushes no number out of its box."""
    page = tab.open(name, ".bars .num, .facet .num")
    until(page, "!document.querySelector('[aria-busy]')")
    outside = """() => [...document.querySelectorAll(".bars .num, .facet .num, dd")].filter(
        (each) => each.getBoundingClientRect().right >
        each.closest(".block, .facets, dl").getBoundingClientRect().right + 1).length"""
    assert page.evaluate(outside) == 0


def test_the_narrowest_telephone_shows_the_way_to_each_page(tab: Tab) -> None:
    """Nine pages at 320 pixels: one that has to be scrolled to is found by nobody."""
    page = tab.open("settings")
    page.set_viewport_size({"width": 320, "height": 640})
    ends = "[...document.querySelectorAll('#rail a')].map((a) => a.getBoundingClientRect().right)"
    assert max(page.evaluate(ends)) <= 320


def test_a_first_page_asks_each_question_once(tab: Tab) -> None:
    """A question that is asked again, with another range, makes whoever opens the page wait."""
    asked: list[str] = []
    tab.page.on("request", lambda r: asked.extend(re.findall(r"/api/(\w+)", r.url)))
    page = tab.open("overview", ".latest-row")
    until(page, "!document.querySelector('[aria-busy]')")
    names = ["about", "counts", "events", "machine", "overview", "standing", "storage"]
    assert (asked[0], sorted(asked)) == ("about", names)


def test_a_search_a_row_and_a_filter_are_in_the_address(tab: Tab) -> None:
    page = tab.open("explore", ".event-row")
    page.keyboard.press("/")
    page.keyboard.type("number level:=WARN")
    page.keyboard.press("Enter")
    until(page, "document.querySelector('.explore-head').textContent.includes('200')")
    page.wait_for_selector(".event-row mark")  # the rows come by another request than their count
    page.locator(".event-rows").focus()
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_selector("#panel .leaf")
    assert "level" in page.inner_text("#panel")
    page.locator("#panel .leaf", has_text="source").get_by_label("Filter for").click()
    until(page, "location.hash.includes('source')")
    page.reload()
    page.wait_for_selector(".event-row")
    assert page.input_value("#top input[type=search]") == 'number level:=WARN source:="s1"'
    page.keyboard.press("Escape")
    assert page.locator("#panel").is_hidden()


def test_a_drag_sets_the_range_and_a_double_click_takes_it_back(tab: Tab) -> None:
    page = tab.open("explore", ".u-over")
    box = page.locator(".u-over").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 200, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 500, middle, steps=4)
    page.mouse.up()
    until(page, "location.hash.includes('since=')")
    page.wait_for_selector(".u-over")
    page.locator(".u-over").dblclick()
    until(page, "!location.hash.includes('since=')")


@pytest.mark.parametrize(
    ("zone", "asked"), [("", "2026-11-20T08:00:00.000Z"), ("local", "2026-11-20T07:00:00.000Z")]
)
def test_a_range_is_typed_and_named_in_the_zone_of_the_page(
    browser: Any, server: HttpLake, zone: str, asked: str
) -> None:
    """Wherever the browser is; a link without a zone means UTC, as the server reads it."""
    page = browser.new_context(timezone_id="Europe/Berlin").new_page()
    page.goto(f"http://127.0.0.1:{server.port}/#/explore?tz={zone}&since=2026-11-19T07:00")
    shown = page.get_by_title("Range of time")
    page.wait_for_selector(".event-row")
    assert f"26-11-19 {'08' if zone else '07'}:00:00" in shown.inner_text()
    shown.click()
    page.get_by_label("From", exact=True).fill("2026-11-20T08:00")
    page.get_by_role("button", name="Set", exact=True).click()
    until(page, f"decodeURIComponent(location.hash).includes('since={asked}')")
    until(page, "document.querySelector('#top').textContent.includes('26-11-20 08:00:00')")
    query = "SELECT TIMESTAMP '2026-11-20 07:30' + INTERVAL (n) HOUR AS t, n FROM range(3) r(n)"
    page.goto(f"http://127.0.0.1:{server.port}/#/sql?{urlencode({'sql': query, 'tz': zone})}")
    label = f"Plot of n from 2026-11-20 {'08' if zone else '07'}:30:00"
    until(page, f"document.querySelector('[aria-label^=\"{label}\"]')")
    page.context.close()


def test_numbers_have_three_digits_and_a_unit(tab: Tab) -> None:
    """Also those that are rounded up to the next unit."""
    page = tab.open("settings")
    words = """async () => {
        const { bytes, count } = await import("/dashboard/format.js");
        const numbers = [999, 12_345, 999_499, 999_500, 999_999, 1_000_000, 999_999_999];
        return [numbers.map(count), numbers.map(bytes)];
    }"""
    assert page.evaluate(words) == [
        ["999", "12.3 k", "999 k", "1 M", "1 M", "1 M", "1 G"],
        ["999 B", "12.3 kB", "999 kB", "1.00 MB", "1.00 MB", "1.00 MB", "1.00 GB"],
    ]


def test_times_have_their_microseconds_in_every_year(tab: Tab) -> None:
    words = """async () => {
        const { fullTime, isoOf } = await import("/dashboard/format.js");
        return [isoOf(-0.001), isoOf(1.5), isoOf(2), isoOf(1e15), fullTime(-0.001)];
    }"""
    assert tab.open("settings").evaluate(words) == [
        "1969-12-31T23:59:59.999999Z",
        "1970-01-01T00:00:00.001500Z",
        "1970-01-01T00:00:00.002Z",
        "9999-12-31T23:59:59.999Z",
        "1969-12-31 23:59:59.999999 UTC",
    ]


def test_values_are_shown_and_searched_for_as_they_were_sent(tab: Tab, server: HttpLake) -> None:
    """JavaScript has numbers of 16 digits, and `id` is a column, too."""
    data = {"id": 2**53 + 1, "http.route": "/x", "list": [2**63 - 1], "tiny": 1e-9, "wide": 10**30}
    server.ask("/ingest", lines({"type": "exact", "source": "a  b", "data": data}), JSON_LINES)
    page = tab.open('explore?q=source:="a%20%20b"', ".event-row")
    page.click(".event-row")
    page.wait_for_selector("#panel .tree[aria-label=data] .leaf")
    shown = page.locator("#panel .tree[aria-label=data] .leaf-value").all_inner_texts()
    assert shown == [str(2**53 + 1), "/x", str(2**63 - 1), "1e-9", str(10**30)]
    for name, term in [("data.id", f'data.id:="{2**53 + 1}"'), ("http.route", 'http.route:="/x"')]:
        page.get_by_label(f"Filter for: {name}").click()
        until(page, f"decodeURIComponent(location.hash).includes('{term}')")
        until(page, "document.querySelectorAll('.event-row').length === 1")
        page.click(".event-row")
        page.wait_for_selector("#panel .tree[aria-label=data] .leaf")
    query = f"SELECT {2**53 + 1} AS a, 1e-9 AS b, [{2**53 + 1}] AS c, 1234.5 AS d"
    page = tab.open("sql?" + urlencode({"sql": query}), ".sql-result td")
    cells = page.locator(".sql-result td").all_inner_texts()
    assert cells == [str(2**53 + 1), "1e-9", f"[{2**53 + 1}]", "1,234.5"]


def test_a_number_that_javascript_has_is_one(tab: Tab) -> None:
    """However it is written: others cannot be added, or rounded."""
    words = """async () => {
        const { parsed } = await import("/dashboard/api.js");
        const texts = ["1.2345678901234568e-5", "1.5000000000000000", "-1.2345678901234568e16",
            "9007199254740993", "0.12345678901234567890123"];
        return texts.map((text) => typeof parsed(text));
    }"""
    kinds = ["number", "number", "number", "object", "object"]
    assert tab.open("settings").evaluate(words) == kinds


def test_rows_that_arrive_have_the_columns_of_those_in_the_list(tab: Tab, server: HttpLake) -> None:
    names = ["big", "deep", "ok", "http.route", "id", "data.id"]
    page = tab.open(f"explore?q=columned&cols={','.join(names)}", "main h2")
    page.wait_for_timeout(700)
    data = {"pad": "x" * 400, "deep": {"a": [1]}, "ok": False, "http.route": "/x", "id": 7}
    event = {"type": "log", "message": "columned", "data": {**data, "big": 2**63}}
    server.ask("/ingest", lines(event), JSON_LINES)
    expected = [str(2**63), '{"a":[1]}', "false", "/x", "", "7"]
    for _ in range(2):
        page.wait_for_selector(".event-row")
        assert page.locator(".event-row .c-more").all_inner_texts() == expected
        page.reload()


def test_a_filter_for_a_text_that_a_list_cuts_finds_it(tab: Tab, server: HttpLake) -> None:
    message = " ".join(f"word{number}(😀);" for number in range(60))
    events = [{"type": "lengthy", "message": each} for each in (message, "another")]
    server.ask("/ingest", lines(*events), JSON_LINES)
    page = tab.open("explore?q=type:lengthy", ".event-row")
    page.get_by_label("Statistics of a field").fill("message")
    page.get_by_role("button", name="Statistics", exact=True).click()
    page.locator("#panel .facet-value", has_text="word0").click()
    until(page, "document.querySelectorAll('.event-row').length === 1")


def test_a_term_takes_the_place_of_its_opposite_alone(tab: Tab) -> None:
    words = """async () => {
        const { withTerm } = await import("/dashboard/query.js");
        const at = 'source:="a"';
        return [withTerm(`x -${at}`, at), withTerm(`data.${at} ${at}`, `-${at}`),
            withTerm('source:="a  b"', at), withTerm(`x  ${at}`, at)];
    }"""
    assert tab.open("settings").evaluate(words) == [
        'x source:="a"',
        'data.source:="a" -source:="a"',
        'source:="a  b" source:="a"',
        'x  source:="a"',
    ]


def test_a_past_state_is_shown_alone_and_named(tab: Tab) -> None:
    page = tab.open("explore?q=number", ".event-row")
    page.get_by_role("button", name="Live", exact=True).first.click()
    page.get_by_role("button", name="v1").click()
    page.wait_for_selector("#top.past")
    assert "as of v1" in page.inner_text("#top")
    until(page, "document.querySelector('.explore-head').textContent.includes('599')")
    page.get_by_text("back to live").click()
    page.wait_for_selector("#top:not(.past)")


def test_rows_arrive_but_not_below_the_pointer(tab: Tab, server: HttpLake) -> None:
    page = tab.open("explore?q=arrives", "main h2")

    def send(number: int) -> None:
        event = {"type": "log", "source": "live", "message": f"it arrives {number}"}
        server.ask("/ingest", lines(event), JSON_LINES)

    # The stream begins a moment after the page: what comes before it is in the list.
    page.wait_for_timeout(700)
    send(1)
    page.wait_for_selector(".event-row >> text=it arrives 1")
    page.hover(".event-row")
    send(2)
    page.get_by_role("button", name="1 new").click()
    page.wait_for_selector(".event-row >> text=it arrives 2")


def test_what_comes_while_the_list_is_asked_for_is_shown(tab: Tab, server: HttpLake) -> None:
    """It is not in the list, and the stream has begun."""

    def answer(route: Any) -> None:
        response = route.fetch()
        event = {"type": "log", "source": "live", "message": "between both"}
        server.ask("/ingest", lines(event), JSON_LINES)
        route.fulfill(response=response)

    tab.page.route("**/api/events?*", answer, times=1)
    page = tab.open("explore?q=between", "main h2")
    page.wait_for_selector(".event-row >> text=between both")


def test_a_rollback_waits_until_its_plan_was_read(tab: Tab, server: HttpLake) -> None:
    page = tab.open("history", ".wide-table")
    page.set_viewport_size({"width": 380, "height": 500})
    row = page.locator("tr", has=page.locator("text=v1")).last
    row.get_by_label(re.compile("Roll back")).click()
    page.wait_for_selector(".plan")
    page.locator(".plan").evaluate("(plan) => { plan.style.maxHeight = '40px'; }")
    button = page.get_by_role("button", name="Roll back", exact=True)
    page.locator(".plan").evaluate("(plan) => { plan.scrollTop = plan.scrollHeight; }")
    until(page, "!document.querySelector('button.danger').disabled")
    button.click()
    page.wait_for_selector(".toast >> text=599 events again")
    # Refused at the click alone, an undo would leave who asks for it without a way on.
    server.ask("/ingest", lines({"n": 1}), JSON_LINES)
    page.get_by_role("button", name="Undo the last move").click()
    page.wait_for_selector(".fault >> text=1 event came since")
    page.get_by_role("button", name="Undo", exact=True).click()
    page.wait_for_selector(".toast >> text=Undone")
    with lakelog.open(server.path, create=False) as lake:
        assert any(name.startswith("since-rollback-") for name in lake.branches())


def test_sql_is_answered_and_a_mistake_keeps_the_rows(tab: Tab) -> None:
    page = tab.open("sql", "textarea")
    page.locator("textarea").fill("SELECT count(*) AS n FROM events WHERE level = 'WARN'")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".sql-result td >> text=200")
    page.locator("textarea").fill("SELECT nothing FROM events")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".fault")
    assert "nothing" in page.inner_text(".fault")
    assert "200" in page.inner_text(".sql-result")
    tab.faults.clear()  # the browser reports each answer of 400


def test_the_search_box_completes_fields_and_values(tab: Tab) -> None:
    page = tab.open("explore", ".event-row")
    page.keyboard.press("/")
    page.keyboard.type("sour")
    page.locator("#top .suggest li", has_text="source:").wait_for()
    page.keyboard.press("Tab")
    page.keyboard.type("s")
    page.locator("#top .suggest li", has_text="s1").wait_for()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.input_value("#top input[type=search]") == "source:s1"
    page.keyboard.press("Enter")
    until(page, "location.hash.includes('q=source')")


def test_what_is_found_is_downloaded(tab: Tab) -> None:
    page = tab.open("explore?q=level:%3DWARN%20number", ".event-row")
    until(page, "document.querySelector('.explore-head').textContent.includes('200')")
    page.get_by_role("button", name="Download").click()
    with page.expect_download() as started:
        page.get_by_role("button", name="ndjson").click()
    rows = Path(started.value.path()).read_text().splitlines()
    assert len(rows) == 200
    assert all('"level":"WARN"' in row for row in rows)


def test_traces_are_ordered_and_gathered_by_session(browser: Any, tmp_path: Path) -> None:
    with lakelog.open(tmp_path / "lake") as lake:
        for number in range(1, 4):
            attributes = {"session.id": f"talk {number % 2}", "gen_ai.usage.cost": 0.1 * number}
            data = {"traceId": f"{number:032x}", "name": f"run {number}", "attributes": attributes}
            lake.append({"type": "span", "data": data})
    with serving(tmp_path / "lake") as server:
        tab = Tab(browser, server)
        page = tab.open("traces", "tbody tr")
        page.get_by_role("button", name="dearest").click()
        until(page, "document.querySelector('tbody tr')?.textContent.includes('run 3')")
        page.get_by_role("button", name="Sessions").click()
        page.locator("tr", has_text="talk 1").get_by_role("link").click()
        until(page, "document.querySelectorAll('tbody tr').length === 2")
        assert tab.close() == []


def test_the_overview_tells_of_items_and_of_what_was_learnt(browser: Any, tmp_path: Path) -> None:
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append(
            [
                {"type": "COMPLETE", "category": "podcast", "subject": "a", "source": "Pod"},
                {"type": "FAIL", "category": "podcast", "subject": "b", "data": {"error": "gone"}},
                {"type": "ANOMALY", "message": HOSTILE[1]},
            ]
        )
    with serving(tmp_path / "lake") as server:
        tab = Tab(browser, server)
        page = tab.open("overview", ".items")
        assert re.search(r"completed\s*1\s*failed\s*1", page.inner_text(".items"))
        assert HOSTILE[1] in page.inner_text(".overview")
        assert tab.close() == []


@pytest.mark.thorough
def test_a_page_left_open_stays_small_and_still(browser: Any, tmp_path: Path) -> None:
    """Half an hour of the Overview and of Explore; tests/support/dashboard_day.py plays more."""
    for name in ("overview", "explore"):
        with serving(tmp_path / name) as server:
            day = watched(browser, server, 180, rate=50, page_name=name)
        assert day.shift == 0
        assert max(day.heap) < 150
        assert max(day.heap[-4:]) < 1.5 * max(day.heap[:4]) + 5


def test_rows_that_are_erased_leave_the_list(browser: Any, tmp_path: Path) -> None:
    """Also below the pointer, and of a range that ended."""
    path, times = tmp_path / "lake", {"since": "2026-11-20", "until": "2026-11-21"}
    with lakelog.open(path) as lake:
        event = {"type": "log", "time": "2026-11-20T08:00:00Z"}
        lake.append([{**event, "subject": f"s{n}", "message": f"row {n}"} for n in range(3)])
    with serving(path) as server:
        page = Tab(browser, server).open(f"explore?{urlencode(times)}", ".event-row")
        page.hover(".event-row")
        run(path, "erase", "--subject", "s1", "--why", "asked", "--yes")
        until(page, "document.querySelectorAll('.event-row').length === 2")
        assert not page.get_by_text("row 1").count()


def test_a_server_that_is_gone_is_told_and_the_rows_stay(browser: Any, tmp_path: Path) -> None:
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append({"type": "log", "message": "stays"})
    with serving(tmp_path / "lake") as server:
        page = Tab(browser, server).open("explore", ".event-row")
        server.kill()
        page.keyboard.press("/")
        page.keyboard.type("x")
        page.keyboard.press("Enter")
        page.wait_for_selector(".offline")
        assert "stays" in page.inner_text(".event-rows")
        page.close()


def test_a_page_that_cannot_be_fetched_comes_with_the_server(browser: Any, tmp_path: Path) -> None:
    """What is said of it is not where in the program it failed."""
    with serving(tmp_path / "lake") as server:
        page = Tab(browser, server).open("explore")
        server.kill()
        page.goto(f"http://127.0.0.1:{server.port}/#/sql")
        page.wait_for_selector(".fault >> text=the server does not answer")
    with serving(tmp_path / "lake", port=server.port):
        page.wait_for_selector("textarea")
    page.close()


def test_rows_go_on_to_arrive_with_another_token(browser: Any, tmp_path: Path) -> None:
    """The stream of one that was revoked ends, and asks for the next one."""
    lake = tmp_path / "lake"
    run(lake, "init")
    scopes = ("--scope", "read", "--scope", "ingest")
    with serving(lake) as server:
        page = Tab(browser, server).open("explore?q=arrives", "#top")
        for number, name in enumerate(("ada", "bob")):
            token = run(lake, "token", "add", name, *scopes).stdout.strip()
            if number:
                run(lake, "token", "revoke", "ada")
            else:
                page.reload()
            page.get_by_label("Token", exact=True).fill(token)
            with page.expect_response(followed):
                page.get_by_role("button", name="Continue").click()
            sent = {"Authorization": f"Bearer {token}"}
            event = {"type": "log", "message": f"it arrives {number}"}
            assert server.ask("/ingest", lines(event), sent).status == 200
            page.wait_for_selector(f".event-row >> text=it arrives {number}")
        page.close()


def test_an_older_copy_of_the_lake_is_shown_as_it_is(browser: Any, tmp_path: Path) -> None:
    """What the page had and the copy lacks goes, and what comes then arrives."""
    lake, copy = tmp_path / "lake", tmp_path / "copy"
    event = {"type": "log", "message": "it arrives 0"}

    def arrives(server: HttpLake, number: int) -> None:
        server.ask("/ingest", lines({**event, "message": f"it arrives {number}"}), JSON_LINES)
        page.wait_for_selector(f".event-row >> text=it arrives {number}")

    with serving(lake) as server:
        server.ask("/ingest", lines(event), JSON_LINES)
        server.stop()
    shutil.copytree(lake, copy)
    with serving(lake, port=server.port) as again:
        page = Tab(browser, server).open("explore?q=arrives", ".event-row")
        page.wait_for_timeout(700)
        arrives(again, 1)
        run(lake, "snapshot", "-m", "a later state")
        arrives(again, 2)
        again.stop()
    shutil.rmtree(lake)
    copy.rename(lake)
    with serving(lake, port=server.port) as older:
        until(page, "document.querySelectorAll('.event-row').length === 1")
        arrives(older, 3)
        assert page.locator(".event-row").count() == 2
    page.close()
