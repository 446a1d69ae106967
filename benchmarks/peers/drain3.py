"""Drain3: the templates of messages, one message at a time."""

from __future__ import annotations

import orjson
from drain3 import TemplateMiner
from drain3.masking import MaskingInstruction
from drain3.template_miner_config import TemplateMinerConfig

MASKS = {
    "ADDRESS": r"\b\d+\.\d+\.\d+\.\d+(?::\d+)?\b",
    "HEX": r"\b(?=[0-9a-f]*\d)[0-9a-f]{8,}\b",
    "NUMBER": r"\b\d+(?:ms)?\b",
}


class Peer:
    """A miner in memory, with masks for addresses, hexadecimal ids and numbers."""

    def __init__(self, root: str) -> None:
        settings = TemplateMinerConfig()
        settings.masking_instructions = [
            MaskingInstruction(pattern, name) for name, pattern in MASKS.items()
        ]
        self._miner = TemplateMiner(config=settings)

    def mine(self, path: str) -> list[int]:
        """Read each line, and return the cluster of each message."""
        with open(path, "rb") as file:
            messages = (orjson.loads(line)["message"] for line in file)
            return [self._miner.add_log_message(message)["cluster_id"] for message in messages]
