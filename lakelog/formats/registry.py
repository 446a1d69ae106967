"""The formats by name, and detection of the format of a file from its beginning.

The highest score wins; of equal scores the first format in this list.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from lakelog.errors import InvalidSetting
from lakelog.formats import (
    access,
    auditd,
    bulk,
    cef,
    compose,
    cri,
    custom,
    delimited,
    dialect,
    dialects,
    docker,
    documents,
    journal,
    jsonl,
    lakelog_json,
    local_time,
    logfmt,
    logformat,
    mixture,
    oos,
    otlp,
    plain,
    styles,
    w3c,
    winevent,
    zeek,
)
from lakelog.formats.definition import FormatDefinition
from lakelog.formats.format import EventMembers, Format
from lakelog.formats.line_encoding import EncodedFormat, LineEncoding
from lakelog.runtime.closest import did_you_mean
from lakelog.values import JsonObject

_ALL: tuple[Format, ...] = (
    *dialects.LINES,
    docker.FORM,
    otlp.FORM,
    documents.FORM,
    jsonl.FORM,
    journal.FORM,
    cef.CEF,
    cef.LEEF,
    oos.FORM,
    bulk.FORM,
    zeek.FORM,
    w3c.FORM,
    winevent.FORM,
    cri.FORM,
    auditd.FORM,
    compose.FORM,
    *mixture.PROGRAMS,
    access.FORM,
    styles.SYSLOG,
    styles.TRAFFIC,
    styles.RUNTIME,
    logfmt.FORM,
    styles.APPLOG,
    delimited.FORM,
    plain.FORM,
    lakelog_json.FORM,
    lakelog_json.ColumnarRows("parquet"),
    lakelog_json.ColumnarRows("arrow"),
)
_FORMER = {"compose": compose.FORM.NAME}
"""Names that cursors of older versions may have, and the formats that read such files now."""
# Lines and bytes that detection looks at.
_SNIFFED, _SAMPLE, _HEAD = 50, 1 << 18, 4096
_FEW_OBJECTS, _WORDS_MIN = 0.2, plain.FORM.traits.surest / 2
"""Text of which fewer lines are JSON is text with objects in it."""
_TABLES = (".csv", ".tsv")
"""Files of these names hold tables, even if only the header is there yet."""
_BOM = b"\xef\xbb\xbf"
_JSON = (".jsonl", ".ndjson", ".json")
"""Files of these names hold JSON, however little of it can be read."""
_LINES = (".jsonl", ".ndjson")
"""In files of these names a line that is no JSON is damage, whatever it looks like."""

_ENCODED = re.compile(r"(pattern:\{.*\}|[a-z0-9_-]+(?:@[^~]+)?)~([A-Za-z0-9_.-]+)", re.DOTALL)
"""The name of a format with the encoding of its lines."""


class FormatRegistry(dict[str, Format]):
    """The formats by name."""

    LAST = plain.FORM.NAME
    """The last resort."""
    JSON_LINES = jsonl.FORM
    DOCUMENTS = documents.FORM
    zone_note = staticmethod(local_time.zone_note)

    def by_name(self, name: str) -> Format:
        """Return the format of a name; `access:` may be followed by a LogFormat, and any other name
        by `@` and the zone of times that name none. A pattern is one too. Raises InvalidSetting."""
        if match := _ENCODED.fullmatch(name):
            return EncodedFormat(self.by_name(match[1]), match[2], name)
        if name.startswith(FormatDefinition.PREFIX) or FormatDefinition.is_pattern(name):
            return custom.form(name)
        base, separator, zone = name.partition("@")
        base = _FORMER.get(base, base)
        if separator and base in self:
            return local_time.LocalTimeFormat(self[base], zone, name)
        base, colon, log_format = name.partition(":")
        form = self.get(_FORMER.get(base, base))
        if form is not None and not colon:
            return form
        if form is access.FORM and log_format:
            # The format itself reads both.
            return form if log_format in ("common", "combined") else logformat.form(log_format)
        raise InvalidSetting(f"no format {name!r}: choose from {', '.join(self)}")

    @staticmethod
    def bare(name: str) -> str:
        """Return the name of a format without a zone and an encoding."""
        return name.partition("~")[0].partition("@")[0]

    def is_last(self, name: str) -> bool:
        """Whether a name is that of plain text, the last resort, in whatever zone."""
        return self.bare(name) == self.LAST

    def completed(self, name: str, rules: FormatDefinition | None) -> str:
        """Return the name of a format with the zone and the encoding that a definition gives."""
        if rules and rules.zone:
            name = self.in_zone(name, rules.zone)
        if rules and rules.encoding:
            name = self.in_encoding(name, rules.encoding)
        return name

    def in_zone(self, name: str, zone: str) -> str:
        """Return the name of a format whose times without a zone are of this one; a LogFormat and
        _bulk requests have no such form. An encoding stays."""
        base = self.bare(name)
        if base not in self:
            return name
        has_zone = base != bulk.FORM.NAME and local_time.engine_zone(zone) != "UTC"
        _, tilde, encoding = name.partition("~")
        return f"{base}@{zone}{tilde}{encoding}" if has_zone else f"{base}{tilde}{encoding}"

    @staticmethod
    def in_encoding(name: str, encoding: str) -> str:
        """Return the name of a format whose lines are in an encoding; UTF-8 needs none."""
        match, codec = _ENCODED.fullmatch(name), LineEncoding.codec_of(encoding)
        base = match[1] if match else name
        return base if codec == "utf-8" else f"{base}~{codec}"

    def detect(self, head: bytes, data: bytes, name: str) -> Format:
        """Return the format that fits a file's first bytes best, else its newest ones."""
        is_text = False
        # The head first: a file keeps its format, whatever its newest lines look like.
        for sample in (head[:_HEAD], data[:_SAMPLE]):
            best, sure = self.surest(sample)
            if best is jsonl.FORM and sure < _FEW_OBJECTS and not _ends(name, _JSON):
                best = plain.FORM if plain.FORM.sniff(_first_lines(sample)) > _WORDS_MIN else best
            # what a dialect is known by may stand further on in a line than the head goes
            unseen = (
                best is jsonl.FORM
                and sample is not data
                and len(sample) == _HEAD
                and b"\n" not in sample
            )
            if sure > 0 and best is not plain.FORM and not unseen:
                return best
            is_text = is_text or best is plain.FORM
        header = (head or data)[:_HEAD].partition(b"\n")[0].decode("utf-8", "replace").rstrip("\r")
        if _ends(name, _TABLES) and delimited.is_header(header):
            return delimited.FORM
        return plain.FORM if is_text and not _ends(name, _JSON) else jsonl.FORM

    def scores(self, sample: bytes, more: dict[str, Format] | None = None) -> dict[str, float]:
        """Return the score of each format, and of `more` formats, for the first lines."""
        lines = _first_lines(sample)
        return {name: form.sniff(lines) for name, form in {**self, **(more or {})}.items()}

    def surest(self, sample: bytes) -> tuple[Format, float]:
        """Return the format with the highest of `scores`, and its score, without computing scores
        that cannot be the highest."""
        lines, forms = _first_lines(sample), list(self.values())
        full = [line for line in lines if line.strip()]
        best, postponed = (-1.0, 0), []
        for index, form in enumerate(forms):
            if (form.traits.surest, -index) <= best:
                continue
            # Of most files the first line rules out nearly all formats that go by single lines.
            if full and form.traits.by_line and not form.sniff(full[:1]):
                postponed.append(index)
                continue
            best = max(best, (form.sniff(lines), -index))
        # A format whose first line did not fit can reach no more than the share of the others.
        for index in postponed:
            if (forms[index].traits.surest * (len(full) - 1) / len(full), -index) > best:
                best = max(best, (forms[index].sniff(lines), -index))
        return forms[-best[1]], best[0]

    def reader_of(self, sample: bytes) -> Callable[[JsonObject], EventMembers]:
        """Return what makes an event of each object of JSON lines that begin so: in their dialect,
        but for one that has a type of its own, which is an envelope."""
        form, _ = self.surest(sample)
        if not isinstance(form, dialect.Dialect):
            return jsonl.FORM.typed

        def event_of(members: JsonObject) -> EventMembers:
            is_envelope = members.get("type") or members.get("event_type")
            return jsonl.FORM.typed(members) if is_envelope else form.event(members)

        return event_of

    @staticmethod
    def specialize(form: Format, head: bytes) -> Format:
        """Return a format as a file's first bytes define it, where they do."""
        if not form.traits.encoding and LineEncoding.recoded(head):
            *lines, final_line = head.split(b"\n")  # that may be cut amid a character
            head = b"\n".join([*map(LineEncoding.as_utf8, lines), final_line])
        return form.specialize(head)

    @staticmethod
    def tolerant(form: Format, name: str, *, forced: bool) -> Format:
        """Return a format that also accepts lines of other styles, unless the file of this name
        holds JSON lines alone, or its format was forced."""
        return mixture.tolerant(form, forced=forced or _ends(name, _LINES))

    def check(self, definition: FormatDefinition, names: tuple[str, ...] = ()) -> None:
        """Raise InvalidSetting for an invalid definition; `names` are those of the lake's
        formats."""
        if definition.encoding:
            LineEncoding.codec_of(definition.encoding)
        if definition.pattern:
            self.by_name(definition.spelled())
            return
        lines = (
            definition.begins,
            definition.continues,
            definition.time_format,
            definition.levels,
            definition.define,
        )
        if any(lines):
            raise InvalidSetting(
                "--begins, --continues, --time-format, --level and --define go with a pattern:"
                " add --format '%{...}'"
            )
        # The name of one of the lake's formats is valid here, but a definition to be added (it has
        # a name) may refer to built-in ones only.
        if definition.format and (definition.format not in names or definition.name):
            self._check_name(definition.format, names)
        if definition.zone:
            local_time.zone_of(definition.zone)

    def name_of(self, definition: FormatDefinition) -> str:
        """Return the name of the format that a definition gives, "" if it leaves that to
        lakelog."""
        name = definition.format
        if definition.pattern:
            name = replace(definition, encoding="").spelled()
        return self.completed(name, definition) if name else ""

    def name_in(
        self, definition: FormatDefinition | None, head: bytes, data: bytes, path: str
    ) -> str:
        """Return the name of the format that fits a file's first bytes best, else its newest ones.
        They are read in the encoding that a definition gives; the name says nothing of that yet."""
        if definition and definition.encoding:
            head, data = (
                LineEncoding.decoded(content, definition.encoding) for content in (head, data)
            )
        return self.detect(head, data, path).NAME

    def _check_name(self, name: str, names: tuple[str, ...]) -> None:
        """Raise InvalidSetting for a name that no format has."""
        try:
            self.by_name(name)
        except InvalidSetting as error:
            if ":" in name or "@" in name:
                raise
            known_names = f"; this lake's own: {', '.join(names)}" if names else ""
            hint = did_you_mean(name, [*names, *self])
            raise InvalidSetting("; ".join(filter(None, [f"{error}{known_names}", hint]))) from None


def _first_lines(sample: bytes) -> list[bytes]:
    lines = sample.removeprefix(_BOM).split(b"\n")[:_SNIFFED]
    lines = lines[:-1] if len(lines) > 1 else lines  # the last one may be cut
    return [LineEncoding.as_utf8(line) for line in lines]


def _ends(name: str, endings: tuple[str, ...]) -> bool:
    for ending in (".gz", ".zst"):
        name = name.removesuffix(ending)
    return name.endswith(endings)


FORMATS = FormatRegistry({form.NAME: form for form in _ALL})
