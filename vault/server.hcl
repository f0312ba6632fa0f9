# The server of docker compose: one node, its data in a volume, no TLS inside the compose network. Production has TLS.
ui = true
disable_mlock = true
api_addr = "http://vault:8200"
cluster_addr = "http://vault:8201"

storage "raft" {
  path = "/vault/file"
  node_id = "vault-1"
}

listener "tcp" {
  address = "0.0.0.0:8200"
  tls_disable = true
}
