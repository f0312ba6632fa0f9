# The way out: TLS begins at the gateway, which knows the partner's CA and its name.
Kind = "terminating-gateway"
Name = "egress"
Services = [
  { Name = "partner", CAFile = "/run/partner/ca.pem", SNI = "partner.example.com" },
]
