"""Lines that hold neither secrets nor personal data: hashes, versions, times, ids, code, logs."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import ipaddress
import random
import re
import uuid
from collections.abc import Callable, Iterator

from lakelog.train import patterns
from tests.support.redaction import DATA, ROOT


def _hash(rng: random.Random) -> str:
    kind = rng.choice(["md5", "sha1", "sha256", "sha512", "blake2b"])
    digest = hashlib.new(kind, rng.randbytes(8)).hexdigest()
    return rng.choice(
        [
            f"{digest}  release.tar.gz",
            f"{kind}:{digest}",
            f"commit {digest[:40]}",
            digest,
            f'{{"digest":"{kind}:{digest}","size":{rng.randrange(9**9)}}}',
            f'etag: W/"{digest[:32]}"',
            f"index {digest[:7]}..{digest[8:15]} 100644",
            f"image@{kind}:{digest}",
            f"integrity={kind}-{digest[:43]}=",
            f"cache key {digest[:16]} miss",
            f"object {digest[:12]}",
        ]
    )


def _version(rng: random.Random) -> str:
    a, b, c, d = (rng.randrange(30) for _ in range(4))
    four = f"{a}.{b}.{c}.{d}"
    return rng.choice(
        [
            f"version {four}",
            f"v{four} released",
            f"Version: {four}",
            f"foo-{four}.jar",
            f"requests=={a}.{b}.{c}",
            f"mod=={four}",
            f"Mozilla/5.0 Chrome/{100 + a}.0.0.0 Safari/537.36",
            f"nginx/{a}.{b}.{c} (Ubuntu)",
            f"Microsoft-IIS/{a}.{b}",
            f"Outlook/{four}",
            f"lib_{four}_amd64.deb",
            f"kernel 5.{b}.{c}-{d}-generic",
            f'{{"version":"{four}"}}',
            f'"app_version": "{four}"',
            f"firmware {four}-beta",
            f"build {four}+git{a}",
            f"openjdk {a}.{b}.{c}_{d}",
            f"oid 1.3.6.1.4.1.{a}.{b}",
            f"npm i lodash@{a}.{b}.{c}",
            f"rev {four}",
            f"pkg@{a}.{b}.{c}-rc.{d}",
            f"section {four}",
        ]
    )


def _time(rng: random.Random) -> str:
    h, m, s = rng.randrange(24), rng.randrange(60), rng.randrange(60)
    clock, day = (
        f"{h:02d}:{m:02d}:{s:02d}",
        f"20{rng.randrange(10, 40)}-{1 + m % 12:02d}-{1 + h:02d}",
    )
    return rng.choice(
        [
            f"at {clock}.{rng.randrange(1000):03d} on Tuesday",
            f"{day}T{clock}+02:00 started",
            clock,
            f"call {day} {clock}",
            f"last call at {clock}",
            f"{day} {clock},123 INFO done",
            f"{clock}:{s:02d} frame",
            f"epoch {rng.randrange(10**9, 2 * 10**9)}",
            f"epoch_ms={rng.randrange(10**12, 2 * 10**12)}",
            f"[{1 + h:02d}/Nov/2026:{clock} +0000]",
            f"callback={rng.randrange(10**12, 2 * 10**12)}&_=1",
            f"Nov {1 + h} {clock} host cron[{rng.randrange(9999)}]: tick",
            f"took {s}.{m:03d} s",
            f"{day} {day}",
            f"telemetry: {rng.randrange(10**8)}",
            f"calls: {rng.randrange(10**8)}",
            f"P{h}DT{m}M{s}S",
        ]
    )


def _id(rng: random.Random) -> str:
    u = str(uuid.UUID(int=rng.getrandbits(128), version=4))
    n, x = rng.randrange(10**15, 10**17), rng.getrandbits(64)
    return rng.choice(
        [
            f"request {u}",
            f"trace_id={u.replace('-', '')}",
            f"span {x:016x}",
            f"id {n}",
            f"0x{x:016x}",
            f"MAC {':'.join(f'{rng.randrange(256):02x}' for _ in range(6))}",
            f"order #{n % 10**9}",
            f"wwn {':'.join(f'{rng.randrange(256):02x}' for _ in range(8))}",
            f"snowflake {n * 7}",
            f"i-{x:017x}",
            f"arn:aws:s3:::bucket/{u}",
            f"pod web-{x % 10**9:x}-{x % 97:x}xz",
            f"uid={u}",
            f"blk_-{n}{rng.randrange(99)}",
            f"ISBN 978-3-16-{x % 10**6:06d}-0",
            f"size={n} bytes",
            f"pid {x % 99999}",
            f"max_tokens={n % 9999} total_tokens: {n % 99999}",
            f'ETag: "{x:x}"',
            f"{u}.parquet",
        ]
    )


CODE = (
    "class {N}:",
    "class {N} extends Base {{",
    "def {n}(self) -> {N}:",
    "new {N}({n})",
    "{N}::{n}()",
    "git@github.com:org/{n}.git",
    "remote: git@gitlab.com:{n}/{n}.git",
    "token = tokenizer.next()",
    "const token: string = getToken();",
    "password = getpass.getpass()",
    "if not password:",
    'api_key=os.environ["OPENAI_API_KEY"]',
    "api_key: str | None = None",
    "secret = self.secret",
    "token=self.token,",
    "std::vector<Foo::Bar> a::b",
    "import {n}.{N};",
    "x = y[1:2]",
    "for i in 1..10",
    "return token.type == Token.NAME",
    "this.password = password;",
    'password = ""',
    "ssh_key: {{path}}",
    "access_token = response.json()['access_token']",
    "auth: password authentication",
    "a@b.T + c",
    "@Override public {N} get() {{",
    "struct {N} {{ int a; }};",
    "SELECT a FROM t WHERE password IS NULL",
    "  secretKeyRef: {{name: x, key: y}}",
    "credentials: 'include'",
    "tokens: 17",
    "use e2::{n}::f3;",
    "password: required",
    "Password:",
    "secret: true",
    "--token-file {n}",
    "token_type=bearer",
    "key: value",
    "PWD=/home/x OLDPWD=/tmp",
    "#define KEY_{n} 0x{h}",
    "logo@2x.png",
    "getty@tty1.service",
    "n = 10::20",
    "sk-spinner sk-circle-fade",
    "hf_hub_download(repo_id)",
    "gl_Position = vec4(p, 1.0);",
    "eyJust a word",
    "Bearer authentication is used",
    "Basic usage of the tool",
    "cookie=None",
    "accept cookies: yes",
)


def _code(rng: random.Random) -> str:
    name = rng.choice(patterns.names())
    return rng.choice(CODE).format(N=name, n=name.lower(), h=f"{rng.getrandbits(24):x}")


def _own_lines() -> list[str]:
    """Lines of this project's own code."""
    files = sorted((ROOT / "lakelog").rglob("*.py"))
    lines = [line for file in files for line in file.read_text("utf-8").splitlines()]
    return [line for line in lines if len(line.split()) > 1 and _is_plain(line)]


