"""The egress add-on of mitmproxy: every hook asks the policy, and one that fails refuses.

mitmproxy lets a flow pass unchanged when a hook raises. So each hook here is wrapped: what it was about to decide becomes a
refusal. The order of one request: http_connect (before any DNS), tls_clienthello, requestheaders (verdict, canonical target,
credentials out and in), server_connect (DNS, addresses, pinned dial), responseheaders.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import socket
from collections.abc import Callable
from typing import Any

from mitmproxy import connection, ctx, http, tcp, tls, udp
from mitmproxy.net.http import http1
from mitmproxy.proxy import server_hooks

import audit
import engine
from policy import Verdict, is_credential_header, text_of
from state import State, read_status_key, serve_health
from tokens import Redactor, redact, spellings

DNS_SECONDS = 10
ECH = 0xFE0D  # encrypted_client_hello: the name that counts is hidden
# They make the origin see another method, path or host than the one that was judged.
OVERRIDES = frozenset(
    {"x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url", "x-forwarded-host"}
)
HOP_BY_HOP = frozenset({"proxy-authorization", "proxy-connection", "keep-alive", "te", "http2-settings", "alt-used"})
INTERNAL = {
    "allowed": False, "status": 500, "code": "internal_error", "reason": "The egress proxy failed to judge this request.",
    "hint": "See the egress log of the bottle.",
}
SECRETS = "bottle.secrets"  # in flow.metadata: spellings to redact


def refusal(status: int, code: str, reason: str, hint: str, host: str = "", port: int = 0, **more: Any) -> Verdict:
    """A verdict of the add-on's own, where the policy was not asked or said yes."""
    verdict = {"allowed": False, "status": status, "code": code, "reason": reason, "hint": hint, "host": host, "port": port}
    return verdict | more


def body_of(verdict: Verdict) -> bytes:
    text = verdict.get("body") or json.dumps(
        {"error": verdict["code"], "host": verdict.get("host", ""), "reason": verdict["reason"], "hint": verdict["hint"]}
    )
    return text.rstrip("\n").encode() + b"\n"


def guarded(on_failure: Callable[..., None]) -> Callable[[Any], Any]:
    """Runs on_failure(data) when the hook raises, and says which hook it was, but not why: texts of exceptions may hold values."""

    def wrap(hook: Any) -> Any:
        def failed(error: Exception, data: Any) -> None:
            audit.write("error", error=f"{hook.__name__}: {type(error).__name__}")
            on_failure(data)

        if asyncio.iscoroutinefunction(hook):

            @functools.wraps(hook)
            async def guarded_async(self: Any, data: Any) -> None:
                try:
                    await hook(self, data)
                except Exception as error:
                    failed(error, data)

            return guarded_async

        @functools.wraps(hook)
        def guarded_sync(self: Any, data: Any) -> None:
            try:
                hook(self, data)
            except Exception as error:
                failed(error, data)

        return guarded_sync

    return wrap


def answer(flow: http.HTTPFlow, verdict: Verdict) -> http.Response:
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    request = flow.request
    try:
        body_follows = not request.is_http2 and request.method != "CONNECT" and http1.expected_http_body_size(request) != 0
    except ValueError:
        body_follows = True
    if body_follows:
        headers["Connection"] = "close"  # the rest of the body must not be read as a next request
    return http.Response.make(verdict["status"], body_of(verdict), headers)


def refuse(flow: http.HTTPFlow, verdict: Verdict) -> None:
    flow.request.stream = False
    flow.response = answer(flow, verdict)
    flow.metadata[engine.REFUSED] = True


DIAL_ERRORS = {  # code: status, reason
    "not_judged": (403, "The connection was not judged."),
    "address_not_allowed": (403, "The host resolves to an address that is not allowed."),
    "name_not_resolved": (502, "The host does not resolve."),
}


def dial_error(flow: http.HTTPFlow, error: str) -> http.Response:
    """The answer for an origin that was not reached; ours end with "egress/<code>"."""
    code = error.rpartition("egress/")[2]
    status, reason = DIAL_ERRORS.get(code, (502, f"The server cannot be reached: {error[:300]}"))
    hint = "See egress.allowCIDRs of the bottle." if code == "address_not_allowed" else "Is the server up, and its certificate valid?"
    verdict = refusal(status, code if code in DIAL_ERRORS else "connect_failed", reason, hint, flow.request.host, flow.request.port)
    return answer(flow, verdict)


