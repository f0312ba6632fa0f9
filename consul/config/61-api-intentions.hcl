# web may do everything but /admin; the gateway may only read. Whoever is not named is denied.
Kind = "service-intentions"
Name = "api"
Sources = [
  {
    Name = "web"
    Permissions = [
      { Action = "deny", HTTP = { PathPrefix = "/admin" } },
      { Action = "allow", HTTP = { PathPrefix = "/" } },
    ]
  },
  {
    Name = "edge"
    Permissions = [
      { Action = "allow", HTTP = { PathPrefix = "/", Methods = ["GET", "HEAD"] } },
    ]
  },
]
