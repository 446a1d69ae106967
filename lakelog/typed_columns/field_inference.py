"""Inference: the schema of typed segments that fits a sample of payloads.

What is read here decides only how many rows become typed, never what a row contains: each row is
proved when it is written. So the rules are statistics, and the rarer case stays text.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from lakelog.typed_columns import schema as schemas
from lakelog.typed_columns.schema import Member, Schema

LEAVES_MAX = 256
"""A schema has at most this many columns; what is rarer stays text."""
_RARE = 0.01
"""A kind that fewer values of a member have does not count: their rows stay text."""
_MAP_NAMES, _MAP_SHARE = 64, 0.1
"""An object of more names than this, of which one object has less than this part, is a map."""
_LARGE = 512
_FIRST_COLON = re.compile(r'\{"(?:[^"\\]|\\.)*":( ?)')
_NUMBERS = frozenset(("int", "float", "number"))


class _Object(list[tuple[str, Any]]):
    """The members of an object, in their order and with those that are there twice."""


class _Float(str):
    """The text of a number with a point or an exponent."""

    __slots__ = ()


@dataclass(slots=True)
class _ValueKinds:
    """What was seen at one place of the payloads: values by kind, and nulls."""

    kinds: Counter[str] = field(default_factory=Counter)
    nulls: int = 0
    whole: int = 0
    """Numbers of kind float that have no fraction and were written with a point."""
    members: dict[str, _ValueKinds] = field(default_factory=dict)
    orders: Counter[tuple[str, ...]] = field(default_factory=Counter)
    elements: _ValueKinds | None = None

    @property
    def seen(self) -> int:
        """The number of values, nulls included."""
        return self.kinds.total() + self.nulls

    def add(self, value: Any, depth: int) -> None:
        """Count a value and what is in it."""
        if value is None:
            self.nulls += 1
            return
        value_kind = _kind(value)
        self.kinds[value_kind] += 1
        if value_kind == "float":
            self.whole += value.endswith(".0")
        elif value_kind == "object" and depth < schemas.DEPTH_MAX:
            self.orders[tuple(dict.fromkeys(name for name, _ in value))] += 1
            for name, item in value:
                self.members.setdefault(name, _ValueKinds()).add(item, depth + 1)
        elif value_kind == "list" and depth < schemas.DEPTH_MAX:
            self.elements = self.elements or _ValueKinds()
            for item in value:
                self.elements.add(item, depth + 1)


def infer(payloads: Iterable[str], start: Schema | None = None) -> Schema | None:
    """Return a schema for these payloads that has the members of `start` as well; None where most
    of them are no objects."""
    root, spaces = _ValueKinds(), Counter[str]()
    for payload in payloads:
        # Depth, digits and half surrogates that Python refuses: such rows stay text.
        try:
            value = json.loads(payload, object_pairs_hook=_Object, parse_float=_Float)
        except (ValueError, RecursionError):
            continue
        root.add(value, 0)
        match = _FIRST_COLON.match(payload)
        spaces[match[1] if match else ""] += 1
    if not root.members:
        return start
    members = _members(root, start.members if start else ())
    if start and leaves(members) > LEAVES_MAX:
        members = _members(root)
    members = _bounded(members, root)
    return Schema(members, spaces[" "] > spaces[""]) if members else None


def _kind(value: Any) -> str:
    if isinstance(value, _Float):
        return "float"
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if -(1 << 63) <= value < 1 << 63 else "json"
    return "object" if isinstance(value, _Object) else "list"


def _members(values: _ValueKinds, start: tuple[Member, ...] = ()) -> tuple[Member, ...]:
    """Return the members of an object, the most frequent first to get a name."""
    earlier = {member.name: member for member in start}
    by_name: dict[str, str] = {schemas.fold(name): name for name in earlier}
    often = sorted(values.members, key=lambda name: -values.members[name].seen)
    # In a large sample a name that was there once is noise, and would cost a column.
    seen_min = 2 if values.kinds["object"] >= _LARGE else 1
    often = [name for name in often[:LEAVES_MAX] if values.members[name].seen >= seen_min]
    for name in filter(schemas.is_name, often):
        by_name.setdefault(schemas.fold(name), name)
    objects, members = values.kinds["object"], dict[str, Member]()
    for name in by_name.values():
        seen_values, old = values.members.get(name), earlier.get(name)
        if seen_values is None:
            members[name] = earlier[name]
            continue
        # NULL is the more frequent of the two, and the other one stays text.
        is_null = seen_values.nulls > objects - seen_values.seen
        members[name] = _member(name, seen_values, is_null, old)
    return tuple(members[name] for name in _order(values, start, members.keys()))


def _member(name: str, values: _ValueKinds, is_null: bool, old: Member | None = None) -> Member:
    member_kind = _decide(values)
    if old is not None and values.kinds.total() == 0:
        return Member(name, old.kind, is_null, old.members)
    if old is not None and old.kind != member_kind:
        member_kind = "number" if {member_kind, old.kind} <= _NUMBERS else "json"
    if member_kind == "object":
        members = _members(values, old.members if old else ())
        return (
            Member(name, member_kind, is_null, members)
            if members
            else Member(name, "json", is_null)
        )
    if member_kind == "list":
        before = old.members[0] if old else None
        element = _member("", values.elements or _ValueKinds(), True, before)
        return Member(name, member_kind, is_null, (element,))
    return Member(name, member_kind, is_null)


def _decide(values: _ValueKinds) -> str:
    """Return the kind that almost all values of a place have, json where there is none."""
    kinds, total = values.kinds, values.kinds.total()
    common = {common_kind for common_kind, count in kinds.items() if count > total * _RARE}
    if common == {"int", "float"} and values.whole <= total * _RARE:
        return "number"
    if len(common) != 1:
        return "json"
    (common_kind,) = common
    if common_kind == "object":
        return "json" if not values.members or _is_map(values) else common_kind
    if common_kind == "list":
        return common_kind if values.elements is not None else "json"
    return common_kind


def _is_map(values: _ValueKinds) -> bool:
    """Whether an object is used as a map: many names, each in few objects."""
    names = len(values.members)
    values_seen = sum(member_values.seen for member_values in values.members.values())
    return names > _MAP_NAMES and values_seen < names * values.kinds["object"] * _MAP_SHARE


def _order(values: _ValueKinds, start: tuple[Member, ...], names: Iterable[str]) -> list[str]:
    """Return names in one order that agrees with most of those in which they were seen."""
    unplaced = dict.fromkeys(names)
    edges: dict[str, Counter[str]] = {name: Counter() for name in unplaced}
    orders = Counter(values.orders)
    orders[tuple(member.name for member in start)] += 1
    for order, count in orders.items():
        chain = [name for name in order if name in unplaced]
        for before, after in itertools.pairwise(chain):
            edges[after][before] += count
    followers: dict[str, list[str]] = {name: [] for name in unplaced}
    against = dict.fromkeys(unplaced, 0)
    for after, befores in edges.items():
        for before, count in befores.items():
            if edges[before][after] <= count:
                followers[before].append(after)
                against[after] += count
    ordered: list[str] = []
    while against:
        # Where the orders form a cycle, the name with the least against it comes first.
        name = min(against, key=against.__getitem__)
        del against[name]
        ordered.append(name)
        for after in followers[name]:
            if after in against:
                against[after] -= edges[after][name]
    return ordered


def leaves(members: tuple[Member, ...]) -> int:
    """Return the number of columns of these members."""
    return sum(leaves(member.members) if member.members else 1 for member in members)


def _bounded(members: tuple[Member, ...], values: _ValueKinds) -> tuple[Member, ...]:
    """Return members of at most LEAVES_MAX columns: wide ones become JSON, rare ones go."""
    while leaves(members) > LEAVES_MAX:
        widest = max(members, key=lambda member: leaves(member.members))
        if not widest.members:
            break
        plain = Member(widest.name, "json", widest.null)
        members = tuple(plain if member is widest else member for member in members)
    if len(members) <= LEAVES_MAX:
        return members
    unseen = _ValueKinds()
    often = sorted(members, key=lambda member: -values.members.get(member.name, unseen).seen)
    frequent = {member.name for member in often[:LEAVES_MAX]}
    return tuple(member for member in members if member.name in frequent)
