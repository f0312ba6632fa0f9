#!/bin/sh
# Play the orchestrator: see to it that a fresh wrapped secret-id lies ready for every instance, so that one that
# restarts can log in again. Runs until it is stopped.
#
#   vault/keep-secret-ids.sh FOLDER INSTANCE=SERVICE ...
#
# FOLDER/INSTANCE receives what issue-secret-id.sh writes; it belongs to OWNER (uid:gid) if that is set, which needs
# root. One that was used or has ended is replaced within seconds. READY_FILE (FOLDER/.ready by default) is there as long
# as every instance has a good one.
# The token is VAULT_TOKEN, or in VAULT_TOKEN_FILE, which is read at every turn; it is renewed every half hour.
# Needs wget besides what issue-secret-id.sh needs, and the policies lictor-orchestrator-SERVICE, nothing more.
set -eu
umask 077

vault=${VAULT_BIN:-$(command -v vault || command -v bao)}
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
folder=$1
ready=${READY_FILE:-$folder/.ready}
shift
question=$(mktemp)
trap 'kill ${!:-} 2>/dev/null || :; rm -f "$question" "$ready"; exit 0' TERM INT

say() { printf 'vault: %s\n' "$*" >&2; }

read_token() {
    [ -n "${VAULT_TOKEN_FILE:-}" ] || return 0
    VAULT_TOKEN=$(cat "$VAULT_TOKEN_FILE")
    BAO_TOKEN=$VAULT_TOKEN
    export VAULT_TOKEN BAO_TOKEN
}

renew_at=0
renew_token() {
    now=$(date +%s)
    [ "$now" -ge "$renew_at" ] || return 0
    if "$vault" token renew >/dev/null; then
        renew_at=$((now + 1800))
    else
        say "the token was not renewed: once more in a minute"
        renew_at=$((now + 60))
    fi
}

unspent() {
    [ -s "$1/wrapped-secret-id" ] || return 1
    printf '{"token": "%s"}' "$(cat "$1/wrapped-secret-id")" >"$question"
    wget -q -O /dev/null --post-file="$question" "$VAULT_ADDR/v1/sys/wrapping/lookup" 2>/dev/null
}

# Vault may be away or sealed: the next turn comes.
issue() {
    WRAP_TTL=5m sh "$here/issue-secret-id.sh" "$2" "$1" || return 1
    [ -z "${OWNER:-}" ] || chown -R "$OWNER" "$1"
}

rm -f "$ready"
while :; do
    read_token
    renew_token
    all=yes
    for pair in "$@"; do
        unspent "$folder/${pair%%=*}" || issue "$folder/${pair%%=*}" "${pair#*=}" || all=no
    done
    if [ "$all" = yes ]; then touch "$ready"; else rm -f "$ready"; fi
    sleep 2 &
    wait $!
done
