# A service of somebody else, outside of the mesh: no sidecar, no check of ours.
service {
  name    = "partner"
  address = "partner"
  port    = 8443
}
