# What Consul's CA provider needs: its two mounts, and to renew its own token. Nothing of Lictor's.
path "sys/mounts" { capabilities = ["read"] }
path "sys/mounts/connect_root" { capabilities = ["create", "read", "update"] }
path "sys/mounts/connect_inter" { capabilities = ["create", "read", "update"] }
path "sys/mounts/connect_inter/tune" { capabilities = ["update"] }
path "connect_root/*" { capabilities = ["create", "read", "update", "delete", "list"] }
path "connect_inter/*" { capabilities = ["create", "read", "update", "delete", "list"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "auth/token/lookup-self" { capabilities = ["read"] }
