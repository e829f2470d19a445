"""What mitmproxy 12.2.3 does not do by itself and has no hook for. Each piece says which hang or leak it closes.

These reach into mitmproxy's layers, so they are for exactly this version: another one does not start.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import h2.events
import h11
from mitmproxy import http, version
from mitmproxy.addons import next_layer
from mitmproxy.flow import Error
from mitmproxy.net.http import http1
from mitmproxy.proxy import events, layer, layers
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import (
    DropStream,
    GetHttpConnection,
    HttpErrorHook,
    HTTPMode,
    HttpStream,
    RequestHeaders,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    SendHttp,
    _http1,
    _http2,
)

VERSION = "12.2.3"
REFUSED = "bottle.refused"  # in flow.metadata: flow.response is our refusal, to be sent at once

_INTERIM = re.compile(rb"HTTP/1\.\d 1(?!01)\d\d[ \r\n]")
_HEAD_END = re.compile(rb"\r?\n\r?\n")


def _send(stream: HttpStream, response: http.Response) -> layer.CommandGenerator[None]:
    """Answers at once and forgets the stream: what still comes of the request is read and dropped."""
    stream.flow.live = False
    stream.client_state = stream.server_state = stream.state_errored
    client, number = stream.context.client, stream.stream_id
    body = b"" if stream.flow.request.method.upper() == "HEAD" else response.raw_content or b""
    yield DropStream(number)
    yield SendHttp(ResponseHeaders(number, response, end_stream=not body), client)
    if body:
        yield SendHttp(ResponseData(number, body), client)
    yield SendHttp(ResponseEndOfMessage(number), client)


def _early_refusal() -> None:
    """A refusal that add-ons set goes out only after the whole request body has come in and been kept in memory; with
    `Expect: 100-continue` the body is even asked for. Ours goes at once."""
    original = HttpStream.check_killed

    def check_killed(self: HttpStream, emit_error_hook: bool) -> layer.CommandGenerator[bool]:
        if not (self.flow.metadata.get(REFUSED) and self.client_state == self.state_wait_for_request_headers):
            return (yield from original(self, emit_error_hook))
        assert self.flow.response is not None
        yield from _send(self, self.flow.response)
        return True

    HttpStream.check_killed = check_killed  # type: ignore[method-assign]


def _dial_errors(answer: Callable[[http.HTTPFlow, str], http.Response]) -> None:
    """An origin that cannot be dialled is an HTML page that names mitmproxy; `answer` makes ours of the flow and the error."""

    def make_server_connection(self: HttpStream) -> layer.CommandGenerator[bool]:
        request, server = self.flow.request, self.flow.server_conn
        wanted = GetHttpConnection((request.host, request.port), request.scheme == "https", server.via, server.transport_protocol)
        found, error = yield wanted
        if not error:
            self.context.server = self.flow.server_conn = found
            return True
        self.flow.error = Error(error)
        yield HttpErrorHook(self.flow)
        yield from _send(self, answer(self.flow, error))
        return False

    HttpStream.make_server_connection = make_server_connection  # type: ignore[method-assign]


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


def _body_framing() -> None:
    """A body that came over HTTP/2 without a length goes to an HTTP/1 origin without any framing: the origin waits for ever, or reads
    the body as the next request, which nobody judged. Such a body is chunked."""
    original = _http1.Http1Client.send

    def send(self: Any, event: Any) -> layer.CommandGenerator[None]:
        if isinstance(event, RequestHeaders) and not event.end_stream:
            headers = event.request.headers
            if "content-length" not in headers and "transfer-encoding" not in headers:
                headers["transfer-encoding"] = "chunked"
        yield from original(self, event)

    _http1.Http1Client.send = send  # type: ignore[method-assign]


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


def _only_http() -> None:
    """One byte of a ClientHello is taken for HTTP, and the handshake hangs: wait for three. DNS over TCP (ports 53, 5353) and raw
    TCP would pass without a verdict."""
    original = next_layer.NextLayer._next_layer

    def choose(self: Any, context: Context, data_client: bytes, data_server: bytes) -> layer.Layer | None:
        chosen = original(self, context, data_client, data_server)
        if isinstance(chosen, (layers.TCPLayer, layers.UDPLayer, layers.DNSLayer)):
            chosen = layers.HttpLayer(context, HTTPMode.transparent)
        if isinstance(chosen, layers.HttpLayer) and chosen.mode is HTTPMode.transparent:
            if len(data_client) < 3 and data_client[:1] == b"\x16":
                raise next_layer.NeedsMoreData
        return chosen

    next_layer.NextLayer._next_layer = choose  # type: ignore[method-assign]


def _json_errors() -> None:
    """mitmproxy's own errors (a malformed message) are HTML pages that name it; ours are JSON."""

    def format_error(status: int, message: str) -> bytes:
        return json.dumps({"error": "bad_gateway" if status >= 500 else "bad_request", "reason": message[:300]}).encode() + b"\n"

    def make_error_response(status: int, message: str = "") -> bytes:
        headers = http.Headers(Content_Type="application/json", Connection="close")
        return http1.assemble_response(http.Response.make(status, format_error(status, message), headers))

    _http1.format_error = _http2.format_error = format_error
    _http1.make_error_response = make_error_response


def install(answer: Callable[[http.HTTPFlow, str], http.Response]) -> None:
    if version.VERSION != VERSION:
        raise RuntimeError(f"mitmproxy {version.VERSION}: this add-on is for {VERSION}")
    _early_refusal()
    _dial_errors(answer)
    _interim_responses()
    _body_framing()
    _trailers()
    _only_http()
    _json_errors()


def cut(handler: Any) -> None:
    """Ends a client's connection, and so everything dialled for it."""
    io = handler.transports.get(handler.client)
    if io is not None and io.handler is not None:
        io.handler.cancel("the route is gone")


__all__ = ["REFUSED", "cut", "install"]
