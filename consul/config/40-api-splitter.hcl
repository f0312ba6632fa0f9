Kind = "service-splitter"
Name = "api"
Splits = [
  { Weight = 80, ServiceSubset = "v1" },
  { Weight = 20, ServiceSubset = "v2" },
]
