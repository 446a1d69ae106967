"""Asking rules when they are due, and telling receivers: one process at a time for each branch.

    cache/alerts/<branch>/lock           held by the process that evaluates
    cache/alerts/<branch>/status.json    when each rule was asked, and how long rows stood

Of the machines of a shared lake one has the turn, and publishes changes before it tells them.

What is in the cache only saves time: without it rules are asked at once, and what is pending begins
to wait again. Where alerts stand is in the events (standing.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import orjson

from lakelog.alerts import judgement, samples
from lakelog.alerts import rule as rules
from lakelog.alerts import silence as silences
from lakelog.alerts.judgement import AlertChange
from lakelog.alerts.notices import document_of
from lakelog.alerts.outbox import Outbox, shown
from lakelog.alerts.question import RuleQueries
from lakelog.alerts.rule import AlertRule, sink_id
from lakelog.alerts.silence import Silence
from lakelog.alerts.standing import FIRING, AlertLog, change_event
from lakelog.disk import File, Folder, LockFile, disk
from lakelog.errors import LakelogError
from lakelog.event import Event
from lakelog.lake import Lake
from lakelog.render import visible
from lakelog.store import Store

PAUSE = 0.5
"""Seconds between two looks which rules are due."""
_RETRY, _RETRY_SHARED = 5.0, 60.0
"""Seconds between two looks whether another process, or machine, evaluates still."""
SAMPLED_MAX = 20
"""Alerts of one answer that get samples."""
_SAMPLING_SECONDS = 5.0
"""After so long the others of an answer are told without."""
_ERROR_MAX = 500


@dataclass
class RuleStatus:
    """When a rule was asked and when answered (us), how long rows stood by their fingerprints, and
    what was wrong.

    `missed` counts the questions that the last gap left out, `log_time` is the `$now` of a rule
    whose clock is the log, `rule` is the time of the rule that was asked.
    """

    rule: int = 0
    time: int = 0
    answered: int = 0
    log_time: int = 0
    seconds: float = 0.0
    rows: int = 0
    missed: int = 0
    error: str = ""
    failures: int = 0
    stood: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class AlertRound:
    """What a round did."""

    rules: int = 0
    changes: int = 0
    delivered: int = 0
    errors: int = 0


class Evaluator:
    """Evaluates the rules of an open lake's branch. Made by `evaluating`, which excludes others."""

    def __init__(
        self,
        lake: Lake,
        say: Callable[[str], None],
        stop: threading.Event,
        site: str = "",
        clock: Callable[[], int] = disk.now_us,
        has_turn: Callable[[], bool] = lambda: True,
    ) -> None:
        """`site` is the address of a server that shows the lake, for links; `clock` gives us,
        `has_turn` tells whether this machine still is the one that evaluates."""
        self._lake, self._stop = lake, stop
        # Labels and messages are of events: who sends those must not write lines of a log.
        self._say: Callable[[str], None] = lambda line: say(visible(line))
        self.site, self._clock, self._has_turn = site, clock, has_turn
        self._log = AlertLog(lake)
        self._outbox = Outbox(self._log, self._say, clock)
        self._queries: RuleQueries | None = None
        self._path = status_path(lake.store, lake.branch_name)
        self._lock_path = lock_path(lake.store, lake.branch_name)
        self._lock = _identity(self._lock_path)
        self._status = read_status(lake.store, lake.branch_name)
        self._state = ""
        self._rules: dict[str, AlertRule] = {}
        self._silences: list[Silence] = []

    def close(self) -> None:
        """Let go of the database."""
        if self._queries is not None:
            self._queries.close()

    def round(self) -> AlertRound:
        """Ask the rules that are due, then deliver what is due. Raises LakelogError, OSError only
        where the lake itself cannot be read or written."""
        # Another process may evaluate by now: then nothing more is asked or told.
        if not self.is_alone():
            return AlertRound()
        self._look()
        due = [rule for rule in self._rules.values() if self._is_due(rule)]
        changes, errors = 0, 0
        for rule in due:
            if self._stop.is_set():
                # Between rules, since each may take seconds.
                break
            count = self._evaluate(rule)
            changes, errors = changes + max(count, 0), errors + (count < 0)
        # Once for all of them: it is only a shortcut.
        if due:
            # Without it rules are asked once more: a full disk costs no alert.
            content = orjson.dumps({name: vars(status) for name, status in self._status.items()})
            File(self._path).keep(content)
        if changes:
            self._publish()
        delivered = self._outbox.deliver(self._stop.is_set) if self._rules else 0
        if delivered:
            self._publish()
        if self._rules and not self._stop.is_set():
            self._outbox.repeat()
        return AlertRound(len(due), changes, delivered, errors)

    def _publish(self) -> None:
        """Let the other machines of a shared lake know at once: one of them may go on."""
        if self._lake.store.attachment is not None:
            # Without the bucket receivers are told all the same, and it gets to know later.
            with contextlib.suppress(LakelogError, OSError):
                _exchange(self._lake)

    def run(self) -> None:
        """Go on until told to stop; a lake that cannot be read for a while does not end it."""
        problem = ""
        while not self._stop.is_set() and self.is_alone():
            try:
                self.round()
                problem = ""
            except (LakelogError, OSError) as error:
                problem = _tell(self._say, error, problem)
            self._stop.wait(PAUSE)

    def is_alone(self) -> bool:
        """Whether the lock that this process holds still excludes others: the cache may be deleted
        at any time."""
        return _identity(self._lock_path) == self._lock and self._has_turn()

    def _look(self) -> None:
        """Read rules and silences, if the state is another."""
        store = self._lake.store
        state = store.state(self._lake.branch_name)
        if state.digest != self._state:
            self._rules = self._earlier_rules() | rules.of_state(store, state)
            self._silences = silences.of_state(store, state)
            self._state = state.digest
            self._outbox.use(self._rules)
            # A rule of that name that comes back begins anew.
            for name in self._status.keys() - self._rules.keys():
                del self._status[name]
            # So does one that is replaced: its rows have not stood for the new question.
            for name, rule in self._rules.items():
                if name not in self._status or self._status[name].rule != rule.time:
                    self._status[name] = RuleStatus(rule.time)

    def _earlier_rules(self) -> dict[str, AlertRule]:
        """The rules of states that a rollback left, as removed ones: of alerts that are told to
        fire, somebody has to hear that they are over."""
        store, earlier_rules = self._lake.store, dict[str, AlertRule]()
        for move in self._log.earlier_moves():
            with contextlib.suppress(LakelogError):
                of_state = rules.of_state(store, store.manifests.of(move))
                earlier_rules = of_state | earlier_rules
        # Asked only now: most lakes have none, and a server of such need not load an engine.
        if not earlier_rules:
            return {}
        standing = self._log.read()
        names = {alert.rule for alert in standing.alerts.values()}
        names |= {str(each.document["rule"]) for each in standing.deliveries.values()}
        return {n: replace(r, is_removed=True) for n, r in earlier_rules.items() if n in names}

    def _is_due(self, rule: AlertRule) -> bool:
        is_due = judgement.is_due(rule, self._clock(), self._status[rule.name].time)
        return rule.is_removed or is_due

    def _evaluate(self, rule: AlertRule) -> int:
        """Ask a rule; return how many alerts changed, -1 where it cannot be answered."""
        moment, status = self._clock(), self._status[rule.name]
        if rule.is_removed:
            return self._leave(rule, moment)
        # Made for the first question: many lakes have no rules.
        if self._queries is None:
            self._queries = RuleQueries(self._lake, self._stop)
        began, previous = time.monotonic(), status.answered
        try:
            until = self._log_time(rule, moment)
            before = status.log_time if rule.clock == "log" else previous
            since = judgement.window(rule, until, before)
            rows = self._queries.ask(rule, since, until)
        # What is wrong with one rule stops no other.
        except (LakelogError, OSError) as error:
            if self._stop.is_set():  # it was cut off, and says nothing of the rule
                return 0
            status.error = " ".join(str(error).split())[:_ERROR_MAX]
            status.failures, status.seconds = status.failures + 1, time.monotonic() - began
            # Asked again when it is due, and not at once.
            status.time = moment
            if status.failures == 1:
                self._say(f"alert {rule.name}: {status.error}")
            return -1
        # After the question, which may have taken long.
        present = self._log.read().of_rule(rule.name)
        span = judgement.observed(rule, moment, previous)
        changes = judgement.judge(rule, present, rows, moment, span, status.stood, self._silences)
        # Durable before the status says that it was asked: else a change would be lost.
        self._append(rule, changes, moment, since, until)
        status.missed = judgement.missed(rule, moment, previous)
        status.time = status.answered = moment
        status.log_time, status.rows = until, len(rows)
        status.seconds, status.error, status.failures = time.monotonic() - began, "", 0
        return len(changes)

    def _log_time(self, rule: AlertRule, moment: int) -> int:
        """The `$now` of a question: of a rule by the log's clock the time of the newest event that
        is not in the future."""
        if rule.clock != "log":
            return moment
        assert self._queries is not None
        # Half-open times: the newest event itself is to be seen.
        return self._queries.newest(moment) + 1

    def _leave(self, rule: AlertRule, moment: int) -> int:
        """End the alerts of a removed rule, and forget it once its receivers know."""
        standing = self._log.read()
        present = standing.of_rule(rule.name)
        changes = judgement.judge(rule, present, [], moment, 0, {}, self._silences)
        self._append(rule, changes, moment, moment, moment)
        # The rule's entry says who is told; it stays until the last one is.
        is_awaited = any(d.document["rule"] == rule.name for d in standing.deliveries.values())
        if not changes and not is_awaited:
            rules.bury(self._lake.store, self._lake.branch_name, rule.name)
            self._rules.pop(rule.name)  # one that a rollback left is in no state of the branch
        return len(changes)

    def _append(
        self, rule: AlertRule, changes: list[AlertChange], moment: int, since: int, until: int
    ) -> None:
        """Make changes durable, with all that receivers will be told."""
        sinks = {sink_id(sink): shown(sink) for sink in rule.sinks}
        standing, events = self._log.read(), list[Event]()
        until_sampled = time.monotonic() + _SAMPLING_SECONDS
        for place, change in enumerate(changes):
            # The database is made for questions; removed rules ask none.
            lines: list[str] = []
            is_early = place < SAMPLED_MAX and time.monotonic() < until_sampled
            if change.state == FIRING and is_early and self._queries is not None:
                lines = samples.samples(self._queries, rule, change.labels, since, until)
            document = document_of(
                rule,
                change,
                id=disk.random_hex(8),
                number=standing.following(place),
                time_us=moment,
                # A silenced change is kept, and names nobody to tell.
                sinks=[
                    {"id": each, "to": sinks[each], **_ended(change, each)}
                    for each in change.receivers
                ],
                samples=lines,
                link=samples.link(rule, change.labels, since, until, self.site),
                lake=self._lake.store.lake_id,
                branch=self._lake.branch_name,
            )
            events.append(change_event(document))
        if events:
            self._log.append(events)