def refuse_flow(flow: http.HTTPFlow) -> None:
    refuse(flow, INTERNAL)


def kill_flow(flow: Any) -> None:
    if flow.killable:
        flow.kill()


def refuse_dial(data: server_hooks.ServerConnectionHookData) -> None:
    data.server.error = "egress/not_judged"


def nothing(_: Any) -> None:
    """For hooks whose failure leaves the stricter way in force."""


class Client:
    """One connection of the agent. (No dataclass: those look their module up, and mitmproxy hides a script's.)"""

    def __init__(self) -> None:
        self.tunnel: tuple[str, int] | None = None  # of CONNECT, canonical
        self.splice = False  # inspect: none
        self.dials: set[tuple[str, int]] = set()  # judged destinations
        self.requests: dict[str, dict[str, Any]] = {}  # running ones: flow id -> as judged


class Egress:
    def __init__(self) -> None:
        self.state = State()
        self._clients: dict[str, Client] = {}
        self._pinned: dict[str, tuple[str, int]] = {}  # server connection id -> its name, while it is being dialled
        self._spellings: dict[str, tuple[bytes, ...]] = {}
        self._watch: asyncio.Task[None] | None = None
        self._health: asyncio.Server | None = None
        self._next_id = 0

    # -- start and reload

    def load(self, _: Any) -> None:
        engine.install(dial_error)
        self.state.refresh()

    async def running(self) -> None:
        port = int(os.environ.get("BOT_BOTTLE_HEALTH_PORT", "9091"))
        self._watch = asyncio.create_task(self.state.watch(self._cut_what_is_gone))
        self._health = await serve_health(self.state, port, read_status_key())
        self.state.set_ready()

    def _cut_what_is_gone(self) -> None:
        table = self.state.table
        assert table is not None
        for handler in list(ctx.master.addons.get("proxyserver").connections.values()):
            client = self._clients.get(handler.client.id)
            if client is None:
                continue
            try:
                kept = all(table.judge_request(request)["allowed"] for request in client.requests.values())
                if client.tunnel:
                    verdict = table.judge_connect(*client.tunnel)
                    kept = kept and verdict["allowed"] and (verdict.get("inspect") == "none") == client.splice
            except Exception:
                kept = False
            if not kept:
                engine.cut(handler)

    def _audit(self, event: str, verdict: Verdict) -> None:
        self._next_id += 1
        audit.verdict(str(self._next_id), self.state.bottle, event, verdict)

    # -- connections of the agent

    @guarded(nothing)
    def client_connected(self, client: connection.Client) -> None:
        self._clients[client.id] = Client()

    @guarded(nothing)
    def client_disconnected(self, client: connection.Client) -> None:
        self._clients.pop(client.id, None)

    @guarded(refuse_flow)
    def http_connect(self, flow: http.HTTPFlow) -> None:
        host, port = flow.request.host, flow.request.port
        if self.state.table is None:
            verdict = no_policy(host, port)
        else:
            verdict = self.state.table.judge_connect(host, port)
        self._audit("connect", verdict)
        if not verdict["allowed"]:
            refuse(flow, verdict)
            return
        client = self._clients[flow.client_conn.id]
        client.tunnel = (verdict["host"], port)
        client.splice = verdict.get("inspect") == "none"
        client.dials.add(client.tunnel)
        flow.request.host = verdict["host"]

    @guarded(nothing)
    def tls_clienthello(self, data: tls.ClientHelloData) -> None:
        client = self._clients[data.context.client.id]
        if not client.splice or client.tunnel is None:
            return
        # A hidden or another name is not spliced but decrypted, and then judged like any request.
        sni = (data.client_hello.sni or "").lower().rstrip(".")
        hidden = any(kind == ECH for kind, _ in data.client_hello.extensions)
        data.ignore_connection = sni == client.tunnel[0] and not hidden

    # -- requests

    @guarded(refuse_flow)
    def requestheaders(self, flow: http.HTTPFlow) -> None:
        request = flow.request
        client = self._clients[flow.client_conn.id]
        facts = self._facts(flow, client)
        verdict = self._judge(flow, client, facts)
        values: dict[str, str] = {}
        for injection in verdict.get("inject") or [] if verdict["allowed"] and facts["tls"] else []:
            token = self.state.tokens.get(injection["tokenEnv"])
            if token is None:
                verdict = refusal(
                    503, "token_missing", f"The credential of this route, {injection['tokenEnv']}, is missing or empty.",
                    "Provide the Secret that the route names.", verdict["host"], facts["port"],
                    method=verdict.get("method"), target=verdict.get("target"), route=verdict.get("route"),
                )
                break
            values[injection["header"]] = injection["prefix"] + token
        self._audit("request", verdict)
        if not verdict["allowed"]:
            refuse(flow, verdict)
            return
        self._rewrite(flow, verdict, facts)
        for header, value in values.items():
            request.headers[header] = value
        if values:
            flow.metadata[SECRETS] = self._secrets(verdict)
            request.headers["accept-encoding"] = "identity"  # a compressed answer could not be searched for the token
        client.dials.add((verdict["host"], facts["port"]))
        client.requests[flow.id] = facts
        request.stream = True

    def _facts(self, flow: http.HTTPFlow, client: Client) -> dict[str, Any]:
        """The request in the form of bottle_policy_judge_request."""
        request = flow.request
        host, port = client.tunnel or (request.host, request.port)
        hosts = request.headers.get_all("host")
        if request.authority:
            hosts.append(request.authority)
        return {
            "tls": request.scheme == "https",
            "connectHost": host,
            "port": port,
            "sni": flow.client_conn.sni,
            "hosts": hosts,
            "method": request.method,
            "target": text_of(request.data.path),
        }

    def _judge(self, flow: http.HTTPFlow, client: Client, facts: dict[str, Any]) -> Verdict:
        """What is wrong with the message comes first; then the policy decides."""
        request, host, port = flow.request, facts["connectHost"], facts["port"]
        more = {"method": facts["method"], "target": facts["target"]}
        if self.state.table is None:
            return no_policy(host, port) | more
        headers = request.headers
        if flow.error is not None or any(byte < 32 and byte != 9 or byte == 127 for _, v in headers.fields for byte in v):
            return refusal(400, "header_malformed", "A header of the request is malformed.", "Send it well-formed.", host, port, **more)
        if client.tunnel is None and facts["tls"]:
            return refusal(400, "connect_required", "https goes through a CONNECT tunnel.", "Use CONNECT.", host, port, **more)
        if client.tunnel is not None and not facts["tls"] and port != 80:
            return refusal(400, "tls_required", "This port carries TLS only.", "Use https.", host, port, **more)
        if not request.is_http2 and ("trailer" in headers or "trailers" in headers.get("te", "").lower()):
            return refusal(400, "trailers_unsupported", "Trailers are supported on HTTP/2 only.", "Use HTTP/2.", host, port, **more)
        if headers.get("expect", "100-continue").lower() != "100-continue":
            return refusal(417, "expectation_failed", "The Expect header is not 100-continue.", "Leave it out.", host, port, **more)
        return self.state.table.judge_request(facts)

    def _rewrite(self, flow: http.HTTPFlow, verdict: Verdict, facts: dict[str, Any]) -> None:
        """What goes upstream is what was judged, without anything the agent added to identify itself."""
        request = flow.request
        headers = request.headers
        websocket = not request.is_http2 and headers.get("upgrade", "").strip().lower() == "websocket"
        nominated = {token.strip().lower() for token in headers.get("connection", "").split(",")}
        for name in {text_of(name).lower() for name, _ in headers.fields}:
            if is_credential_header(name) or name in OVERRIDES or name in HOP_BY_HOP:
                del headers[name]
        if not websocket:
            headers.pop("upgrade", None)
        if "connection" in headers:
            # Nominating a header makes the next hop drop it: the injected one, for example.
            kept = nominated & ({"close", "keep-alive"} | ({"upgrade"} if websocket else set()))
            if kept:
                headers["connection"] = ", ".join(sorted(kept))
            else:
                del headers["connection"]
        host, port = verdict["host"], facts["port"]
        name = f"[{host}]" if ":" in host else host
        default = port == (443 if facts["tls"] else 80)
        authority = name if default else f"{name}:{port}"
        request.data.host, request.data.port = host, port
        request.data.method = verdict["method"].encode("ascii")
        request.data.path = verdict["target"].encode("utf-8")
        if request.is_http2:
            headers.pop("host", None)
            request.data.authority = authority.encode("ascii")
        else:
            request.data.authority = b""
            headers["host"] = authority

    def _secrets(self, verdict: Verdict) -> tuple[bytes, ...]:
        found: list[bytes] = []
        for injection in verdict["inject"]:
            token = self.state.tokens.get(injection["tokenEnv"]) or ""
            if token not in self._spellings:
                if len(self._spellings) > 256:
                    self._spellings.clear()  # rotated ones need not stay
                self._spellings[token] = spellings(token)
            found += self._spellings[token]
        return tuple(found)

    @guarded(kill_flow)
    def responseheaders(self, flow: http.HTTPFlow) -> None:
        response = flow.response
        assert response is not None
        if flow.metadata.get(engine.REFUSED):
            return
        headers = response.headers
        headers.pop("alt-svc", None)
        if not flow.request.is_http2:
            headers.pop("trailer", None)
        secrets = flow.metadata.get(SECRETS)
        if secrets:
            headers.fields = tuple((name, redact(value, secrets)) for name, value in headers.fields)
            response.data.reason = redact(response.data.reason, secrets)
        response.stream = Redactor(secrets) if secrets else True

    @guarded(kill_flow)
    def response(self, flow: http.HTTPFlow) -> None:
        secrets = flow.metadata.get(SECRETS)
        response = flow.response
        if secrets and response is not None and response.trailers:
            fields = response.trailers.fields
            response.trailers.fields = tuple((name, redact(value, secrets)) for name, value in fields)
        if flow.websocket is None:
            self._finished(flow)

    @guarded(kill_flow)
    def websocket_message(self, flow: http.HTTPFlow) -> None:
        secrets = flow.metadata.get(SECRETS)
        if secrets and flow.websocket is not None and not flow.websocket.messages[-1].from_client:
            message = flow.websocket.messages[-1]
            message.content = redact(message.content, secrets)
        if flow.websocket is not None:
            del flow.websocket.messages[:-1]  # else every message of a connection stays in memory

    @guarded(nothing)
    def websocket_end(self, flow: http.HTTPFlow) -> None:
        self._finished(flow)

    @guarded(nothing)
    def error(self, flow: http.HTTPFlow) -> None:
        self._finished(flow)

    def _finished(self, flow: http.HTTPFlow) -> None:
        client = self._clients.get(flow.client_conn.id)
        if client is not None:
            client.requests.pop(flow.id, None)

    # -- connections to origins

    @guarded(refuse_dial)
    async def server_connect(self, data: server_hooks.ServerConnectionHookData) -> None:
        """The last gate: only what was judged for this client, only to addresses that are allowed, and to the very address that
        was looked at: no second lookup."""
        server, client = data.server, self._clients[data.client.id]
        table, address = self.state.table, server.address
        if table is None or address is None or (address[0], address[1]) not in client.dials or server.transport_protocol != "tcp":
            server.error = "egress/not_judged"
            return
        host, port = address[0], address[1]
        try:
            async with asyncio.timeout(DNS_SECONDS):
                found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, TimeoutError, UnicodeError):
            server.address = None  # else mitmproxy answers all later requests of this connection with this failure
            server.error = "egress/name_not_resolved"
            return
        addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
        refused = [one for one in addresses if not table.address_allowed(one)]
        if refused or not addresses:
            server.address = None
            server.error = "egress/address_not_allowed"
            self._audit("connect", refusal(403, "address_not_allowed", f"{host} resolves to an address that is not allowed.", "", host, port))
            return
        self._pinned[server.id] = (host, port)
        server.address = (addresses[0], port)

    @guarded(nothing)
    def server_connected(self, data: server_hooks.ServerConnectionHookData) -> None:
        # mitmproxy finds a connection to use again by its name; the address is in peername.
        name = self._pinned.pop(data.server.id, None)
        if name is not None:
            data.server.__dict__["address"] = name

    @guarded(nothing)
    def server_connect_error(self, data: server_hooks.ServerConnectionHookData) -> None:
        self._pinned.pop(data.server.id, None)

    # -- what is not HTTP. rawtcp=false should leave nothing for these.

    @guarded(kill_flow)
    def tcp_start(self, flow: tcp.TCPFlow) -> None:
        flow.kill()

    @guarded(kill_flow)
    def udp_start(self, flow: udp.UDPFlow) -> None:
        flow.kill()


def no_policy(host: str, port: int) -> Verdict:
    return refusal(503, "no_policy", "No policy is in force yet.", "Wait until the bottle is ready.", host, port)


addons = [Egress()]
