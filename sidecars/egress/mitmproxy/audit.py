"""One JSON line on stdout per verdict: never a token, never a query value."""

from __future__ import annotations

import datetime
import json
import sys
from typing import Any

_LONGEST = 2048  # of a field: the agent writes these


def _field(value: Any) -> Any:
    return value[:_LONGEST] if isinstance(value, str) else value


def write(kind: str, **fields: Any) -> None:
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    line = {"type": kind, "time": now} | {name: _field(value) for name, value in fields.items()}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def verdict(ident: str, bottle: str, event: str, decision: dict[str, Any]) -> None:
    write(
        "audit",
        id=ident,
        bottle=bottle,
        event=event,
        allowed=decision["allowed"],
        code=decision.get("code"),
        host=decision.get("host"),
        port=decision.get("port"),
        method=decision.get("method") or ("CONNECT" if event == "connect" else ""),
        path=(decision.get("target") or "").split("?", 1)[0],
        status=None if decision["allowed"] else decision.get("status"),
        reason=decision.get("reason"),
    )
