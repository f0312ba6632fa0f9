"""Our own compiler of discovery chains, and the checks that Consul makes before it stores an entry.

    Entries ─▶ chain_set (what the chain may look at) ─▶ compile ─▶ splitting (flatten) ─▶ the chain
    Entries with a change ─▶ graph: chains touched, intentions, listeners, JWT providers, exports ─▶ refused or not

Used where no Consul answers: the embedded dev server, and commands about entries that are not written yet. At run time
the chain comes from Consul itself.
"""

from __future__ import annotations

from typing import Any

from policies.discovery.compile import Request, compile_request
from policies.discovery.graph import check_graph
from policies.entries.store import Entries
from policies.errors import ChainError

__all__ = ["check_graph", "compile_chain"]


def compile_chain(
    entries: Entries,
    service: str,
    *,
    datacenter: str,
    trust_domain: str,
    evaluate_in: str = "",
    override_protocol: str = "",
    override_connect_timeout: float = 0.0,
    override_mesh_gateway: str = "",
) -> dict[str, Any]:
    """Return the `Chain` object of `GET /v1/discovery-chain/:service`, without AutoVirtualIPs and ManualVirtualIPs.

    `evaluate_in` is `?compile-dc`, the datacenter when empty. Overrides are those of the POST body, the connect timeout
    in seconds (zero or less overrides nothing). Raise ChainError with the text of that endpoint (HTTP 500).
    """
    request = Request(
        service=service,
        datacenter=evaluate_in or datacenter,
        trust_domain=trust_domain,
        protocol=override_protocol,
        connect_timeout=max(0, round(override_connect_timeout * 1e9)),
        mesh_gateway=override_mesh_gateway,
    )
    try:
        return compile_request(entries, request)
    except ChainError as error:
        raise ChainError(f"failed to compile discovery chain: {error}") from None
