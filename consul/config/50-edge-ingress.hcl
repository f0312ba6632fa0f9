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
]
