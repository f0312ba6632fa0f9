Kind = "service-intentions"
Name = "store"
Sources = [
  { Name = "shop", Action = "allow" },
  { Name = "report", Action = "deny" },
]
