"""Consul's HTTP API as the mesh needs it, on python-consul2.

    watch ─▶ questions: path, query, shape ─▶ client: one HTTP exchange ─▶ catalog: Answer, the rest of it decoded later

`catalog` is what everybody else uses; `client` alone knows python-consul2.
Source: https://developer.hashicorp.com/consul/api-docs.
"""
