Kind = "ingress-gateway"
Name = "edge"
Listeners = [
  {
    Port = 8080
    Protocol = "http"
    Services = [
      { Name = "web", Hosts = ["web.example.com", "localhost"] },
      { Name = "api", Hosts = ["api.example.com"] },
    ]
  },
  { # the same over TLS; the certificate is named in the gateway's file
    Port = 8443
    Protocol = "http"
    TLS = { Enabled = true }
    Services = [
      { Name = "web", Hosts = ["web.example.com", "localhost"] },
      { Name = "api", Hosts = ["api.example.com"] },
    ]
  },
]