def _real_lines() -> list[str]:
    """Lines of real logs and traces without anything that plainly is personal."""
    found: list[str] = []
    for folder in ("services", "loghub", "web", "zeek", "lnav"):
        for file in sorted(p for p in (DATA / folder).rglob("*") if p.is_file())[:200]:
            text = file.read_bytes()[:20_000].decode("utf-8", "replace")
            found += [line[:500] for line in text.splitlines()[:100]]
    return [line for line in found if line.strip() and _is_plain(line)]


_ADDRESS = re.compile(r"[0-9]+(?:\.[0-9]+){3}|[0-9A-Fa-f]*(?::[0-9A-Fa-f]*){2,}[0-9.]*")
_WORD = re.compile(r"[A-Za-z]+")


def _is_plain(line: str) -> bool:
    """Whether no word is a name or an address, as the standard library reads them."""
    if "@" in line or set(_WORD.findall(line)) & _names():
        return False
    for word in _ADDRESS.findall(line):
        for piece in (word, word.rpartition(":")[0], word.strip(".:")):
            with contextlib.suppress(ValueError):
                ipaddress.ip_address(piece)
                return False
    return True


@functools.cache
def _names() -> frozenset[str]:
    return frozenset(patterns.names())


MAKERS: dict[str, Callable[[random.Random], str]] = {
    "hashes": _hash,
    "versions": _version,
    "times": _time,
    "ids": _id,
    "code": _code,
}


def innocent(count: int, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Yield (kind, line): generated kinds, this project's code, and real logs where they are."""
    drawn: dict[str, list[str]] = {"own code": _own_lines(), "real logs": _real_lines()}
    kinds = [*MAKERS, *(kind for kind, lines in drawn.items() if lines)]
    for number in range(count):
        kind = kinds[number % len(kinds)]
        yield kind, MAKERS[kind](rng) if kind in MAKERS else rng.choice(drawn[kind])
