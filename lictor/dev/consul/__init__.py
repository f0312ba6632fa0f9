"""The part of Consul's HTTP API that the mesh uses, in memory, for first contact and for faults on command.

    request ─▶ app (routes, faults, tokens) ─▶ agent ─────▶ catalog ─┐
                                             ├▶ config, intentions ──┼▶ State: tables, one counter, who waits for what
                                             ├▶ connect (CA, leaves) │
                                             └▶ kv, sessions, acl ───┘

What is decided is decided by `policies/`: entries, chains, intentions, filters. Here is only who holds which row.
"""
