Kind = "service-defaults"
Name = "partner"
Protocol = "http"
