"""What mitmproxy 12.2.3 does not do by itself and has no hook for. Each piece says which hang or leak it closes.

These reach into mitmproxy's layers, so they are for exactly this version: another one does not start.
"""

from __future__ import annotations

import json
import re
from typing import Any

import h2.events
import h11
from mitmproxy import version
from mitmproxy.net.http import http1
from mitmproxy.proxy import events, layer
from mitmproxy.proxy.layers.http import (
    DropStream,
    HttpStream,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    SendHttp,
)
from mitmproxy.proxy.layers.http import _http1, _http2

VERSION = "12.2.3"
REFUSED = "bottle.refused"  # in flow.metadata: flow.response is our refusal, to be sent at once

_INTERIM = re.compile(rb"HTTP/1\.\d 1(?!01)\d\d[ \r\n]")
_HEAD_END = re.compile(rb"\r?\n\r?\n")


def _early_refusal() -> None:
    """A refusal that add-ons set goes out only after the whole request body has come in and been kept in memory; with
    `Expect: 100-continue` the body is even asked for. Send ours at once; what still comes is read and dropped."""
    original = HttpStream.check_killed

    def check_killed(self: HttpStream, emit_error_hook: bool) -> layer.CommandGenerator[bool]:
        if not (self.flow.metadata.get(REFUSED) and self.client_state == self.state_wait_for_request_headers):
            return (yield from original(self, emit_error_hook))
        response = self.flow.response
        assert response is not None
        self.flow.live = False
        self.client_state = self.server_state = self.state_errored
        client, stream = self.context.client, self.stream_id
        body = b"" if self.flow.request.method.upper() == "HEAD" else response.raw_content
        yield DropStream(stream)
        yield SendHttp(ResponseHeaders(stream, response, end_stream=not body), client)
        if body:
            yield SendHttp(ResponseData(stream, body), client)
        yield SendHttp(ResponseEndOfMessage(stream), client)
        return True

    HttpStream.check_killed = check_killed  # type: ignore[method-assign]


def _interim_responses() -> None:
    """A 103 (or a 100 nobody asked for) is taken for the final answer, and the client waits for ever. Drop them."""
    original = _http1.Http1Client.read_headers

    def read_headers(self: Any, event: events.ConnectionEvent) -> layer.CommandGenerator[None]:
        if isinstance(event, events.DataReceived) and self.request:
            while _INTERIM.match(head := bytes(self.buf)) and (end := _HEAD_END.search(head)):
                self.buf.maybe_extract_at_most(end.end())
        yield from original(self, event)

    _http1.Http1Client.read_headers = read_headers  # type: ignore[method-assign]
    original_h2 = _http2.Http2Client.handle_h2_event

    def handle_h2_event(self: Any, event: h2.events.Event) -> Any:
        if isinstance(event, h2.events.InformationalResponseReceived):
            return False
        return (yield from original_h2(self, event))

    _http2.Http2Client.handle_h2_event = handle_h2_event  # type: ignore[method-assign]


class _WithoutTrailers:
    """Trailers of a chunked HTTP/1 body raise NotImplementedError: a hang, and a traceback that the agent can cause at will.
    Dropping them is allowed (RFC 9110 section 6.5.1)."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def __call__(self, buf: Any) -> Any:
        event = self._reader(buf)
        return h11.EndOfMessage() if isinstance(event, h11.EndOfMessage) and event.headers else event

    def read_eof(self) -> Any:
        return self._reader.read_eof()


def _trailers() -> None:
    original = _http1.make_body_reader
    _http1.make_body_reader = lambda size: _WithoutTrailers(original(size))


def _json_errors() -> None:
    """mitmproxy's own errors (an origin that cannot be reached) are HTML pages that name it; ours are JSON."""

    def format_error(status: int, message: str) -> bytes:
        return json.dumps({"error": "bad_gateway" if status == 502 else "bad_request", "reason": message[:300]}).encode() + b"\n"

    def make_error_response(status: int, message: str = "") -> bytes:
        from mitmproxy import http

        headers = http.Headers(Content_Type="application/json", Connection="close")
        return http1.assemble_response(http.Response.make(status, format_error(status, message), headers))

    _http1.format_error = _http2.format_error = format_error
    _http1.make_error_response = make_error_response


def install() -> None:
    if version.VERSION != VERSION:
        raise RuntimeError(f"mitmproxy {version.VERSION}: this add-on is for {VERSION}")
    _early_refusal()
    _interim_responses()
    _trailers()
    _json_errors()


def cut(handler: Any) -> None:
    """Ends a client's connection, and so everything dialled for it."""
    io = handler.transports.get(handler.client)
    if io is not None and io.handler is not None:
        io.handler.cancel("the route is gone")


__all__ = ["REFUSED", "cut", "install"]
