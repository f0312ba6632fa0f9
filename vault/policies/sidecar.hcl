# What every sidecar may do: have its own request signed by the one role. The role's template ties the SPIFFE ID to the
# AppRole that logged in. A request that brings its own dates would escape the role's longest life: denied.
path "pki_mesh/sign/mesh" {
  capabilities = ["update"]
  denied_parameters = {
    "not_after" = []
    "not_before" = []
  }
}
path "auth/token/renew-self" { capabilities = ["update"] }
path "auth/token/lookup-self" { capabilities = ["read"] }
