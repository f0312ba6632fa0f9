# Nobody but web may go out, and only to read offers.
Kind = "service-intentions"
Name = "partner"
Sources = [
  {
    Name = "web"
    Permissions = [
      { Action = "allow", HTTP = { PathPrefix = "/offers", Methods = ["GET"] } },
    ]
  },
]
