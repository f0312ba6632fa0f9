"""The links to the control plane, which is Consul and Vault.

    consul  (its HTTP API)      ─▶ watches ─ Heard ─▶ snapshot ─▶ publish
    issuer  (Vault or Consul)   ─▶ leaves  ─ LeafUpdate ──▲

`consul` alone knows python-consul2, `issuer` alone knows hvac. Errors of those libraries end here, as the
typed ones of `policies.errors`. Nothing here touches a proxied byte.
"""
