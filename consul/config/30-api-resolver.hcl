# The versions of api, told apart by the meta that its instances register.
Kind = "service-resolver"
Name = "api"
DefaultSubset = "v1"
ConnectTimeout = "2s"
Subsets = {
  v1 = { Filter = "Service.Meta.version == v1" }
  v2 = { Filter = "Service.Meta.version == v2" }
}
