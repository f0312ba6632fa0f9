# The agent of the demo and of docker compose. One server is enough to see the mesh work; production has three or five.
datacenter = "dc1"
server = true
bootstrap_expect = 1
leave_on_terminate = false
disable_update_check = true

ui_config { enabled = true }
connect { enabled = true }

# Everything is refused unless a policy or an intention says otherwise.
acl {
  enabled = true
  default_policy = "deny"
  enable_token_persistence = true
}
default_intention_policy = "deny"

# Every sidecar of a host holds a few blocking queries; the agent's default of 200 connections is for all of them.
limits { http_max_conns_per_client = 2000 }

performance { raft_multiplier = 1 }
ports { grpc = 8502 }