def _ended(change: AlertChange, sink: str) -> dict[str, str]:
    """What a sink was sent of an alert that is over, where that is another change than the newest
    one."""
    before = change.before
    if before is None or before.receivers.get(sink, before.change) == before.change:
        return {}
    return {"resolves": before.receivers[sink]}


@contextlib.contextmanager
def evaluating(
    lake: Lake,
    say: Callable[[str], None],
    stop: threading.Event,
    *,
    site: str = "",
    clock: Callable[[], int] = disk.now_us,
) -> Iterator[Evaluator | None]:
    """Yield what evaluates the rules of a branch; None while another process does.

    A lock of the kernel makes it the only one, which is free again however its process ends. The
    evaluator is closed, and the lock free, when the context is left; `clock` gives us.
    """
    Folder(directory_of(lake.store, lake.branch_name)).make_all()
    # The kernel drops the lock of a process that dies.
    with LockFile(lock_path(lake.store, lake.branch_name)).hold(shared=False) as is_held:
        if not is_held:
            yield None
            return
        with _turn(lake) as has_turn:
            if has_turn is None:
                yield None
                return
            with contextlib.closing(Evaluator(lake, say, stop, site, clock, has_turn)) as evaluator:
                yield evaluator


@contextlib.contextmanager
def _turn(lake: Lake) -> Iterator[Callable[[], bool] | None]:
    """Be the only machine that evaluates the rules of a branch, and know what the one before told;
    yield what tells whether it still is, None if another one is. Raises Unreachable."""
    attachment = lake.store.attachment
    if attachment is None:
        yield lambda: True
        return
    with attachment.turn(_work(lake.branch_name)) as has_turn:
        if has_turn is not None:
            _exchange(lake)
        yield has_turn


