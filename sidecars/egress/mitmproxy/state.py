"""What is in force: the route table and the tokens, reloaded when their files change, and the report of it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import os
import re
from collections.abc import Callable
from typing import Any

import audit
from policy import Table
from tokens import Tokens

ROUTES = "/etc/bot-bottle/policy/routes.yaml"
TOKENS = "/etc/bot-bottle/tokens"
STATUS = "/run/bot-bottle/status.json"
STATUS_KEY = "/etc/bot-bottle/ca/status.key"
POLL_SECONDS = 0.25  # a change is to be in force within 2 s

Signature = tuple[tuple[int, int, int], ...]


def _signature(*paths: str) -> Signature:
    """Follows links, so the swap of a ConfigMap's folder is seen as well as a rename or a write in place."""
    found = []
    for path in paths:
        try:
            stat = os.stat(path)
            found.append((stat.st_ino, stat.st_mtime_ns, stat.st_size))
        except OSError:
            found.append((0, 0, 0))
    return tuple(found)


class State:
    """Used from the event loop only. Without a table that ever loaded, `table` is None and nothing is allowed."""

    def __init__(self, routes: str = ROUTES, tokens: str = TOKENS, status: str = STATUS) -> None:
        self.table: Table | None = None
        self.tokens = Tokens({})
        self._routes, self._tokens, self._status = routes, tokens, status
        self._seen_routes: Signature | None = None
        self._seen_tokens: Signature | None = None
        self._file_hash: str | None = None
        self._error: str | None = "no policy loaded yet"
        self._generation = 0
        self._ready = False
        self._written: str | None = None

    def refresh(self) -> bool:
        """Reads what changed. True if another table is in force than before."""
        changed = self._refresh_routes()
        names = sorted(os.listdir(self._tokens)) if os.path.isdir(self._tokens) else []
        signature = _signature(self._tokens, *(os.path.join(self._tokens, name) for name in names))
        if signature != self._seen_tokens:
            self.tokens = Tokens.read(self._tokens)
            self._seen_tokens = signature
        self._report()
        return changed

    def _refresh_routes(self) -> bool:
        signature = _signature(self._routes)
        if signature == self._seen_routes:
            return False
        self._seen_routes = signature
        try:
            with open(self._routes, "rb") as file:
                text = file.read()
            table = Table(text)
        except Exception as error:  # whatever it is, the last good table stays
            self._error = f"routes.yaml: {error}"
            audit.write("error", error=self._error)
            return False
        self.table, self._error = table, None
        self._file_hash = "sha256:" + hashlib.sha256(text).hexdigest()
        self._generation += 1
        return True

    def set_ready(self) -> None:
        self._ready = True
        self._report()

    @property
    def ready(self) -> bool:
        return self._ready and self.table is not None

    @property
    def bottle(self) -> str:
        return self.table.info.get("bottle", "") if self.table else ""

    def report(self) -> dict[str, Any]:
        info = self.table.info if self.table else {}
        return {
            "policyHash": info.get("policyHash"),
            "fileSha256": self._file_hash,
            "tokens": {env: "present" if self.tokens.get(env) else "missing" for env in info.get("tokens", [])},
            "error": self._error,
            "ready": self.ready,
            "generation": self._generation,
        }

    def _report(self) -> None:
        text = json.dumps(self.report())
        if text == self._written:
            return
        try:
            with open(self._status + ".new", "w", encoding="ascii") as file:
                file.write(text + "\n")
            os.replace(self._status + ".new", self._status)
            self._written = text
        except OSError as error:  # the health port still tells it
            audit.write("error", error=f"status.json: {error.strerror}")
            self._written = text

    async def watch(self, on_change: Callable[[], None]) -> None:
        while True:
            try:
                if self.refresh():
                    on_change()
            except Exception as error:
                audit.write("error", error=f"reload: {type(error).__name__}")
            await asyncio.sleep(POLL_SECONDS)


_ASKED = re.compile(rb"GET /status\?nonce=([0-9a-f]{32}) HTTP/1\.[01]\r\n")
_REASONS = {200: b"OK", 404: b"Not Found", 503: b"Service Unavailable"}


def read_status_key(path: str = STATUS_KEY) -> bytes | None:
    """What the controller and egress share; None where nobody asks over the network."""
    try:
        with open(path, "rb") as file:
            return file.read(1024).strip() or None
    except OSError:
        return None


def _signed(state: State, nonce: bytes, key: bytes) -> tuple[bytes, bytes]:
    """The report with the nonce, and the proof that it is ours: anyone in the bottle may take the port while egress is down."""
    body = json.dumps(state.report() | {"nonce": nonce.decode()}).encode()
    return body, b"Bottle-Mac: " + hmac.new(key, nonce + b"\n" + body, hashlib.sha256).hexdigest().encode() + b"\r\n"


async def serve_health(state: State, port: int, key: bytes | None = None) -> asyncio.Server:
    """GET /healthz: the report, 200 when ready, else 503. GET /status?nonce=<32 hex>: the report with a MAC, if there is a key."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            code, body, mac = 404, b"{}", b""
            if head.startswith(b"GET /healthz "):
                code, body = (200 if state.ready else 503), json.dumps(state.report()).encode()
            elif key and (asked := _ASKED.match(head)):
                code, (body, mac) = 200, _signed(state, asked[1], key)
            writer.write(
                b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%sConnection: close\r\n\r\n%s"
                % (code, _REASONS[code], len(body), mac, body)
            )
            await asyncio.wait_for(writer.drain(), 5)
        writer.close()

    # No host: both families, those of them that the pod has.
    return await asyncio.start_server(answer, None, port, limit=8192)
