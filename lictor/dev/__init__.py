"""Embedded dev servers: Consul's and Vault's HTTP APIs as far as the mesh uses them. Never for production."""