def _work(branch: str) -> str:
    """The name of the evaluation of a branch among the works of a shared lake: letters."""
    digits = hashlib.sha256(branch.encode()).hexdigest()[:8]
    return "alerts" + digits.translate(str.maketrans("0123456789", "ghijklmnop"))


def _exchange(lake: Lake) -> None:
    """Publish what is told to the other machines of a shared lake, and know what they told."""
    # By a store of its own: threads of a server publish by that of the lake meanwhile.
    with Lake(Store.load(lake.path), lake.branch_name) as own_lake:
        own_lake.exchange()


def evaluate_when_free(
    lake: Lake, say: Callable[[str], None], stop: threading.Event, *, site: str = ""
) -> None:
    """Evaluate the rules of a branch, as soon as no other process does, until `stop` is set. It
    returns only then: give it a thread."""
    problem = ""
    while not stop.is_set():
        try:
            with evaluating(lake, say, stop, site=site) as evaluator:
                if evaluator is not None:
                    evaluator.run()
        # A disk may have space again, and a lake that only others may write is served all the same.
        except (LakelogError, OSError) as error:
            problem = _tell(say, error, problem)
        stop.wait(_RETRY if lake.store.attachment is None else _RETRY_SHARED)


def _tell(say: Callable[[str], None], error: Exception, problem: str) -> str:
    """Say what was wrong, once and not at every attempt; return it."""
    if str(error) != problem:
        say(f"alerts: {error}")
    return str(error)


