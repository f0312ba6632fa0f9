"""The process at the edge, made of the sidecar's parts: the same life, the outbound half behind hosts and ports."""
