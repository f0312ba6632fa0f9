#!/bin/sh
# Prepare Vault for the mesh, in steps around Consul's taking over its CA. Safe to run twice.
#
#   vault/bootstrap.sh ca FOLDER                      before consul/bootstrap.sh: a token for Consul's CA provider
#   vault/bootstrap.sh mesh TRUST_DOMAIN DC SERVICES  after it: our intermediate under Consul's root, the role, AppRoles
#   vault/bootstrap.sh egress TRUST_DOMAIN DC GATEWAY SERVICES   then, if wanted: what a terminating gateway stands for
#   vault/bootstrap.sh edge GATEWAY DOMAINS           then, if wanted: certificates of these domains for a gateway's callers
#   vault/bootstrap.sh orchestrator FOLDER SERVICES   then: FOLDER/token, which may hand out their secret-ids and no more
#
# The leaves of Lictor come from an intermediate of their own, pki_mesh, signed by the root that Consul uses: Consul
# rewrites what is in its own mounts, and both kinds of leaf trust each other by the common root.
# Callers from outside trust an authority of its own, pki_edge, and nothing of the mesh's (`vault read pki_edge/cert/ca`).
# Needs vault or bao on PATH (or VAULT_BIN), VAULT_ADDR, VAULT_TOKEN. LEAF_TTL is the life of a leaf, 24h by default, and
# EDGE_TTL that of a certificate for the outside, 72h.
set -eu
umask 077

vault=${VAULT_BIN:-$(command -v vault || command -v bao)}
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
leaf_ttl=${LEAF_TTL:-24h}

say() { printf 'vault: %s\n' "$*" >&2; }

has_mount() { "$vault" secrets list -format=json | grep -q "\"$1/\""; }

field() { "$vault" read -field="$2" "$1" 2>/dev/null; }

# token FILE PERIOD FLAG...: made once, kept in a file for as long as it is good
token() {
    file=$1 period=$2
    shift 2
    if [ -s "$file" ] && VAULT_TOKEN=$(cat "$file") BAO_TOKEN=$(cat "$file") "$vault" token lookup >/dev/null 2>&1; then
        return
    fi
    "$vault" token create -orphan -period="$period" "$@" -field=token >"$file.new"
    mv "$file.new" "$file"
    say "token in $file"
}

ca() {
    folder=$1
    mkdir -p "$folder"
    has_mount connect_root || "$vault" secrets enable -path=connect_root -max-lease-ttl=87600h pki >/dev/null
    has_mount connect_inter || "$vault" secrets enable -path=connect_inter -max-lease-ttl=8760h pki >/dev/null
    "$vault" policy write consul-ca "$here/policies/consul-ca.hcl" >/dev/null
    token "$folder/consul-ca-token" 72h -policy=consul-ca
}

# Our intermediate: its key is made in Vault and never leaves it.
intermediate() {
    has_mount pki_mesh || "$vault" secrets enable -path=pki_mesh -max-lease-ttl=8760h pki >/dev/null
    "$vault" read pki_mesh/cert/ca -format=json 2>/dev/null | grep -q 'BEGIN CERTIFICATE' && return
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    "$vault" write -field=csr pki_mesh/intermediate/generate/internal \
        common_name="Lictor mesh" key_type=ec key_bits=256 uri_sans="spiffe://$1" >"$work/csr"
    "$vault" write -field=certificate connect_root/root/sign-intermediate \
        csr=@"$work/csr" format=pem common_name="Lictor mesh" uri_sans="spiffe://$1" \
        max_path_length=0 ttl=8760h >"$work/certificate"
    "$vault" write pki_mesh/intermediate/set-signed certificate=@"$work/certificate" >/dev/null
    rm -rf "$work"
    trap - EXIT
    say "intermediate pki_mesh under Consul's root"
}

# role NAME TEMPLATE URIS: signs leaves with one of these URIs (a list in JSON), which may be templates
role() {
    "$vault" write "pki_mesh/roles/$1" - >/dev/null <<END
{"allowed_uri_sans": [$3], "allowed_uri_sans_template": $2, "allowed_domains": [], "allow_any_name": false, "allow_localhost": false,
 "allow_ip_sans": false, "allow_wildcard_certificates": false, "enforce_hostnames": true, "require_cn": false,
 "cn_validations": ["hostname"], "use_csr_common_name": false, "use_csr_sans": true, "key_type": "ec", "key_bits": 256,
 "key_usage": ["DigitalSignature"], "server_flag": true, "client_flag": true,
 "basic_constraints_valid_for_non_ca": true, "ttl": "$leaf_ttl", "max_ttl": "$leaf_ttl", "not_before_duration": "30s",
 "no_store": true, "generate_lease": false}
END
}

