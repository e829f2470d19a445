"""The add-on in a real mitmdump, against an origin on loopback. Runs inside the image, without a network:

docker run --rm --network none -u 0 -v "$PWD/sidecars/egress/mitmproxy:/opt/bot-bottle/egress:ro" \\
  --entrypoint /opt/mitmproxy/bin/python bot-bottle/mitmproxy /opt/bot-bottle/egress/smoke_test.py
"""

from __future__ import annotations

import base64
import datetime
import http.client
import http.server
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import unittest
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

TOKEN = "s3cr3t-value-0123456789"
PROXY, HEALTH = ("127.0.0.1", 9099), ("127.0.0.1", 9091)
NAMES = ["origin.test", "other.test", "spliced.test", "mixed.test", "nowhere.test", "plain.test"]
seen: list[tuple[str, str, dict[str, str]]] = []
release = threading.Event()


def route(host: str, **more: Any) -> dict[str, Any]:
    return {"host": host, "ports": [443], "methods": ["GET", "HEAD", "POST"], "paths": ["/"]} | more


INJECT = [{"header": "authorization", "tokenEnv": "BOT_BOTTLE_TOKEN_A", "prefix": "Bearer "}]
TABLE = {
    "bottle": "smoke", "policyHash": "sha256:" + "0" * 64, "mode": "enforce", "allowCIDRs": ["127.0.0.1/32"],
    "routes": [
        route("origin.test", paths=["/v1/"], inject=INJECT),
        route("other.test", inject=[INJECT[0] | {"tokenEnv": "BOT_BOTTLE_TOKEN_MISSING"}]),
        route("mixed.test"),
        route("nowhere.test"),
        route("plain.test", ports=[80], inject=INJECT),
        route("spliced.test", inspect="none"),
    ],
}


