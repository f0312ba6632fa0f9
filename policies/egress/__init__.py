"""What leads out of the mesh: `links` of a terminating gateway, compiled to `filter_chains`, and its forward proxy.

A sidecar loads none of it.
"""
