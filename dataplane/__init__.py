"""Bytes in, bytes out: the listeners, connections and pools of one proxy process.

    listener ─▶ tls (mTLS, the peer's SPIFFE ID checked) ─▶ Downstream ─ decide(head) ─▶ Forward ─▶ pool ─▶ Upstream
                                                          └─▶ tcp relay ───────────────────────────▶ Upstream

One event loop runs all of it. Everything that policy says is read from `Live.current`, an immutable generation that
the control side swaps as a whole; nothing here ever waits for Consul or Vault. A request costs no task, no timer and
no coroutine: protocols call each other. Counters are plain integers, rendered when somebody scrapes them.

`edge` and `egress` are what gateways alone load.
"""
