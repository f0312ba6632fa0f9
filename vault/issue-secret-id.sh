#!/bin/sh
# Hand a service its way into Vault: its role-id, and a wrapped, short-lived, single-use secret-id.
#
#   vault/issue-secret-id.sh SERVICE FOLDER
#
# FOLDER receives `role-id` and `wrapped-secret-id`. The sidecar unwraps it once; if somebody else did so before, the
# sidecar says so. WRAP_TTL is how long it may lie there, 60s by default.
# Needs vault or bao on PATH (or VAULT_BIN), VAULT_ADDR and a VAULT_TOKEN with the policy lictor-orchestrator-SERVICE.
set -eu
umask 077

vault=${VAULT_BIN:-$(command -v vault || command -v bao)}
service=$1 folder=$2
mkdir -p "$folder"

"$vault" read -field=role_id "auth/approle/role/$service/role-id" >"$folder/.role-id"
mv "$folder/.role-id" "$folder/role-id"
"$vault" write -f -wrap-ttl="${WRAP_TTL:-60s}" -field=wrapping_token "auth/approle/role/$service/secret-id" \
    >"$folder/.wrapped-secret-id"
mv "$folder/.wrapped-secret-id" "$folder/wrapped-secret-id"
