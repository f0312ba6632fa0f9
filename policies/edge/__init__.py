"""What a gateway decides at its edge: what Consul's entries and its own file say of listeners, TLS, callers and limits.

`listeners` brings it all into the table's shapes, of either kind of gateway: `ingress`, or `api_gateway` with
`http_routes`. A sidecar loads none of it.
"""
