# What a gateway may do besides: have requests for its callers' certificates signed, within the role's domains and life.
path "pki_edge/sign/edge" {
  capabilities = ["update"]
  denied_parameters = {
    "not_after" = []
    "not_before" = []
  }
}
