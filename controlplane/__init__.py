"""The links to the control plane, which is Consul and Vault.

    catalog (Consul's HTTP API) ─▶ watches ─ Heard ─▶ snapshot ─▶ publish
    issuer  (Vault or Consul)   ─▶ leaves  ─ LeafUpdate ──▲

`catalog` alone knows python-consul2, `issuer` alone knows hvac. Errors of those libraries end here, as the
typed ones of `policies.errors`. Nothing here touches a proxied byte.
"""
