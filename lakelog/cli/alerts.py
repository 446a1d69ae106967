"""alerts: keep rules, try them, silence alerts, evaluate and tell receivers."""

from __future__ import annotations

import click

import lakelog.alerts as alerting
from lakelog.alerts import CLOCKS, SEVERITIES, AlertRule, RuleBook
from lakelog.cli import exits
from lakelog.cli.app import App, complete_table, completing, verb_group
from lakelog.cli.arguments import pair_of
from lakelog.cli.options import argument, combined, flag, option
from lakelog.cli.render.output import OUTPUT, OutputTarget, emit, emit_record
from lakelog.cli.render.tables import FullName, cell
from lakelog.cli.render.terminal import many
from lakelog.cli.rounds import SpanParam, stop_at_signals
from lakelog.errors import InvalidSetting
from lakelog.render import micros
from lakelog.values import JsonObject

NAME = argument(
    shell_complete=completing(lambda lake: [rule.name for rule in RuleBook(lake).rules()])
)


def _rule(
    name: str,
    query: str | None,
    spans: dict[str, int],
    labels: tuple[str, ...],
    wording: dict[str, str],
    above: float | None,
    below: float | None,
    labels_by: tuple[str, ...],
    sinks: tuple[str, ...],
) -> AlertRule:
    return AlertRule(
        name=name,
        query=query or "",
        above=above,
        below=below,
        labels_by=labels_by,
        labels=dict(pair_of(label) for label in labels),
        # A log line is a receiver that always works: a rule without one would fire unseen.
        sinks=sinks or ("log",),
        **spans,  # type: ignore[arg-type]
        **wording,  # type: ignore[arg-type]
    )


