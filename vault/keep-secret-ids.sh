#!/bin/sh
# Play the orchestrator: see to it that a fresh wrapped secret-id lies ready for every instance, so that one that
# restarts can log in again. Runs until it is stopped.
#
#   vault/keep-secret-ids.sh FOLDER INSTANCE=SERVICE ...
#
# FOLDER/INSTANCE receives what issue-secret-id.sh writes, readable by OWNER (uid:gid, 10001:10001 by default). One that
# was used or has ended is replaced within seconds. Needs wget besides what issue-secret-id.sh needs.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
folder=$1
shift
question=$(mktemp)
trap 'rm -f "$question"; exit 0' TERM INT

unspent() {
    [ -s "$1/wrapped-secret-id" ] || return 1
    printf '{"token": "%s"}' "$(cat "$1/wrapped-secret-id")" >"$question"
    wget -q -O /dev/null --post-file="$question" "$VAULT_ADDR/v1/sys/wrapping/lookup" 2>/dev/null
}

while :; do
    for pair in "$@"; do
        instance=$folder/${pair%%=*} service=${pair#*=}
        if ! unspent "$instance"; then
            # Vault may be away or sealed: the next turn comes.
            WRAP_TTL=10m sh "$here/issue-secret-id.sh" "$service" "$instance" || continue
            chown -R "${OWNER:-10001:10001}" "$instance"
        fi
    done
    touch "$folder/.ready"
    sleep 2 &
    wait $!
done
