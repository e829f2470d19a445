"""The add-on on HTTP/2, on both sides. Runs as smoke_test.py does."""

from __future__ import annotations

import socket
import ssl
import threading
import time
import unittest
from typing import Any

import h2.config
import h2.connection
import h2.events

import smoke_support as base

PORT = 8443


def serve(listener: socket.socket) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain("/tmp/origin.pem")
    context.set_alpn_protocols(["h2"])

    def one(raw: socket.socket) -> None:
        try:
            with context.wrap_socket(raw, server_side=True) as tls:
                converse(tls)
        except OSError:
            pass

    while True:
        threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()


def converse(tls: ssl.SSLSocket) -> None:
    """Answers when a request is complete: a 103, the headers it got, how much body, and trailers, as gRPC has them."""
    conn = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    conn.initiate_connection()
    tls.sendall(conn.data_to_send())
    got: dict[int, int] = {}
    while data := tls.recv(65536):
        for event in conn.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                headers = {k.decode(): v.decode() for k, v in event.headers}
                base.seen.append((headers[":method"], headers[":path"], headers))
                got[event.stream_id] = 0
                conn.send_headers(event.stream_id, [(":status", "103"), ("link", "</a>")])
                conn.send_headers(event.stream_id, [(":status", "200"), ("x-echo", headers.get("authorization", ""))])
                conn.send_data(event.stream_id, b"begin " + headers.get("authorization", "").encode() + b" ")
            elif isinstance(event, h2.events.DataReceived):
                got[event.stream_id] += len(event.data)
                conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                conn.send_data(event.stream_id, b"got %d" % got[event.stream_id])
                conn.send_headers(event.stream_id, [("grpc-status", "0")], end_stream=True)
        tls.sendall(conn.data_to_send())


class Client:
    def __init__(self, host: str) -> None:
        code, sock, _ = base.tunnel(host, PORT)
        assert code == 200
        self.tls = base.secure(sock, host, "/tmp/mitm-ca.pem", ["h2"])
        assert self.tls.selected_alpn_protocol() == "h2"
        self.conn = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.conn.initiate_connection()
        self.headers: dict[str, str] = {}
        self.trailers: dict[str, str] = {}
        self.body = b""
        self.ended = False

    def start(self, path: str, host: str, *more: tuple[str, str], method: str = "GET", end: bool = True) -> int:
        stream = self.conn.get_next_available_stream_id()
        self.headers, self.trailers, self.body, self.ended = {}, {}, b"", False
        self.conn.send_headers(stream, [(":method", method), (":scheme", "https"), (":authority", host), (":path", path), *more], end_stream=end)
        self.flush()
        return stream

    def flush(self) -> None:
        self.tls.sendall(self.conn.data_to_send())

    def read(self, until: Any) -> None:
        end = time.monotonic() + 10
        while not until():
            assert time.monotonic() < end, "no answer"
            data = self.tls.recv(65536)
            assert data, "closed"
            for event in self.conn.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    self.headers = dict(event.headers)
                elif isinstance(event, h2.events.TrailersReceived):
                    self.trailers = dict(event.headers)
                elif isinstance(event, h2.events.DataReceived):
                    self.body += event.data
                    self.conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                    self.ended = True
            self.flush()

    def ask(self, path: str, host: str = "origin.test", *more: tuple[str, str], method: str = "GET") -> str:
        self.start(path, host, *more, method=method)
        self.read(lambda: self.ended)
        return self.headers[":status"]


def setUpModule() -> None:
    base.TABLE["routes"][0]["ports"].append(PORT)
    base.TABLE["routes"][2]["ports"].append(PORT)
    base.start()
    listener = socket.create_server(("127.0.0.1", PORT))
    threading.Thread(target=serve, args=(listener,), daemon=True).start()


def tearDownModule() -> None:
    base.stop()


class SmokeH2(unittest.TestCase):
    def setUp(self) -> None:
        base.seen.clear()

    def tearDown(self) -> None:
        self.assertNotIn(base.TOKEN, "".join(base.lines))
        self.assertNotIn("Traceback", "".join(base.lines), "".join(base.lines[-30:]))

    def test_injects_and_passes_trailers(self) -> None:
        client = Client("origin.test")
        self.assertEqual(client.ask("/v1/%7ea", "origin.test:8443", ("cookie", "a"), ("authorization", "mine"), ("te", "trailers")), "200")
        method, path, headers = base.seen[-1]
        self.assertEqual((method, path, headers[":authority"]), ("GET", "/v1/~a", "origin.test:8443"))
        self.assertEqual(headers["authorization"], "Bearer " + base.TOKEN)
        self.assertNotIn("cookie", headers)
        self.assertEqual(client.trailers, {"grpc-status": "0"})
        self.assertEqual(client.body, b"begin Bearer " + b"*" * len(base.TOKEN) + b" got 0")

    def test_both_directions_stream(self) -> None:
        client = Client("origin.test")
        stream = client.start("/v1/up", "origin.test:8443", method="POST", end=False)
        client.read(lambda: b"begin" in client.body)  # before the request is complete
        client.conn.send_data(stream, b"x" * 1000, end_stream=True)
        client.flush()
        client.read(lambda: client.ended)
        self.assertTrue(client.body.endswith(b"got 1000"))

    def test_refuses_at_once_with_a_body_in_flight(self) -> None:
        client = Client("origin.test")
        stream = client.start("/v2/", "origin.test:8443", method="POST", end=False)
        client.read(lambda: client.ended)
        self.assertEqual(client.headers[":status"], "403")
        self.assertIn(b"path_not_allowed", client.body)
        client.conn.send_data(stream, b"x" * 1000, end_stream=True)
        client.flush()
        self.assertEqual(client.ask("/v1/next", "origin.test:8443"), "200")
        self.assertEqual(len(base.seen), 1)

    def test_refuses_another_authority(self) -> None:
        client = Client("origin.test")
        self.assertEqual(client.ask("/v1/x", "other.test:8443"), "421")
        self.assertEqual(client.ask("/v1/x", "origin.test:8444"), "421")
        self.assertEqual(client.ask("/v1/x", "origin.test:8443"), "200")

    def test_a_refused_address_is_json(self) -> None:
        client = Client("mixed.test")
        for _ in range(2):
            self.assertEqual(client.ask("/", "mixed.test:8443", method="GET"), "403")
            self.assertIn(b"address_not_allowed", client.body)


if __name__ == "__main__":
    unittest.main(verbosity=2)
