"""The add-on in a real mitmdump, against an origin on loopback. `smoke.sh` runs it inside the image, without a network."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import ssl
import time
import unittest
from typing import Any

from smoke_support import (
    PROXY,
    STATUS_KEY,
    TABLE,
    TOKEN,
    ask,
    call,
    connect,
    eventually,
    health,
    lines,
    release,
    secure,
    seen,
    start,
    status,
    stop,
    tunnel,
    write,
    write_table,
)


def setUpModule() -> None:
    start()


def tearDownModule() -> None:
    stop()


class Smoke(unittest.TestCase):
    def setUp(self) -> None:
        seen.clear()

    def tearDown(self) -> None:
        self.assertNotIn(TOKEN, "".join(lines))
        self.assertNotIn("Traceback", "".join(lines), "".join(lines[-30:]))

    def audit(self, **want: Any) -> None:
        def found() -> bool:
            for line in lines:
                if line.startswith("{") and want.items() <= json.loads(line).items():
                    return True
            return False

        eventually(found)

    def test_injects_and_strips(self) -> None:
        answer = call("origin.test", "/v1/%7Ea?q=1", "Authorization: Bearer mine\r\nCookie: a=b\r\nX-Api-Key: k\r\nX-HTTP-Method-Override: PUT\r\nX-Amz-Security-Token: t\r\nX-Plain: p\r\n")
        self.assertEqual(answer.status, 200)
        method, path, headers = seen[-1]
        self.assertEqual((method, path), ("GET", "/v1/~a?q=1"))
        self.assertEqual(headers["authorization"], "Bearer " + TOKEN)
        self.assertEqual(headers["x-plain"], "p")
        self.assertTrue({"cookie", "x-api-key", "x-http-method-override", "x-amz-security-token"}.isdisjoint(headers))
        self.audit(type="audit", event="request", allowed=True, host="origin.test", path="/v1/~a", method="GET")

    def test_redacts_what_comes_back(self) -> None:
        answer = call("origin.test", "/v1/x")
        self.assertNotIn(TOKEN, str(answer.headers) + answer.body.decode())
        self.assertIn("*" * len(TOKEN), answer.headers["x-echo"])
        self.assertIsNone(answer.headers["alt-svc"])

    def test_redacts_across_chunks_and_drops_trailers(self) -> None:
        body = call("origin.test", "/v1/split").body
        self.assertTrue(body.startswith(b"x" + b"*" * len(TOKEN) + b"y"), body)
        self.assertNotIn(base64.b64encode(b"ab:" + TOKEN.encode())[6:-4], body)

    def test_refuses_at_connect(self) -> None:
        self.assertEqual(connect("evil.test"), 403)
        self.assertEqual(connect("origin.test", 22), 403)
        self.audit(event="connect", allowed=False, host="evil.test", code="host_not_allowed")

    def test_refuses_path_and_method(self) -> None:
        self.assertEqual(call("origin.test", "/v2/").json()["error"], "path_not_allowed")
        self.assertEqual(call("origin.test", "/v1/../v2/").status, 403)
        self.assertEqual(call("origin.test", "/v1/%c0%ae").status, 400)
        self.assertEqual(call("origin.test", "/v1/x", method="DELETE").status, 403)
        self.assertEqual(seen, [])

    def test_refuses_another_identity(self) -> None:
        code, sock, _ = tunnel("origin.test")
        with secure(sock, "origin.test", "/tmp/mitm-ca.pem") as tls:
            answer = ask(tls, b"GET /v1/x HTTP/1.1\r\nHost: other.test\r\n\r\n")
            self.assertEqual(answer.status, 421)
            answer = ask(tls, b"GET /v1/x HTTP/1.1\r\nHost: origin.test\r\n\r\n")  # the connection goes on
            self.assertEqual(answer.status, 200)
        self.assertEqual(call("origin.test", "/v1/x", sni="other.test").status, 421)

    def test_refusal_does_not_wait_for_the_body(self) -> None:
        code, sock, _ = tunnel("origin.test")
        with secure(sock, "origin.test", "/tmp/mitm-ca.pem") as tls:
            answer = ask(tls, b"POST /v2/ HTTP/1.1\r\nHost: origin.test\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n")
        self.assertEqual(answer.status, 403)
        self.assertEqual(answer.headers["connection"], "close")

    def test_posts(self) -> None:
        self.assertEqual(call("origin.test", "/v1/p", method="POST", body=b"z" * 300000).json()["got"], 300000)
        code, sock, _ = tunnel("origin.test")
        with secure(sock, "origin.test", "/tmp/mitm-ca.pem") as tls:
            tls.sendall(b"POST /v1/p HTTP/1.1\r\nHost: origin.test\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
            self.assertTrue(tls.recv(1000).startswith(b"HTTP/1.1 100"))
            self.assertEqual(ask(tls, b"abc").json()["got"], 3)

    def test_refuses_trailers_on_h1(self) -> None:
        self.assertEqual(call("origin.test", "/v1/x", "TE: trailers\r\n").status, 400)
        self.assertEqual(call("origin.test", "/v1/x", "Trailer: x\r\n").status, 400)

    def test_interim_answers_pass_by(self) -> None:
        self.assertEqual(call("origin.test", "/v1/early").json()["path"], "/v1/early")

    def test_trailers_of_chunked_bodies_do_not_hang(self) -> None:
        _, sock, _ = tunnel("origin.test")
        with secure(sock, "origin.test", "/tmp/mitm-ca.pem") as tls:
            body = b"3\r\nabc\r\n0\r\nX-Late: 1\r\n\r\n"
            head = b"POST /v1/x HTTP/1.1\r\nHost: origin.test\r\nTransfer-Encoding: chunked\r\n\r\n"
            self.assertEqual(ask(tls, head + body).status, 200)

    def test_malformed_requests_get_json(self) -> None:
        for bad in (b"GET /v1/x HTTP/1.1\r\nHost: origin.test\r\nX: a\r\n b\r\n\r\n",
                    b"GET /v1/x HTTP/1.1\r\nHost: origin.test\r\nX: a\0b\r\n\r\n",
                    b"GET /v1/x HTTP/1.1\r\n\r\n",
                    b"GET /v1/x HTTP/1.1\r\nHost: origin.test\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                    b"GET /v1/x HTTP/1.1\r\nHost : origin.test\r\n\r\n",
                    b"GET  /v1/x\r\n\r\n"):
            _, sock, _ = tunnel("origin.test")
            with secure(sock, "origin.test", "/tmp/mitm-ca.pem") as tls:
                answer = ask(tls, bad)
                self.assertEqual(answer.status, 400, bad)
                self.assertTrue(answer.json()["error"])
        self.assertEqual(seen, [])

    def test_websocket(self) -> None:
        _, sock, _ = tunnel("origin.test")
        with secure(sock, "origin.test", "/tmp/mitm-ca.pem") as tls:
            tls.sendall(b"GET /v1/ws HTTP/1.1\r\nHost: origin.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
            got = b""
            while b"hello" not in got:
                data = tls.recv(4096)
                self.assertTrue(data, got)
                got += data
            self.assertTrue(got.startswith(b"HTTP/1.1 101"), got)
            tls.sendall(b"\x81\x84\0\0\0\0ping")
            while b"ping" not in got:
                data = tls.recv(4096)
                self.assertTrue(data, got)
                got += data
            self.assertNotIn(TOKEN.encode(), got)

    def test_a_slow_client_hello(self) -> None:
        _, sock, _ = tunnel("origin.test")
        context, incoming, outgoing = ssl.create_default_context(cafile="/tmp/mitm-ca.pem"), ssl.MemoryBIO(), ssl.MemoryBIO()
        session = context.wrap_bio(incoming, outgoing, server_hostname="origin.test")
        with self.assertRaises(ssl.SSLWantReadError):
            session.do_handshake()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in outgoing.read():
            sock.sendall(bytes([byte]))
            time.sleep(0.0005)  # no wait for anything: it makes the bytes arrive one by one
        self.assertEqual(sock.recv(1), b"\x16")
        sock.close()

    def test_head(self) -> None:
        self.assertEqual(call("origin.test", "/v1/x", method="HEAD").status, 200)
        self.assertEqual(call("origin.test", "/v2/x", method="HEAD").status, 403)

    def test_missing_token_is_503(self) -> None:
        self.assertEqual(call("other.test", "/").status, 503)
        write("/etc/bot-bottle/tokens/BOT_BOTTLE_TOKEN_MISSING", "another-secret")
        eventually(lambda: status()["tokens"]["BOT_BOTTLE_TOKEN_MISSING"] == "present")
        self.assertEqual(call("other.test", "/").status, 200)
        write("/etc/bot-bottle/tokens/BOT_BOTTLE_TOKEN_MISSING", "")
        eventually(lambda: status()["tokens"]["BOT_BOTTLE_TOKEN_MISSING"] == "missing")
        self.assertEqual(call("other.test", "/").status, 503)

    def test_private_and_mixed_addresses_are_not_dialled(self) -> None:
        for host in ("mixed.test", "nowhere.test"):
            answer = call(host, "/")
            self.assertEqual((answer.status, answer.json()["error"]), (403, "address_not_allowed"))
        self.audit(code="address_not_allowed", host="mixed.test", allowed=False)

    def test_plain_http_gets_no_credentials(self) -> None:
        sock = socket.create_connection(PROXY, timeout=10)
        answer = ask(sock, b"GET http://plain.test/x HTTP/1.1\r\nHost: plain.test\r\nAuthorization: mine\r\n\r\n")
        self.assertEqual(answer.status, 200)
        self.assertNotIn("authorization", seen[-1][2])
        sock.close()

    def test_plain_http_inside_a_tls_tunnel_is_refused(self) -> None:
        _, sock, _ = tunnel("origin.test")
        self.assertIn(ask(sock, b"GET /v1/x HTTP/1.1\r\nHost: origin.test\r\n\r\n").status, (400, 403))
        sock.close()
        _, sock, _ = tunnel("origin.test")
        sock.sendall(b"SSH-2.0-x\r\n\r\n")
        sock.recv(4096)
        sock.close()
        self.assertEqual(seen, [])

    def test_splices_where_told(self) -> None:
        _, sock, _ = tunnel("spliced.test")
        with secure(sock, "spliced.test", "/etc/bot-bottle/upstream/upstream-ca.pem") as tls:
            self.assertEqual(ask(tls, b"GET /anything HTTP/1.1\r\nHost: spliced.test\r\nAuthorization: mine\r\n\r\n").status, 200)
        self.assertEqual(seen[-1][2]["authorization"], "mine")
        _, sock, _ = tunnel("spliced.test")
        with secure(sock, "origin.test", "/tmp/mitm-ca.pem") as tls:
            self.assertEqual(ask(tls, b"GET /v1/x HTTP/1.1\r\nHost: spliced.test\r\n\r\n").status, 421)

    def test_events_come_at_once_and_end_with_their_route(self) -> None:
        release.clear()
        _, sock, _ = tunnel("origin.test")
        with secure(sock, "origin.test", "/tmp/mitm-ca.pem") as tls:
            tls.sendall(b"GET /v1/events HTTP/1.1\r\nHost: origin.test\r\n\r\n")
            got = b""
            while b"first" not in got:
                got += tls.recv(4096)
            generation = status()["generation"]
            write_table(TABLE | {"routes": [r for r in TABLE["routes"] if r["host"] != "origin.test"]})
            try:
                while data := tls.recv(4096):
                    got += data
            except OSError:
                pass
            self.assertNotIn(b"last", got)
            release.set()
        self.assertGreater(status()["generation"], generation)
        self.assertEqual(connect("origin.test"), 403)
        write("/etc/bot-bottle/policy/routes.yaml", "{ broken")
        eventually(lambda: status()["error"])
        self.assertEqual(connect("plain.test", 80), 200)  # the last good one stays in force
        write_table(TABLE)
        eventually(lambda: status()["error"] is None)
        self.assertEqual(connect("origin.test"), 200)
        with open("/run/bot-bottle/status.json", encoding="ascii") as file:
            self.assertEqual(json.load(file)["policyHash"], TABLE["policyHash"])

    def test_proves_its_status(self) -> None:
        nonce = "0123456789abcdef" * 2
        answer = health("/status?nonce=" + nonce)
        mac = hmac.new(STATUS_KEY.encode(), nonce.encode() + b"\n" + answer.body, hashlib.sha256).hexdigest()
        self.assertEqual((answer.status, answer.headers["bottle-mac"]), (200, mac))
        self.assertEqual(answer.json(), status() | {"nonce": nonce})
        self.assertEqual(answer.json()["policyHash"], TABLE["policyHash"])
        for path in ("/status", "/status?nonce=", "/status?nonce=" + nonce[1:], "/status?nonce=" + nonce.upper(), "/status?nonce=" + nonce + "0",
                     "/status?nonce=" + nonce + "&x=1", "/status?x=1&nonce=" + nonce, "//status?nonce=" + nonce):
            refused = health(path)
            self.assertEqual((refused.status, refused.headers["bottle-mac"], refused.body), (404, None, b"{}"), path)
        self.assertIsNone(health("/healthz").headers["bottle-mac"])
        self.assertNotIn(STATUS_KEY, "".join(lines) + answer.body.decode())

    def test_connections_are_used_again(self) -> None:
        _, sock, _ = tunnel("origin.test")
        with secure(sock, "origin.test", "/tmp/mitm-ca.pem") as tls:
            for _ in range(3):
                self.assertEqual(ask(tls, b"GET /v1/x HTTP/1.1\r\nHost: origin.test\r\n\r\n").status, 200)


if __name__ == "__main__":
    unittest.main(verbosity=2)