def is_evaluated(store: Store, branch: str) -> bool:
    """Whether some process evaluates the rules of a branch now; of a shared lake on any machine,
    or perhaps, where its bucket does not answer."""
    if LockFile(lock_path(store, branch)).is_held():
        return True
    try:
        return store.attachment is not None and store.attachment.is_taken(_work(branch))
    except (LakelogError, OSError):
        return True  # another machine may, which only the bucket can say


def directory_of(store: Store, branch: str) -> str:
    """Where the cache has what belongs to the rules of a branch."""
    return f"{store.paths.cache}/alerts/{os.path.basename(store.paths.head_dir(branch))}"


def lock_path(store: Store, branch: str) -> str:
    """The file that the process holds that evaluates."""
    return f"{directory_of(store, branch)}/lock"


def _identity(path: str) -> tuple[int, int] | None:
    # By device and inode: a deleted file leaves the lock without a name.
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def status_path(store: Store, branch: str) -> str:
    """The file that says when rules were asked."""
    return f"{directory_of(store, branch)}/status.json"


def read_status(store: Store, branch: str) -> dict[str, RuleStatus]:
    """When the rules of a branch were asked, as far as the cache says it."""
    try:
        content = orjson.loads(File(status_path(store, branch)).read())
        return {name: RuleStatus(**members) for name, members in content.items()}
    # Of another version, or torn: all rules are asked at once.
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
