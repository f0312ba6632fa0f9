#!/bin/sh
# Prepare a Consul with ACLs for the mesh: operator and service tokens, the mesh CA in Vault, the config entries.
# Safe to run twice. Needs: consul on PATH (or CONSUL_BIN), CONSUL_HTTP_ADDR.
#
#   consul/bootstrap.sh FOLDER SIDECARS GATEWAYS [EGRESS]
#
# FOLDER receives one token file a service, readable by its owner alone, and `management` and `operator`.
# SIDECARS and GATEWAYS are lists of service names; EGRESS of GATEWAY=SERVICE, terminating gateways and the services
# outside that they answer for. Services outside are registered from CONSUL_EXTERNAL, by default the folder external/
# beside this script. With VAULT_CA_TOKEN_FILE and VAULT_ADDR the mesh CA moves to Vault.
# CONSUL_ENTRIES is the folder of config entries; the one beside this script by default.
set -eu
umask 077

consul=${CONSUL_BIN:-consul}
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
folder=$1 sidecars=$2 gateways=$3 egress=${4:-}
entries=${CONSUL_ENTRIES:-$here/config}
external=${CONSUL_EXTERNAL:-$here/external}
mkdir -p "$folder"

say() { printf 'consul: %s\n' "$*" >&2; }

# The management token: from the agent's own configuration if there is one, else by the one-time bootstrap.
bootstrap_acl() {
    if [ -s "$folder/management" ]; then
        say "ACLs are bootstrapped already"
        return
    fi
    if [ -n "${CONSUL_HTTP_TOKEN:-}" ]; then
        printf '%s' "$CONSUL_HTTP_TOKEN" >"$folder/management"
        return
    fi
    tries=0
    until made=$("$consul" acl bootstrap -format=json 2>"$folder/.error"); do
        if grep -q 'no longer allowed' "$folder/.error"; then
            say "ACLs were bootstrapped by somebody else: put the management token into $folder/management"
            exit 1
        fi
        tries=$((tries + 1))
        [ "$tries" -lt 120 ] || { cat "$folder/.error" >&2; exit 1; }
        sleep 0.5
    done
    rm -f "$folder/.error"
    printf '%s' "$made" | sed -n 's/.*"SecretID": *"\([^"]*\)".*/\1/p' >"$folder/management"
    say "ACLs bootstrapped"
}

# policy NAME < RULES
policy() {
    rules=$(cat)
    if "$consul" acl policy read -name "$1" >/dev/null 2>&1; then
        printf '%s' "$rules" | "$consul" acl policy update -name "$1" -rules - >/dev/null
    else
        printf '%s' "$rules" | "$consul" acl policy create -name "$1" -rules - >/dev/null
    fi
}

# token NAME POLICY: made once, kept in a file
token() {
    # Named by its file: an argument could be read by others.
    [ -s "$folder/$1" ] && CONSUL_HTTP_TOKEN='' CONSUL_HTTP_TOKEN_FILE=$folder/$1 \
        "$consul" acl token read -self >/dev/null 2>&1 && return
    "$consul" acl token create -description "$1" -policy-name "$2" -format=json \
        | sed -n 's/.*"SecretID": *"\([^"]*\)".*/\1/p' >"$folder/$1"
    say "token for $1"
}

mesh_ca_in_vault() {
    [ -n "${VAULT_CA_TOKEN_FILE:-}" ] || return 0
    if "$consul" connect ca get-config | grep -q '"Provider": *"vault"'; then
        say "the mesh CA is in Vault already"
        return
    fi
    config=$(mktemp)
    trap 'rm -f "$config"' EXIT
    cat >"$config" <<END
{"Provider": "vault", "Config": {
  "Address": "$VAULT_ADDR", "Token": "$(cat "$VAULT_CA_TOKEN_FILE")",
  "RootPKIPath": "connect_root", "IntermediatePKIPath": "connect_inter",
  "LeafCertTTL": "72h", "IntermediateCertTTL": "8760h"}}
END
    "$consul" connect ca set-config -config-file "$config" >/dev/null
    rm -f "$config"
    say "the mesh CA is in Vault now"
}

write_entries() {
    for file in "$entries"/*.hcl; do
        "$consul" config write "$file" >&2
    done
}

# A terminating gateway holds the leaf of each service that it answers for.
egress_policy() {
    sed "s/SERVICE/$1/g" "$here/policies/gateway.hcl.tmpl"
    for pair in $egress; do
        [ "${pair%%=*}" != "$1" ] || printf 'service "%s" { policy = "write" }\n' "${pair#*=}"
    done
}

register_external() {
    for file in "$external"/*.hcl; do
        "$consul" services register "$file" >&2
    done
}

bootstrap_acl
CONSUL_HTTP_TOKEN=$(cat "$folder/management")
export CONSUL_HTTP_TOKEN
policy operator <"$here/policies/operator.hcl"
token operator operator
for service in $sidecars; do
    sed "s/SERVICE/$service/g" "$here/policies/sidecar.hcl.tmpl" | policy "sidecar-$service"
    token "$service" "sidecar-$service"
done
for service in $gateways; do
    sed "s/SERVICE/$service/g" "$here/policies/gateway.hcl.tmpl" | policy "gateway-$service"
    token "$service" "gateway-$service"
done
for service in $(for pair in $egress; do echo "${pair%%=*}"; done | sort -u); do
    egress_policy "$service" | policy "gateway-$service"
    token "$service" "gateway-$service"
done
mesh_ca_in_vault
write_entries
register_external
say "ready"
