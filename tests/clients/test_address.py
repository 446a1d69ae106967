"""Addresses are divided rightly whatever their passwords hold, which no message tells."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from lakelog.clients.address import Address
from lakelog.clients.redis_config import RedisConfig
from lakelog.consume.consume import source_of
from lakelog.errors import InvalidSetting, LakelogError
from lakelog.oos import download
from lakelog.remotes import known
from lakelog.sync.sync import target_of
from tests.support.odd_passwords import LONG, ODD, PASSWORDS, is_told

ENTRANCES: dict[str, Callable[[str], object]] = {
    "ssh://u:{p}@h/lake": known.checked_url,
    "s3://u:{p}@bucket/lake": known.checked_url,
    "oci://u:{p}@h/lake": known.checked_url,
    "redis://u:{p}@h/0": RedisConfig.from_url,
    "redis://u:{p}@h/0/stream": source_of,
    "kafka://u:{p}@h/topic": source_of,
    "postgresql://u:{p}@h/db": target_of,
    "postgresql://u@h/db?password={p}": target_of,
    "mysql://u:{p}@h/db": target_of,
    "elasticsearch://u:{p}@h/index": target_of,
    "influxdb://u:{p}@h/bucket?org=o": target_of,
    "influxdb://h/bucket?org=o&token={p}": target_of,
    "kafka://u:{p}@h/sink": target_of,
    "http://u:{p}@127.0.0.1:1/feed": download.fetch,
}


@pytest.mark.parametrize("odd", [*ODD, "\udcff"])
def test_escaped_parts_are_what_was_written(odd: str) -> None:
    part = f"a{odd}b"
    text = Address.quoted(part)
    to = Address.parse(f"x://{text}:{text}@h:7,[::1]:8,i/{text}?n={text}", "like x", ["n"])
    assert (to.user, to.password, to.names(), to.options) == (part, part, [part], {"n": part})
    assert to.hosts == (("h", 7), ("::1", 8), ("i", None))


@pytest.mark.parametrize("form", ENTRANCES)
def test_no_message_tells_a_part_of_a_password(form: str) -> None:
    """Whether it is escaped or not, at every entrance: a wrong one is refused in silence of it."""
    for password in PASSWORDS:
        for written in (quote(password, safe=""), quote(password), password):
            try:
                found = ENTRANCES[form](form.format(p=written))
            except LakelogError as error:
                said = (
                    str(error)
                    + repr(error)
                    + repr(error.__context__) * (not error.__suppress_context__)
                )
            else:
                said = repr(found) + getattr(found, "address", "")
            assert not is_told(said), (written, said)


@pytest.mark.parametrize("password", PASSWORDS)
def test_unescaped_passwords_are_taken_whole_or_refused(password: str) -> None:
    """And never divided into a password, a host and a path of another meaning."""
    try:
        to = Address.parse(f"x://u:{password}@h:1/p?o=1", "like x", ["o"])
    except LakelogError:
        assert set(password) & set("/?#")
    else:
        expected = password if "%41" not in password and "%2F" not in password else to.password
        assert (to.password, to.hosts, to.path) == (expected, (("h", 1),), "/p")


def test_variables_are_literal(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    for password in PASSWORDS:
        environ = {"REDIS_PASSWORD": password, "REDIS_USERNAME": "%41"}
        config = RedisConfig.from_url("redis://h", environ)
        assert (config.username, config.password) == ("%41", password)
        if "\n" not in password and "\r" not in password:
            secret.write_text(f"{password}\n")
            config = RedisConfig.from_url("redis://h", {"REDIS_PASSWORD_FILE": str(secret)})
            assert config.credentials() == ("", password)
        assert not is_told(repr(config))


@pytest.mark.parametrize("variable", ["INFLUX_TOKEN", "ELASTICSEARCH_API_KEY"])
@pytest.mark.parametrize("odd", ["\n", "\r", "密"])
def test_keys_that_http_does_not_carry(
    variable: str, odd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, f"Xq7Kd{odd}Wz9Rt")
    kind = variable.partition("_")[0].lower()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        url = {"influx": f"influxdb://127.0.0.1:{port}/b?org=o"}.get(
            kind, f"elasticsearch://127.0.0.1:{port}/i"
        )
        with contextlib.closing(target_of(url)) as target, pytest.raises(InvalidSetting) as caught:
            target.connect()
    assert not is_told(repr(caught.value))
    assert "does not carry" in str(caught.value)


def test_secrets_are_taken_out_in_every_spelling() -> None:
    words = f"no {LONG} nor {quote(LONG, safe='')}"
    assert Address.without_secrets(words, [LONG, "", LONG[:5]]) == "no *** nor ***"


@pytest.mark.parametrize(
    "url",
    ["x", "x:y", "://h", "x://h:0", "x://h:99999", "x://h:1x", "x://h o", "x://h/#a", "x://[::1"],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(LakelogError, match="like x://HOST") as caught:
        Address.parse(url, "like x://HOST")
    assert url not in str(caught.value).replace("like x://HOST", "")
