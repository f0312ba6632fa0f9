# What an operator of the mesh needs: entries, intentions, and a look at everything.
operator = "write"
mesh = "write"
service_prefix "" {
  policy = "write"
  intentions = "write"
}
node_prefix "" { policy = "read" }
agent_prefix "" { policy = "read" }
