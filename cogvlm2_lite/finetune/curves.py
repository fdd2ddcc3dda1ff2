"""The numbers of a run for TensorBoard, in its file format, without its package.

A file is a row of records: length (8 bytes), masked CRC of the length (4), the event, masked CRC of
the event (4). An event is a protobuf message: wall_time = 1, step = 2, file_version = 3, summary =
5 with values of tag = 1 and simple_value = 2. Source: tensorflow/core/util/event.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any

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


def _scalar(step: int, tag: str, value: float) -> bytes:
    one = _field(1, tag.encode()) + _varint(2 << 3 | 5) + struct.pack("<f", value)
    # No wall time: the same run writes the same bytes.
    return _varint(2 << 3) + _varint(step) + _field(5, _field(1, one))


_TAGS = {
    "loss": "Train/Loss",
    "lr": "Train/LearningRate",
    "grad_norm": "Train/GradNorm",
    "held_out": "Eval/Epoch_Loss",
}


def event_file(log: Iterable[Mapping[str, Any]]) -> bytes:
    """Return a TensorBoard file with the numbers of the lines of `log.jsonl`."""
    records = [_record(_field(3, b"brain.Event:2"))]
    for entry in log:
        for key, tag in _TAGS.items():
            if key in entry:
                records.append(_record(_scalar(int(entry["step"]), tag, float(entry[key]))))
    return b"".join(records)
