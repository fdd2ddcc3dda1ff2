"""The numbers of a run for TensorBoard, in its file format, without its package.

A file is a row of records: length (8 bytes), masked CRC of the length (4), the event, masked CRC of
the event (4). An event is a protobuf message: wall_time = 1, step = 2, file_version = 3, summary =
5 with values of tag = 1 and simple_value = 2. Source: tensorflow/core/util/event.proto.
"""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cogvlm2_lite.files import write_whole

_MASK = 0xA282EAD8
_POLYNOMIAL = 0x82F63B78  # CRC-32C, reversed


def _table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _table()


def _masked_crc(data: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF)


def _record(event: bytes) -> bytes:
    length = struct.pack("<Q", len(event))
    return length + _masked_crc(length) + event + _masked_crc(event)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _double(number: int, value: float) -> bytes:
    return _varint(number << 3 | 1) + struct.pack("<d", value)


def _event(step: int, when: float, values: Mapping[str, float]) -> bytes:
    summary = b"".join(
        _field(1, _field(1, tag.encode()) + _varint(2 << 3 | 5) + struct.pack("<f", value))
        for tag, value in values.items()
    )
    return _record(_double(1, when) + _varint(2 << 3) + _varint(step) + _field(5, summary))


def _time(entry: Mapping[str, Any]) -> float:
    return float(entry.get("time", 0))


def _exp(loss: float) -> float:
    return math.exp(min(loss, 80.0))  # the largest power that a float32 has room for is e^88


class Scalars:
    """Turns the lines of `log.jsonl` into TensorBoard's numbers, with the tags of the demo."""

    def __init__(self) -> None:
        self._epoch = 0
        self._sum = self._labels = 0.0

    def of(self, entry: Mapping[str, Any]) -> dict[str, float]:
        """Return the numbers of a line by tag. Lines come in their order."""
        if "held_out" in entry:
            return self._evaluation(entry)
        found = {}
        for key, tag in (
            ("loss", "Train/Loss"), ("lr", "Train/LearningRate"), ("grad_norm", "Train/GradNorm"),
        ):  # fmt: skip
            if entry.get(key) is not None:
                found[tag] = float(entry[key])
        if entry.get("seconds"):
            tokens = entry.get("computed", entry["tokens"])
            found["Train/TokensPerSecond"] = tokens / entry["seconds"]
        if entry.get("epoch", 0) != self._epoch:
            self._epoch, self._sum, self._labels = entry.get("epoch", 0), 0.0, 0.0
        if entry.get("loss") is not None:
            labels = entry.get("labels", 1)
            self._sum += entry["loss"] * labels
            self._labels += labels
        return found

    def _evaluation(self, entry: Mapping[str, Any]) -> dict[str, float]:
        found: dict[str, float] = {}
        if self._labels:
            mean = self._sum / self._labels
            found |= {"Train/Epoch_Loss": mean, "Train/Perplexity": _exp(mean)}
        for key, end in (("held_out", ""), ("old", "_Old")):
            if entry.get(key) is not None:
                loss = float(entry[key])
                found |= {f"Eval/Epoch_Loss{end}": loss, f"Eval/Perplexity{end}": _exp(loss)}
        return found


class EventFile:
    """A file for TensorBoard that grows with the log; TensorBoard may be reading it."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._written = -1  # lines; -1: the file has to be made
        self._scalars = Scalars()

    def update(self, log: Sequence[Mapping[str, Any]]) -> None:
        """Append the lines that the file lacks. Raises OSError; the next call writes a new file."""
        if self._written < 0:
            self._scalars = Scalars()
            data = self._header(log) + self._records(log)
            write_whole(self._file, lambda temporary: temporary.write_bytes(data))
        elif len(log) > self._written:
            data, self._written = self._records(log[self._written :]), -1
            with self._file.open("ab") as stream:
                stream.write(data)
        self._written = len(log)

    def _header(self, log: Sequence[Mapping[str, Any]]) -> bytes:
        when = _time(log[0]) if log else time.time()
        return _record(_double(1, when) + _field(3, b"brain.Event:2"))

    def _records(self, log: Iterable[Mapping[str, Any]]) -> bytes:
        records = []
        for entry in log:
            values = self._scalars.of(entry)
            if values:
                records.append(_event(int(entry["step"]), _time(entry), values))
        return b"".join(records)
