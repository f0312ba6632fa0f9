Kind = "service-intentions"
Name = "web"
Sources = [
  { Name = "edge", Action = "allow" },
]
