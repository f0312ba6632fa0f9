"""A gateway's listeners for callers from outside the mesh: who they are, what they may, and the TLS they are shown.

    accept ─▶ guests (who is it, is there room) ─▶ server_tls or passthrough ─▶ requests (limits, fields) ─▶ routing

A sidecar loads none of it.
"""
