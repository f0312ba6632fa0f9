#!/bin/sh
# Initialise and unseal a Vault that is not in dev mode. Safe to run twice: what is done already is left alone.
#
#   vault/init.sh FOLDER
#
# FOLDER receives `unseal-key` and `root-token`, readable by their owner alone. One key share is for demos; production
# uses several shares or auto-unseal, and revokes the root token. Needs vault or bao on PATH (or VAULT_BIN), VAULT_ADDR.
set -eu
umask 077

vault=${VAULT_BIN:-$(command -v vault || command -v bao)}
folder=$1
mkdir -p "$folder"

say() { printf 'vault: %s\n' "$*" >&2; }

status() { "$vault" status -format=json 2>/dev/null || true; }

tries=0
until status | grep -q '"initialized"'; do
    tries=$((tries + 1))
    [ "$tries" -lt 120 ] || { say "no answer from $VAULT_ADDR after 60 s"; exit 1; }
    sleep 0.5
done

if status | grep -q '"initialized": *false'; then
    made=$("$vault" operator init -key-shares=1 -key-threshold=1 -format=json | tr -d '\n')
    printf '%s' "$made" | sed 's/.*"unseal_keys_b64": *\[ *"\([^"]*\)".*/\1/' >"$folder/unseal-key"
    printf '%s' "$made" | sed 's/.*"root_token": *"\([^"]*\)".*/\1/' >"$folder/root-token"
    say "initialised"
fi
if status | grep -q '"sealed": *true'; then
    [ -s "$folder/unseal-key" ] || { say "sealed, and $folder/unseal-key is not there: unseal it by hand"; exit 1; }
    "$vault" write sys/unseal key=@"$folder/unseal-key" >/dev/null  # from the file: an argument could be read by others
    say "unsealed"
fi
