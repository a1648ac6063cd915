"""Whether a container ended by itself, or was taken down: its exit code does not tell.

An engine that goes down closes its socket first and stops its containers then; who is connected
already sees them end, with whatever code they choose (0 is one). One that was killed stops them
when it comes up again. Somebody may stop one by hand. What an engine told a container, and that
it saw it end, are events, which it keeps in memory for as long as it is up: an engine that takes
new connections, saw the end and told the container nothing saw a container end by itself.

With live-restore containers run on without their engine, and one that ended meanwhile is in no
events. Its code is believed, unless it is a signal's.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

KILLED = frozenset({137, 143, 255})
"""Exit codes of a container whose machine, shim or engine went down."""


def by_itself(client: Any, container_id: str, code: int) -> bool:
    """Ask over a new connection only: the old ones are served while the engine goes down."""
    info = client.info()
    seen = _seen(client, container_id, until=_now(info))
    if "kill" in seen:
        return False
    return "die" in seen or (bool(info.get("LiveRestoreEnabled")) and code not in KILLED)


def _seen(client: Any, container_id: str, *, until: float) -> set[str]:
    """The SDK's own call waits for an engine that went silent without a limit, and takes an answer
    that broke off for a whole one."""
    filters = {"type": ["container"], "container": [container_id]}
    answer = client.get(
        f"{client.base_url}/v{client.api_version}/events",
        params={"since": "0", "until": f"{until:.6f}", "filters": json.dumps(filters)},
        timeout=client.timeout,
    )
    answer.raise_for_status()
    return {json.loads(line)["Action"] for line in answer.iter_lines() if line}


def _now(info: dict[str, Any]) -> float:
    """By the engine's own clock, which stamps the events."""
    return datetime.fromisoformat(info["SystemTime"]).timestamp()
