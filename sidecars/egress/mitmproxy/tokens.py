"""The token files, and the removal of their values from what goes back to the agent."""

from __future__ import annotations

import base64
import os
import re

# Shorter values would be found everywhere by chance.
SHORTEST_REDACTED = 8
_NAME = re.compile(r"[A-Z][A-Z0-9_]*\Z")
_VALUE = re.compile(rb"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?\Z")


class Tokens:
    """One reading of the folder: immutable. A file that is empty or unfit for a header counts as missing."""

    def __init__(self, values: dict[str, str]) -> None:
        self._values = values

    @classmethod
    def read(cls, folder: str) -> Tokens:
        values: dict[str, str] = {}
        try:
            names = os.listdir(folder)
        except OSError:
            names = []
        for name in names:
            if not _NAME.match(name):
                continue
            try:
                with open(os.path.join(folder, name), "rb") as file:
                    raw = file.read(64 * 1024).strip(b"\r\n")
            except OSError:
                continue
            if _VALUE.match(raw):
                values[name] = raw.decode("ascii")
        return cls(values)

    def get(self, env: str) -> str | None:
        return self._values.get(env)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokens) and self._values == other._values

    def __repr__(self) -> str:  # values must not reach a log by way of a traceback
        return f"Tokens({sorted(self._values)})"


def _base64_cores(value: bytes) -> set[bytes]:
    """The part of base64(x + value + y) that does not depend on x and y, for the three alignments."""
    cores = set()
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + value)
        start = (0, 2, 3)[shift]
        end = (shift + len(value)) // 3 * 4
        cores |= {encoded[start:end], encoded[start:end].translate(bytes.maketrans(b"+/", b"-_"))}
    return cores


def spellings(value: str) -> tuple[bytes, ...]:
    """How an origin may spell a token when it sends it back: plain, base64, hex. Longest first."""
    if len(value) < SHORTEST_REDACTED:
        return ()
    raw = value.encode("ascii")
    found = {raw, raw.hex().encode(), raw.hex().upper().encode()} | _base64_cores(raw)
    return tuple(sorted((s for s in found if len(s) >= SHORTEST_REDACTED), key=lambda s: (-len(s), s)))


def redact(data: bytes, patterns: tuple[bytes, ...]) -> bytes:
    """Every spelling becomes as many asterisks: lengths, and so Content-Length, stay true."""
    for pattern in patterns:
        if pattern in data:
            data = data.replace(pattern, b"*" * len(pattern))
    return data


class Redactor:
    """Redacts a body that comes in chunks. Keeps back only what may be the beginning of a token, so that a stream of events is
    not delayed; an empty chunk is the end of the body."""

    def __init__(self, patterns: tuple[bytes, ...]) -> None:
        self._patterns = patterns
        self._kept = b""

    def __call__(self, chunk: bytes) -> bytes:
        data = redact(self._kept + chunk, self._patterns)
        self._kept = b""
        if chunk:
            keep = max((_beginning(data, pattern) for pattern in self._patterns), default=0)
            if keep:
                data, self._kept = data[:-keep], data[-keep:]
        return data


def _beginning(data: bytes, pattern: bytes) -> int:
    """Length of the longest end of data that is a proper beginning of pattern."""
    tail = data[-(len(pattern) - 1):]
    at = tail.find(pattern[:1])
    while at >= 0:
        if pattern.startswith(tail[at:]):
            return len(tail) - at
        at = tail.find(pattern[:1], at + 1)
    return 0
