"""tantivy: an index with positions, and the events stored beside it."""

from __future__ import annotations

from datetime import datetime

import orjson
import tantivy

from benchmarks.peers import files


class Peer:
    """An index on disk."""

    def __init__(self, root: str) -> None:
        self.root = root
        builder = tantivy.SchemaBuilder()
        builder.add_text_field("text", stored=True)
        builder.add_integer_field("n", fast=True)
        builder.add_date_field("time", fast=True)
        self.index = tantivy.Index(builder.build(), path=root)

    def load_texts(self, path: str) -> None:
        """Index all lines, and merge what was written."""
        writer = self.index.writer(200_000_000, 1)
        with open(path, "rb") as file:
            for n, line in enumerate(file):
                time = datetime.fromisoformat(orjson.loads(line)["timestamp"])
                document = {"text": line.decode().replace("_", " "), "n": n, "time": time}
                writer.add_document(tantivy.Document.from_dict(document, self.index.schema))
        writer.commit()
        writer.wait_merging_threads()
        self.index.reload()

    def find(self, question: str, asked: str) -> int | None:
        """The answer to one question; what is inside of words is not indexed."""
        searcher = self.index.searcher()
        if question == "inside":
            return None
        text = asked.replace("_", " ")
        query = self.index.parse_query(f'"{text}"', ["text"])
        if question == "count":
            return int(searcher.search(query, 1, count=True).count)
        if question == "hours":
            spans = {"hours": {"date_histogram": {"field": "time", "fixed_interval": "1h"}}}
            buckets = searcher.aggregate(query, spans)["hours"]["buckets"]
            return sum(int(bucket["doc_count"]) for bucket in buckets)
        hits = searcher.search(query, 100, order_by_field="n").hits
        return len([searcher.doc(address) for _, address in hits])

    def text_bytes(self) -> tuple[int, int]:
        """All bytes; the index alone is what is not the store of texts."""
        whole = files.size(self.root)
        return whole, whole - files.size_of(self.root, ".store")