mesh() {
    trust_domain=$1 datacenter=$2 services=$3
    intermediate "$trust_domain"
    "$vault" auth list -format=json | grep -q '"approle/"' || "$vault" auth enable approle >/dev/null
    accessor=$("$vault" auth list -format=json | tr -d '\n' | sed 's/.*"approle\/": *{[^}]*"accessor": *"\([^"]*\)".*/\1/')
    role mesh true "\"spiffe://$trust_domain/ns/default/dc/$datacenter/svc/{{identity.entity.aliases.$accessor.metadata.role_name}}\""
    "$vault" policy write lictor-sidecar "$here/policies/sidecar.hcl" >/dev/null
    for service in $services; do
        sed "s/SERVICE/$service/g" "$here/policies/orchestrator.hcl.tmpl" \
            | "$vault" policy write "lictor-orchestrator-$service" - >/dev/null
        "$vault" write "auth/approle/role/$service" \
            token_policies=lictor-sidecar token_period=72h token_type=service \
            secret_id_num_uses=1 secret_id_ttl=10m >/dev/null
    done
    say "role mesh; AppRoles $services"
}

# A terminating gateway answers as each service that it is linked to: the role signs for these and for itself. `*` is all.
egress() {
    trust_domain=$1 datacenter=$2 gateway=$3
    uris="\"spiffe://$trust_domain/ns/default/dc/$datacenter/svc/$gateway\""
    set -f
    for service in $4; do
        uris="$uris, \"spiffe://$trust_domain/ns/default/dc/$datacenter/svc/$service\""
    done
    set +f
    role "egress-$gateway" false "$uris"
    sed "s/GATEWAY/$gateway/g" "$here/policies/egress.hcl.tmpl" \
        | "$vault" policy write "lictor-egress-$gateway" - >/dev/null
    "$vault" write "auth/approle/role/$gateway" "token_policies=lictor-sidecar,lictor-egress-$gateway" >/dev/null
    say "role egress-$gateway of pki_mesh for $4; AppRole $gateway may use it"
}

# The role signs what the gateway asks for within the domains (a list with commas); its key is made in the gateway.
edge() {
    gateway=$1 domains=$2
    has_mount pki_edge || "$vault" secrets enable -path=pki_edge -max-lease-ttl=87600h pki >/dev/null
    if ! "$vault" read pki_edge/cert/ca -format=json 2>/dev/null | grep -q 'BEGIN CERTIFICATE'; then
        "$vault" write pki_edge/root/generate/internal \
            common_name="Lictor edge" key_type=ec key_bits=256 ttl=87600h >/dev/null
    fi
    "$vault" write pki_edge/roles/edge - >/dev/null <<END
{"allowed_domains": "$domains", "allow_bare_domains": true, "allow_subdomains": true, "allow_wildcard_certificates": true,
 "allow_glob_domains": false, "allow_any_name": false, "allow_localhost": false, "allow_ip_sans": false,
 "enforce_hostnames": true, "require_cn": false, "use_csr_common_name": true, "use_csr_sans": true,
 "key_type": "ec", "key_bits": 256, "key_usage": ["DigitalSignature"], "server_flag": true, "client_flag": false,
 "basic_constraints_valid_for_non_ca": true, "ttl": "${EDGE_TTL:-72h}", "max_ttl": "${EDGE_TTL:-72h}",
 "not_before_duration": "30s", "no_store": true, "generate_lease": false}
END
    "$vault" policy write lictor-edge "$here/policies/edge.hcl" >/dev/null
    "$vault" write "auth/approle/role/$gateway" token_policies=lictor-sidecar,lictor-edge >/dev/null
    say "role edge of pki_edge for $domains; AppRole $gateway may use it"
}

orchestrator() {
    mkdir -p "$1"
    policies=
    for service in $2; do
        policies="$policies -policy=lictor-orchestrator-$service"
    done
    # shellcheck disable=SC2086  # a list of words
    token "$1/token" 24h -no-default-policy $policies
}

word=$1
shift
case $word in
    ca | mesh | egress | edge | orchestrator) "$word" "$@" ;;
    *) say "unknown step $word: ca, mesh, egress, edge or orchestrator"; exit 2 ;;
esac
