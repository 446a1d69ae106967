"""Positions in the transactions of PostgreSQL: each event is used exactly once, by whichever of
several readers, however often one dies between two steps."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator

import pytest

import lakelog
from tests.conftest import MakeLake
from tests.support import pages
from tests.support.requirements import need_module
from tests.support.sync_places import PostgresPlace, PostgresServer, postgres_server
from tests.support.tree import ROOT

postgres = need_module("adbc_driver_postgresql.dbapi")
EVENTS, READERS = 60, 3


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as running:
        yield running


def use_a_batch(lake: lakelog.Lake, url: str, dice: random.Random) -> bool:
    """Use the next events in one transaction, or die somewhere; whether there may be more."""
    with (
        contextlib.closing(postgres.connect(url)) as connection,
        contextlib.closing(connection.cursor()) as cursor,
    ):
        cursor.adbc_statement.set_options(**{"adbc.postgresql.use_copy": "false"})
        # Who comes second waits here, and then reads what the first has written.
        cursor.execute("SELECT text FROM place FOR UPDATE")
        ((stored,),) = cursor.fetchall()
        with lake.subscribe(None, from_=stored) as subscription:
            for batch in subscription.batches(size=dice.randint(1, 7), timeout=0.05):
                for event in batch.events:
                    cursor.execute("INSERT INTO orders (subject) VALUES ($1)", [event["subject"]])
                if dice.random() < 0.3:
                    return True  # the connection ends, and with it the transaction
                cursor.execute("UPDATE place SET text = $1", [batch.position])
                connection.commit()
                return True
    return False


def test_readers_that_die_use_each_event_once(make_lake: MakeLake, server: PostgresServer) -> None:
    lake, place = make_lake(), PostgresPlace(server)
    lake.append([{"type": "order", "subject": f"s{n:02}"} for n in range(EVENTS)])
    place.ask("CREATE TABLE orders (number SERIAL, subject TEXT)")
    # As the guide has it: readers of a table without a row would wait for nobody.
    blocks = pages.blocks(ROOT / "docs" / "subscriptions.md")
    (made,) = (block for language, block in blocks if language == "text")
    for statement in filter(None, map(str.strip, made.split(";"))):
        place.ask(statement)
    failures: list[BaseException] = []

    def read(seed: int) -> None:
        dice = random.Random(seed)
        try:
            while use_a_batch(lake, place.url, dice):
                pass
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(READERS)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert not failures
    used = [subject for (subject,) in place.ask("SELECT subject FROM orders ORDER BY number")]
    assert used == [f"s{n:02}" for n in range(EVENTS)]
