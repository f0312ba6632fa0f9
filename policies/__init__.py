"""Pure decisions: values in, values out.

    Update ──▶ reducer.apply ──▶ Snapshot ──▶ compiler.compile_table ──▶ Table (immutable, swapped in one reference)
    request ──▶ intentions / routes / splits / balance  ──▶ Decision, Route, Leg, Endpoint (each with its reason)

Nothing in this package knows a socket, a clock, a random source, a log or the environment: the current time, a
random draw in [0, 1) and the state of counters come in as arguments. `dataplane` and `controlplane` import it; it
imports neither.

`edge` and `egress` are what gateways alone load; `entries` and `discovery` are Consul's config entries and our own
compiler of chains, for answers without a Consul and for the embedded one.
"""
