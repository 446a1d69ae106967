"""Redaction: recall by provider and kind of personal data, and innocent lines that are touched.

    python -m benchmarks.redaction            # prints the table of RESULTS.md

The corpus is made at run time by the format rules of `tests/support/redaction.py`.
"""

from __future__ import annotations

import random
import sys
from collections import Counter

from benchmarks.measure import Scale, directory
from benchmarks.report import Row, Target

SEED = 13


def corpus(scale: Scale) -> list[Row]:
    """The worst recall of any provider and kind, and the part of innocent lines touched."""
    full = scale.bulk >= 1_000_000
    each, count = (200, 100_000) if full else (20, 5_000)
    found = recall(each)
    hit, total = touched(count)
    worst = min(found, key=lambda kind: found[kind])
    return [
        Row(
            "redaction, recall of the worst kind",
            "",
            [found[worst]],
            [],
            Target(">=", 0.99, "figure"),
            note=f"{worst}; {len(found)} kinds, {each} of each",
        ),
        Row(
            "  innocent lines touched",
            "",
            [sum(hit.values()) / sum(total.values())],
            [],
            Target("<=", 0.001, "figure"),
            note=f"{sum(total.values()):,} lines",
        ),
    ]


def recall(each: int) -> dict[str, float]:
    """Return the part of secrets and personal data that is gone from both columns, by kind."""
    from tests.support import redaction

    rng = random.Random(SEED)
    makers = dict.fromkeys(redaction.PROVIDERS, redaction.secrets)
    makers |= dict.fromkeys(redaction.PERSONAL, redaction.person)
    cases = [(kind, *make(kind, rng)) for kind, make in makers.items() for _ in range(each)]
    gone: Counter[str] = Counter()
    with directory() as root:
        texts = redaction.redacted(root, [line for _, line, _ in cases])
    for (kind, _, parts), shown in zip(cases, texts, strict=True):
        gone[kind] += all(redaction.is_gone(parts, text) for text in shown)
    return {kind: gone[kind] / each for kind in makers}


def touched(count: int) -> tuple[Counter[str], Counter[str]]:
    """Return how many innocent lines were changed and how many there are, by kind."""
    from tests.support import innocent, redaction

    lines = list(innocent.innocent(count, random.Random(SEED)))
    with directory() as root:
        texts = redaction.redacted(root, [line for _, line in lines])
    pairs = zip(lines, texts, strict=True)
    hit = Counter(kind for (kind, line), shown in pairs if set(shown) != {line})
    return hit, Counter(kind for kind, _ in lines)


def table(each: int, count: int) -> str:
    """Return the figures as Markdown."""
    from tests.support import redaction

    found = recall(each)
    hit, total = touched(count)
    providers = [f"{kind} {found[kind]:.3f}" for kind in redaction.PROVIDERS]
    people = [f"{kind} {found[kind]:.3f}" for kind in redaction.PERSONAL]
    lines = [
        f"| {kind} | {n:,} | {hit[kind]:,} | {hit[kind] / n:.3%} |" for kind, n in total.items()
    ]
    share = sum(hit.values()) / sum(total.values())
    return "\n".join(
        [
            f"Recall by provider ({len(providers)}, {each} secrets of each):",
            "; ".join(providers) + ".",
            "",
            f"Recall by kind of personal data ({len(people)}, {each} of each):",
            "; ".join(people) + ".",
            "",
            "| innocent lines | lines | touched | part |",
            "|---|--:|--:|--:|",
            *lines,
            f"| all | {sum(total.values()):,} | {sum(hit.values()):,} | {share:.3%} |",
        ]
    )


if __name__ == "__main__":
    small = "--quick" in sys.argv
    print(table(20, 5_000) if small else table(200, 100_000))
