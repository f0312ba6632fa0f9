# A tcp service, to see an intention close a connection.
Kind = "service-defaults"
Name = "db"
Protocol = "tcp"
