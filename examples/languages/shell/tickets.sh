#!/usr/bin/env bash
# Sell concert tickets over HTTP with curl (7.84 or later) and jq.
#
#     tickets.sh [URL of a bucket]
set -euo pipefail
bucket=${1:-http://127.0.0.1:8080/v1/buckets/default}
scratch=$(mktemp)
trap 'rm -f "$scratch"' EXIT

# request METHOD PATH [option of curl ...]: sends a request once. Sets status, etag and body; for an error also
# code and retry, by which the script decides.
request() {
    local method=$1 path=$2
    shift 2
    read -r status etag < <(curl --silent --show-error --connect-timeout 2 --max-time 10 --request "$method" \
        --output "$scratch" --write-out '%{http_code} %header{etag}\n' "$@" "$bucket$path")
    body='' code='' retry=''
    [ "$status" -gt 0 ] || return 1 # no answer; curl has printed why
    body=$(<"$scratch")
    [ "$status" -ge 400 ] || return 0
    code=$(jq --raw-output .code <<<"$body")
    retry=$(jq --raw-output .retry <<<"$body")
    return 1
}

# send ...: the same, repeated after a pause if the gateway says that nothing was changed.
send() {
    local pause
    for pause in 0.1 0.2 0.4 0.8 1.6; do
        if request "$@"; then return 0; fi
        [ "$retry" = safe ] || return 1
        sleep "$pause"
    done
    request "$@"
}

# document KEY: prints its path; a slash in the key is percent-encoded, too.
document() {
    jq --null-input --raw-output --arg key "$1" '"/documents/" + ($key | @uri)'
}

# update KEY COMMAND: changes a document without overwriting the changes of others. COMMAND reads the document
# and prints the new one.
update() {
    local path attempt changed
    path=$(document "$1")
    for attempt in 1 2 3 4 5 6; do
        send GET "$path"
        changed=$("$2" <<<"$body")
        if send PUT "$path" --header "If-Match: $etag" --json "$changed"; then return 0; fi
        [ "$code" = CasMismatch ] || return 1
        echo "$1: $code, reading it again"
    done
    return 1
}

sell() {
    jq --compact-output '.seats -= 1'
}

sell_late() {
    local concert
    concert=$(cat)
    if jq --exit-status '.seats == 5' >/dev/null <<<"$concert"; then
        update concert/berlin sell # another customer buys between our read and our write
    fi
    sell <<<"$concert"
}

die() {
    echo "failed${code:+: $body}" >&2
    exit 1
}
trap die ERR

berlin=$(document concert/berlin)
send PUT "$berlin" --json '{"type": "concert", "city": "Berlin", "seats": 5}'
send GET "$berlin"
jq --raw-output '"\(.city): \(.seats) seats"' <<<"$body"

update concert/berlin sell_late
send GET "$berlin"
jq --raw-output '"\(.city): \(.seats) seats"' <<<"$body"

if ! send GET "$(document concert/nowhere)"; then
    echo "concert/nowhere: $code, retry $retry"
fi

send PUT /documents/note --json '{"text": "sold out soon"}'
send POST /documents/note/lock --json '{"lockTime": 1}'
send PUT /documents/note --json '{"text": "sold out"}' # DocumentLocked, retry "safe", until the lock expires
echo "note: stored after the lock expired"

# --no-buffer prints each result as it arrives.
curl --silent --show-error --fail --no-buffer --connect-timeout 2 --header 'Content-Type: application/x-ndjson' \
    --data-binary @- "$bucket/batch" <<'END' | jq --raw-output '"batch: \(.key) \(.status) \(.error.code // "")" | rtrimstr(" ")'
{"op": "set", "key": "concert/lisbon", "value": {"type": "concert", "city": "Lisbon", "seats": 8}}
{"op": "set", "key": "concert/malmö", "value": {"type": "concert", "city": "Malmö", "seats": 7}}
{"op": "add", "key": "concert/lisbon", "value": {}}
END

send PUT /designs/concerts --json '{"views": {"by_city": {
    "map": "function (doc, meta) { if (doc.type == \"concert\") emit(doc.city, doc.seats); }"}}}'
# Parameters are JSON: a string needs its quotes. A failure after the first row is a line with an error.
curl --silent --show-error --fail --no-buffer --connect-timeout 2 --get --data-urlencode 'startkey="B"' \
    --data stale=false --header 'Accept: application/x-ndjson' "$bucket/views/concerts/by_city" |
    jq --raw-output 'if .error then error(.error.code) else "view: \(.key) \(.value)" end'

for _ in 1 2; do
    send POST /documents/visitors/increment --json '{"initial": 1}'
    echo "visitors: $body"
done