class _WaitParam(SpanParam):
    """The same, and 0 for no time at all."""

    # No span of the grammar is 0, but a rule without a wait fires at its first evaluation.

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds that a text names."""
        return (
            0.0 if str(value).strip() in ("0", "0.0", "0s") else super().convert(value, param, ctx)
        )


_RULE = combined(
    _rule,
    name=argument(),
    query=argument("[SQL]"),
    spans=combined(
        lambda **seconds: {name: int(value * 1e6) for name, value in seconds.items()},
        every=option("--every TIME", "How often it is asked.", type=SpanParam(), shown="1m"),
        window=option(
            "--window TIME", "From $since to $now; also of a search.", type=SpanParam(), shown="5m"
        ),
        wait=option(
            "--for TIME", "How long it has to hold before it fires.", type=_WaitParam(), shown="0"
        ),
        timeout=option(
            "--timeout TIME", "After which a question is ended.", type=SpanParam(), shown="10s"
        ),
    ),
    wording=combined(
        lambda **options: {name: value or "" for name, value in options.items()},
        search=option("--search WORDS", "Count what a search finds, in place of SQL."),
        view=option(
            "--view NAME",
            "Compare the rows of a view, in place of SQL.",
            shell_complete=complete_table,
        ),
        value=option("--value COLUMN", "The number that is compared; `value` by default."),
        severity=option(
            "--severity NAME",
            "info, warning or critical.",
            shown="warning",
            type=click.Choice(SEVERITIES),
        ),
        message=option(
            "-m, --message TEXT", "What receivers read; {value} and {LABEL} stand for values."
        ),
        samples=option("--samples SQL", "The condition of events that are shown with it."),
        clock=option(
            "--clock NAME",
            "What $now is: wall, or log for the newest event's time.",
            shown="wall",
            type=click.Choice(CLOCKS),
        ),
    ),
    above=option("--above N", "Fire where the value is above N."),
    below=option("--below N", "Fire where the value is below N."),
    labels_by=option("--by COLUMN", "A column that tells alerts apart; by default all texts."),
    labels=option("--label NAME=VALUE", "A label of all its alerts."),
    sinks=option("--to RECEIVER", "Who is told; log by default."),
)


@verb_group()
def alerts() -> None:
    """Ask questions of the events again and again, and tell somebody when one fires.

    `run` evaluates the rules, and so does `lakelog serve`; one process at a time does.
    """


@alerts.verb()
def add(
    app: App,
    rule: AlertRule = _RULE,
    replace: bool = flag("--replace", "Change a rule that is there."),
) -> None:
    """Keep rule NAME in the lake, once its question was tried.

    Each row of SQL fires, or with --above or --below each row whose value is. RECEIVER is
    log, an http(s) address, alertmanager+http://HOST:9093, mailto:ADDRESS or
    command:PROGRAM. See docs/alerts.md for their options, and where secrets stand.
    """
    with app.open() as lake:
        remark = RuleBook(lake).add(rule, replace=replace)
        # Read after the rule is written, so that an evaluator that starts meanwhile is not
        # overlooked.
        is_asked = alerting.overview(lake)["evaluated"]
    app.say(f"rule {rule.name} is kept{f': {remark}' if remark else ''}")
    if not is_asked:
        app.say("nobody evaluates rules now: start `lakelog alerts run` or `lakelog serve`")


@alerts.verb(name="list")
def list_alerts(app: App, target: OutputTarget = OUTPUT) -> None:
    """List rules, how they stand, and what is wrong with them."""
    with app.open() as lake:
        listing = alerting.overview(lake)
    for silence in listing["silences"]:
        if silence["active"]:
            matchers = cell(" ".join(silence["matchers"]))
            app.say(f"silence {silence['id']} until {silence['end']}: {matchers}")
    if listing["rules"] and not listing["evaluated"]:
        app.say("nobody evaluates rules now: start `lakelog alerts run` or `lakelog serve`")
    rows = [
        {
            "name": FullName(rule["name"]),
            "state": FullName(rule["state"]),
            "firing": rule["firing"],
            "severity": rule["severity"],
            "question": rule["question"],
            "note": rule["note"],
        }
        for rule in listing["rules"]
    ]
    emit(listing["rules"], target, rows)


@alerts.verb()
def show(
    app: App, name: str = NAME, as_json: bool = flag("--json", "Print the result as JSON.")
) -> None:
    """Show rule NAME, its alerts, and what was told of it."""
    with app.open() as lake:
        overview = alerting.overview(lake, name)
        changes = alerting.history(lake, 20, name)
    record = {**overview["rules"][0], "alerts": overview["alerts"], "history": changes}
    emit_record(record, OutputTarget("json" if as_json else "table"), lambda: _shown(record))


@alerts.verb()
def remove(app: App, name: str = NAME) -> None:
    """Remove rule NAME; its alerts are resolved."""
    with app.open() as lake:
        firing = RuleBook(lake).remove(name)
    report = f"; {many(firing, 'alert')} will be resolved" if firing else ""
    app.say(f"rule {name} is removed{report}")


@alerts.verb()
def silence(
    app: App,
    matchers: tuple[str, ...] = argument("MATCHER"),
    span: float | None = option("--for TIME", "How long.", type=SpanParam()),
    comment: str = option("-m, --message TEXT", "Why."),
    ended: str | None = option("--end ID", "End the silence of this id now."),
) -> None:
    """Tell nobody of alerts whose labels match.

    MATCHER is LABEL=VALUE, !=, or with a regular expression =~ or !~. `rule` and `severity`
    are labels, too. All matchers have to hold. What fires still when a silence ends is told.
    """
    # A silence without an end would hide an alert that everybody has forgotten.
    if bool(ended) == bool(matchers) or (matchers and span is None):
        raise click.UsageError("matchers and --for TIME, or --end ID alone")
    with app.open() as lake:
        if ended:
            RuleBook(lake).end_silence(ended)
            app.say(f"silence {ended} is over")
            return
        period = RuleBook(lake).silence(list(matchers), int((span or 0) * 1e6), comment)
    click.echo(period.id)
    app.say(f"silent until {micros(period.end)}: lakelog alerts silence --end {period.id} ends it")


@alerts.verb(name="test")
def try_rule(
    app: App,
    name: str = NAME,
    send: bool = flag("--send", "Send a test notification to each receiver."),
    as_json: bool = flag("--json", "Print the notifications as JSON."),
) -> None:
    """Ask rule NAME now; show what would be sent.

    Exits with 3 if a receiver does not take the test of --send.
    """
    with app.open() as lake:
        book = RuleBook(lake)
        rule = book.rule(name)
        if send:
            failures = _send(app, book, rule)
        else:
            trial = book.trial(rule)
    if send:
        click.get_current_context().exit(exits.WRONG if failures else exits.DONE)
    if trial.remark:
        app.say(trial.remark)
    record = {"rows": len(trial.rows), "notifications": trial.documents}
    lines = [f"{many(len(trial.rows), 'row')} would fire\n"]
    # Only the first rows are made into notifications.
    for row, document in zip(trial.rows, trial.documents, strict=False):
        labels = "".join(f" {key}={cell(value)}" for key, value in row.labels.items())
        lines.append(f"{rule.name}{labels}: {cell(document['message'])}\n")
        lines += [f"  {cell(sample)}\n" for sample in document["samples"]]
    emit_record(record, OutputTarget("json" if as_json else "table"), lambda: "".join(lines))


@alerts.verb()
def run(
    app: App,
    once: bool = flag("--once", "Ask what is due, tell receivers, then exit; for cron."),
    site: str = option("--site URL", "Address of the server that shows the lake, for links."),
) -> None:
    """Evaluate the rules and tell receivers, until Ctrl-C.

    If another process does so already, such as `lakelog serve`, this one says so and exits
    with 0: so it may be started by cron beside it.
    """
    say = app.say
    with (
        app.open() as lake,
        stop_at_signals() as stop,
        alerting.evaluating(lake, say, stop, site=site) as evaluator,
    ):
        if evaluator is None:
            # Of a shared lake another machine may have the turn.
            others = "process" if lake.store.attachment is None else "process or machine"
            say(f"another {others} evaluates the rules of this branch")
            return
        if not once:
            evaluator.run()
            return
        result = evaluator.round()
    rules = many(result.rules, "rule")
    say(f"asked {rules}: {many(result.changes, 'change')}, {result.delivered:,} delivered")


def _send(app: App, book: RuleBook, rule: AlertRule) -> int:
    """Send a test to each receiver; return how many did not take it."""
    if not rule.sinks:
        raise InvalidSetting(f"{rule.name} has no receiver: add one with --to")
    outcomes = book.send_test(rule)
    for receiver, reason in outcomes.items():
        app.say(f"{cell(receiver)}: {cell(reason) if reason else 'taken'}")
    return sum(map(bool, outcomes.values()))


def _shown(record: JsonObject) -> str:
    names = ("state", "severity", "question", "every", "window", "for", "asked", "note")
    pairs = [(n, record.get(n)) for n in names]
    # Whole numbers of a rule are microseconds: no other member of these is an int.
    pairs = [(n, f"{v / 1e6:g} s" if isinstance(v, int) else v) for n, v in pairs]
    lines = [f"rule {record['name']}"]
    lines += [f"  {n:9} {cell(v)}" for n, v in pairs if v not in (None, "")]
    for receiver in record["receivers"]:
        counts = f"{receiver['delivered']:,} delivered, {receiver['waiting']:,} waiting"
        lines.append(f"  {'to':9} {cell(receiver['to'])}: {counts}")
    for alert in record["alerts"]:
        labels = "".join(f" {n}={cell(v)}" for n, v in alert["labels"].items())
        lines.append(f"  {alert['state']:9} since {alert['since']}{labels}")
    for entry in record["history"]:
        lines.append(f"  {entry['time']}  {_entry(entry)}")
    return "\n".join(lines) + "\n"


def _entry(entry: JsonObject) -> str:
    if entry["event"] == "delivery":
        reason = f": {cell(entry['error'])}" if entry.get("error") else ""
        return f"{entry['outcome']} {cell(entry['to'])}{reason}"
    labels = "".join(f" {name}={cell(value)}" for name, value in entry["labels"].items())
    silenced = f" (silence {entry['silenced']})" if entry.get("silenced") else ""
    return f"{entry['state']}{labels}{silenced}: {cell(entry['message'])}"