class Origin(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        if self.path.startswith("/v1/events"):
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self._chunk(b"data: first\n\n")
            release.wait(20)
            self._chunk(b"data: last\n\n")
            self.wfile.write(b"0\r\n\r\n")
            return
        if self.path.startswith("/v1/split"):
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in (b"x" + TOKEN[:5].encode(), TOKEN[5:].encode() + b"y", base64.b64encode(b"ab:" + TOKEN.encode())):
                self._chunk(piece)
                time.sleep(0.05)
            self.wfile.write(b"0\r\nX-Trailer: 1\r\n\r\n")
            return
        if self.path.startswith("/v1/early"):
            self.wfile.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        answer = json.dumps({"path": self.path, "got": len(body), "headers": dict(self.headers)}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.send_header("Alt-Svc", 'h3=":443"')
        self.send_header("X-Echo", self.headers.get("authorization", ""))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    do_POST = do_HEAD = do_GET

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()


def make_ca(name: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    return certificate(name, key, None, None), key


def certificate(name: str, key: Any, issuer: Any, issuer_key: Any, names: list[str] | None = None) -> x509.Certificate:
    now = datetime.datetime.now(datetime.timezone.utc)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    issuer_public = (issuer_key or key).public_key()
    builder = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(issuer.subject if issuer else subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_public), critical=False)
        .add_extension(x509.KeyUsage(issuer is not None, False, False, False, False, issuer is None, issuer is None, False, False), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
    return builder.sign(issuer_key or key, hashes.SHA256())


def pem(cert: x509.Certificate, key: Any = None) -> str:
    text = cert.public_bytes(serialization.Encoding.PEM).decode()
    if key is not None:
        text += key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
    return text


def write(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".new", "w", encoding="ascii") as file:
        file.write(text)
    os.replace(path + ".new", path)


def write_table(table: dict[str, Any]) -> None:
    write("/etc/bot-bottle/policy/routes.yaml", json.dumps(table))


def eventually(what: Any, seconds: float = 5) -> Any:
    """Waits for a condition: what() is true, or does not raise any more."""
    end = time.monotonic() + seconds
    while True:
        try:
            found = what()
            if found:
                return found
        except OSError:
            pass
        if time.monotonic() > end:
            raise AssertionError("the condition did not come true in time")
        time.sleep(0.02)


def status() -> dict[str, Any]:
    connection = http.client.HTTPConnection(*HEALTH, timeout=5)
    connection.request("GET", "/healthz")
    return json.loads(connection.getresponse().read())


def tunnel(host: str, port: int = 443) -> tuple[int, socket.socket, bytes]:
    sock = socket.create_connection(PROXY, timeout=10)
    sock.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        data = sock.recv(1)
        if not data:
            break
        head += data
    return int(head.split()[1]), sock, head


class Answer:
    def __init__(self, response: http.client.HTTPResponse, body: bytes | None = None) -> None:
        self.status, self.headers = response.status, response.headers
        self.body = response.read() if body is None else body

    def json(self) -> Any:
        return json.loads(self.body)


def ask(sock: socket.socket, request: bytes, method: str = "GET") -> Answer:
    sock.sendall(request)
    response = http.client.HTTPResponse(sock, method=method)
    response.begin()
    return Answer(response)


def secure(sock: socket.socket, sni: str | None, ca: str, alpn: list[str] | None = None) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=ca)
    context.check_hostname = sni is not None
    if alpn:
        context.set_alpn_protocols(alpn)
    return context.wrap_socket(sock, server_hostname=sni)


def call(host: str, path: str, headers: str = "", method: str = "GET", body: bytes = b"", sni: str | None = None) -> Answer:
    code, sock, _ = tunnel(host)
    assert code == 200, code
    with secure(sock, sni or host, "/tmp/mitm-ca.pem") as tls:
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        return ask(tls, f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{length}{headers}\r\n".encode() + body, method)


daemon: subprocess.Popen[str]
lines: list[str] = []


def setUpModule() -> None:
    global daemon
    with open("/etc/hosts", "a", encoding="ascii") as hosts:
        for name in NAMES:
            hosts.write(f"127.0.0.1 {name}\n" if name != "nowhere.test" else f"10.9.8.7 {name}\n")
        hosts.write("10.9.8.7 mixed.test\n")
    upstream, upstream_key = make_ca("upstream")
    leaf_key = ec.generate_private_key(ec.SECP256R1())
    write("/tmp/origin.pem", pem(certificate("origin", leaf_key, upstream, upstream_key, NAMES), leaf_key))
    write("/etc/bot-bottle/upstream/upstream-ca.pem", pem(upstream))
    mitm, mitm_key = make_ca("egress")
    write("/etc/bot-bottle/ca/mitmproxy-ca.pem", pem(mitm, mitm_key))
    write("/tmp/mitm-ca.pem", pem(mitm))
    write("/etc/bot-bottle/tokens/BOT_BOTTLE_TOKEN_A", TOKEN)
    write_table(TABLE)
    for port, tls in ((443, True), (80, False)):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Origin)
        server.daemon_threads = True
        if tls:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain("/tmp/origin.pem")
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    options = ["confdir=/opt/bot-bottle/conf", "ssl_verify_upstream_trusted_ca=/etc/bot-bottle/upstream/upstream-ca.pem",
               "connection_strategy=lazy", "upstream_cert=false", "rawtcp=false", "http3=false", "onboarding=false",
               "block_global=false", "flow_detail=0", "termlog_verbosity=warn", "tcp_timeout=3600"]
    command = ["mitmdump", "--mode", "regular", "--listen-host", PROXY[0], "--listen-port", str(PROXY[1])]
    for option in options:
        command += ["--set", option]
    command += ["-s", "/opt/bot-bottle/egress/addon.py"]
    daemon = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def read() -> None:
        assert daemon.stdout is not None
        for line in daemon.stdout:
            lines.append(line)

    threading.Thread(target=read, daemon=True).start()
    try:
        eventually(lambda: status()["ready"], 20)
    except AssertionError:
        sys.stderr.write("".join(lines))
        raise


def tearDownModule() -> None:
    daemon.terminate()
    daemon.wait(10)


class Smoke(unittest.TestCase):
    def setUp(self) -> None:
        seen.clear()

    def tearDown(self) -> None:
        self.assertNotIn(TOKEN, "".join(lines))
        self.assertNotIn("Traceback", "".join(lines), "".join(lines[-30:]))
        self.assertNotIn('"type": "error", "time": "x', "".join(lines))

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
        code, sock, _ = tunnel("evil.test")
        self.assertEqual(code, 403)
        sock.close()
        code, sock, _ = tunnel("origin.test", 22)
        self.assertEqual(code, 403)
        sock.close()
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
            self.assertEqual((answer.status, answer.json()["error"]), (502, "bad_gateway"))
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
        self.assertEqual(tunnel("origin.test")[0], 403)
        write("/etc/bot-bottle/policy/routes.yaml", "{ broken")
        eventually(lambda: status()["error"])
        self.assertEqual(tunnel("plain.test", 80)[0], 200)  # the last good one stays in force
        write_table(TABLE)
        eventually(lambda: status()["error"] is None)
        self.assertEqual(tunnel("origin.test")[0], 200)
        with open("/run/bot-bottle/status.json", encoding="ascii") as file:
            self.assertEqual(json.load(file)["policyHash"], TABLE["policyHash"])

    def test_connections_are_used_again(self) -> None:
        _, sock, _ = tunnel("origin.test")
        with secure(sock, "origin.test", "/tmp/mitm-ca.pem") as tls:
            for _ in range(3):
                self.assertEqual(ask(tls, b"GET /v1/x HTTP/1.1\r\nHost: origin.test\r\n\r\n").status, 200)


if __name__ == "__main__":
    unittest.main(verbosity=2)
