"""The world of the smoke tests, all inside one container: an origin, its CA, the egress CA, policy, tokens and a real mitmdump."""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
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
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

TOKEN = "s3cr3t-value-0123456789"
STATUS_KEY = "5a" * 32
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
            with contextlib.suppress(OSError):  # cut, as it should be
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
        if self.path.startswith("/v1/ws"):
            digest = hashlib.sha1((self.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
            self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                             b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n")
            text = b"hello " + self.headers["authorization"].encode()
            self.wfile.write(bytes([0x81, len(text)]) + text)
            head = self.rfile.read(6)
            data = bytes(b ^ head[2 + i % 4] for i, b in enumerate(self.rfile.read(head[1] & 127)))
            self.wfile.write(bytes([0x81, len(data)]) + data)
            self.close_connection = True
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


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        pass  # connections that the egress cut


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


def health(path: str) -> Answer:
    connection = http.client.HTTPConnection(*HEALTH, timeout=5)
    connection.request("GET", path)
    return Answer(connection.getresponse())


def status() -> dict[str, Any]:
    return health("/healthz").json()


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


def connect(host: str, port: int = 443) -> int:
    code, sock, _ = tunnel(host, port)
    sock.close()
    return code


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


def start() -> None:
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
    write("/etc/bot-bottle/ca/status.key", STATUS_KEY)
    write("/etc/bot-bottle/tokens/BOT_BOTTLE_TOKEN_A", TOKEN)
    write_table(TABLE)
    for port, tls in ((443, True), (80, False)):
        server = Server(("127.0.0.1", port), Origin)
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


def stop() -> None:
    daemon.terminate()
    daemon.wait(10)
