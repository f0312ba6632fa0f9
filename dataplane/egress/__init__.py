"""The way out of the mesh: the doors of a terminating gateway, and how what is outside is named, dialled and trusted.

A sidecar loads none of it, but the near end of the forward proxy where it has such an upstream.
"""
