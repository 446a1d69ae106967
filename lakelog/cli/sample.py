"""A seeded sample: five days of a podcast pipeline, an AI agent and the services under them.

One JSON object a line, in order of time, in lakelog's envelope. The sample is made of stories (an
episode, an agent's run, a burst of log lines) which start in a daily rhythm; what a story would
still do after END is not in the recording. On OUTAGE a media host fails and most episodes with it.
The same count and seed give the same bytes: the order in which numbers are drawn is part of it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Any

from lakelog.runtime.tables import ModuleFiles
from lakelog.values import to_micros

END = datetime(2026, 11, 1, tzinfo=UTC)
DAYS = 5
OUTAGE = (datetime(2026, 10, 30, 14, tzinfo=UTC), datetime(2026, 10, 30, 17, tzinfo=UTC))

_TABLES = ModuleFiles(__file__).tables("sample.toml")
SHOWS, TOPICS, HOSTS = _TABLES["shows"], _TABLES["topics"], _TABLES["hosts"]
ERROR_TEXTS, AGENT_SHARE = _TABLES["errors"], _TABLES["decisions"]
PROMPTS, MODELS = _TABLES["prompts"], _TABLES["models"]
LOGS, OUTAGE_LOGS = _TABLES["logs"], _TABLES["outage_logs"]
# random.choices adds weights up at each call unless they come added up.
RHYTHM_TOTALS = list(accumulate(_TABLES["rhythm"]))
LOG_TOTALS = list(accumulate(entry[0] for entry in LOGS))

SampleEvent = dict[str, Any]
Story = Iterator[tuple[datetime, SampleEvent]]


def generate(count: int, seed: int, end: datetime = END) -> list[SampleEvent]:
    """Return `count` events in order of time, before `end`; the same seed gives the same events."""
    rng = random.Random(seed)
    steps: list[tuple[datetime, SampleEvent]] = []
    number = 0
    while len(steps) < count:
        # Numbers from 1 on: they become ids, by which a later append of the same sample is known.
        number += 1
        story = rng.choices(STORIES, cum_weights=STORY_TOTALS)[0]
        steps += [step for step in story(rng, number, _start(rng)) if step[0] < END]
    # Cut before the sort: the last story began anywhere in the five days, so all of them lose by
    # chance.
    del steps[count:]
    steps.sort(key=lambda step: step[0])
    shift = end - END
    return [_recorded(moment, event, shift) for moment, event in steps]


def lines(count: int, seed: int, end: datetime = END) -> Iterator[str]:
    """Return the events as lines of compact JSON, each ended by a newline."""
    encode = json.JSONEncoder(separators=(",", ":")).encode
    return (encode(event) + "\n" for event in generate(count, seed, end))


def episode(rng: random.Random, number: int, moment: datetime) -> Story:
    """One episode: discovered, processed up to three times, completed or given up."""
    show, subject = rng.choice(SHOWS), f"ep_{number:06d}"
    envelope = {"category": "podcast", "source": show, "subject": subject}
    url = f"https://{rng.choice(HOSTS)}.example.com/{show.lower()}/{subject}.mp3"
    discovery: SampleEvent = {
        "url": url,
        "title": f"On {rng.choice(TOPICS)}",
        "minutes": rng.randint(12, 95),
    }
    yield moment, _event("DISCOVER", envelope, discovery, id=f"{subject}-discover")
    for attempt in (1, 2, 3):
        moment += timedelta(seconds=rng.expovariate(1 / 45) * attempt + 0.2)
        work = {"attempt": attempt, "worker": rng.randrange(16)}
        yield moment, _event("PROCESS", envelope, work, id=f"{subject}-process-{attempt}")
        latency_ms = int(rng.lognormvariate(9.2, 0.7))
        moment += timedelta(milliseconds=latency_ms)
        # After the latency was drawn: the order of the draws is part of the sample.
        if rng.random() >= (0.7 if OUTAGE[0] <= moment < OUTAGE[1] else 0.05):
            word_count = int(discovery["minutes"] * rng.gauss(150, 12))
            outcome = {
                "latency_ms": latency_ms,
                "words": word_count,
                "confidence": _confidence(rng),
            }
            yield moment, _event("COMPLETE", envelope, outcome, id=f"{subject}-complete")
            return
        yield moment, _failure(rng, envelope, latency_ms, attempt, f"{subject}-fail-{attempt}")


def agent_run(rng: random.Random, number: int, moment: datetime) -> Story:
    """One run of the agent, as `lakelog.span` records it: a few model calls, what it decided."""
    envelope = {
        "category": "ai",
        "source": f"agent-{rng.randrange(4)}",
        "subject": f"run_{number:06d}",
    }
    trace, root, begin = _trace_id(number), _span_id(number, 0), moment
    for call in range(1, rng.randint(1, 3) + 1):
        took, attributes = _model_call(rng)
        members = {"traceId": trace, "spanId": _span_id(number, call), "parentSpanId": root}
        end = moment + timedelta(milliseconds=took)
        # The envelope's id makes a repeated `append` of the sample change nothing.
        name, key = f"chat {attributes['gen_ai.request.model']}", f"req_{number:06d}_{call}"
        # What has not ended is no span yet.
        if end < END:
            yield moment, _span(envelope, name, members, (moment, end), attributes, key)
        moment = end + timedelta(milliseconds=rng.randint(40, 900))
    tool = rng.choices(list(AGENT_SHARE), weights=list(AGENT_SHARE.values()))[0]
    decision: SampleEvent = {"options": list(AGENT_SHARE), "chosen": tool}
    decision |= {"confidence": _confidence(rng), "traceId": trace, "parentSpanId": root}
    yield moment, _event("decision", envelope, decision, message=f"chose {tool}")
    if moment < END:
        run, spans = {"gen_ai.operation.name": "invoke_agent"}, {"traceId": trace, "spanId": root}
        name = f"invoke_agent {envelope['source']}"
        yield begin, _span(envelope, name, spans, (begin, moment), run, f"run_{number:06d}")


def service_logs(rng: random.Random, _number: int, moment: datetime) -> Story:
    """A handful of log lines from one moment; more of them, and worse, during the outage."""
    host = f"node-{rng.randrange(5)}"
    away = OUTAGE[0] <= moment < OUTAGE[1]
    for _ in range(rng.randint(2, 9) + 4 * away):
        moment += timedelta(milliseconds=rng.expovariate(1 / 700))
        if away and rng.random() < 0.4:
            source, level, template = rng.choice(OUTAGE_LOGS)
        else:
            _, source, level, template = rng.choices(LOGS, cum_weights=LOG_TOTALS)[0]
        envelope = {"category": "system", "source": source, "subject": host}
        message = template.format(
            n=rng.randrange(100, 9000),
            ms=int(rng.lognormvariate(3.2, 0.8)),
            slow=rng.randint(800, 6000),
            few=rng.randint(1, 12),
        )
        pid = {"pid": 1000 + rng.randrange(40)}
        yield moment, _event("log", envelope, pid, level=level, message=message)


STORIES: list[Callable[[random.Random, int, datetime], Story]] = [episode, agent_run, service_logs]
STORY_TOTALS = list(accumulate([8, 3, 5]))


def _event(name: str, envelope: SampleEvent, data: SampleEvent, **members: str) -> SampleEvent:
    return {"type": name, **envelope, **members, "data": data}


def _failure(
    rng: random.Random, envelope: SampleEvent, latency_ms: int, attempt: int, key: str
) -> SampleEvent:
    error = "HTTP 503" if rng.random() < 0.3 else rng.choice(list(ERROR_TEXTS))
    error_text = ERROR_TEXTS[error].format(host=rng.choice(HOSTS), n=rng.randrange(400, 8000))
    data = {"error": error, "latency_ms": latency_ms, "attempt": attempt}
    return _event("FAIL", envelope, data, level="ERROR", message=error_text, id=key)


def _model_call(rng: random.Random) -> tuple[int, SampleEvent]:
    """Return how long a call took (ms), and the attributes of its span."""
    model, prompt = rng.choice(list(MODELS)), rng.choice(list(PROMPTS))
    dollars_in, dollars_out, token_ms = MODELS[model]
    tokens_in = int(PROMPTS[prompt] * rng.lognormvariate(0, 0.3))
    tokens_out = int(rng.lognormvariate(5.2, 0.6))
    took = int(180 + tokens_in * 0.05 + tokens_out * token_ms * rng.uniform(0.8, 1.4))
    return took, {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": model,
        "gen_ai.prompt.name": prompt,
        "gen_ai.usage.input_tokens": tokens_in,
        "gen_ai.usage.output_tokens": tokens_out,
        "gen_ai.usage.cost": round((tokens_in * dollars_in + tokens_out * dollars_out) / 1e6, 6),
    }


def _span(
    envelope: SampleEvent,
    name: str,
    ids: SampleEvent,
    times: tuple[datetime, datetime],
    attributes: SampleEvent,
    key: str,
) -> SampleEvent:
    begin, end = times
    moments = {"startTimeUnixNano": begin, "endTimeUnixNano": end}
    data = {**ids, "name": name, "kind": 1, **moments, "attributes": attributes, "status": {}}
    return _event("span", envelope, data, message=name, id=key)


def _trace_id(number: int) -> str:
    # Spread over all bits, as random ids are; of a number, so that no draw is needed for it.
    return f"{number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 128):032x}"


def _span_id(number: int, call: int) -> str:
    return f"{(4 * number + call) * 0x9E3779B97F4A7C15 % (1 << 64):016x}"


def _confidence(rng: random.Random) -> float:
    return round(rng.betavariate(8, 2), 3)


def _start(rng: random.Random) -> datetime:
    hour = rng.choices(range(24), cum_weights=RHYTHM_TOTALS)[0]
    midnight = END - timedelta(days=rng.randint(1, DAYS))
    # Whole milliseconds, as loggers write them; microseconds would look like no real log.
    return midnight + timedelta(hours=hour, milliseconds=rng.randrange(3_600_000))


def _recorded(moment: datetime, event: SampleEvent, shift: timedelta) -> SampleEvent:
    """Return an event as a line has it, later by `shift`, with the times of a span in ns."""
    data = {
        name: f"{to_micros(value + shift)}000" if isinstance(value, datetime) else value
        for name, value in event["data"].items()
    }
    return {"time": _stamp(moment + shift), **event, "data": data}


def _stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
