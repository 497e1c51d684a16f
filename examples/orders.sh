#!/usr/bin/env bash
# Take one item from a stock without losing an update, with nothing but curl: read, change, write back under the
# CAS that was read, and start again if somebody was faster.
#
#     examples/orders.sh [URL]
set -euo pipefail
url=${1:-http://127.0.0.1:8080}/v1/buckets/default/documents/stock-hammer
headers=$(mktemp)
trap 'rm -f "$headers"' EXIT

curl --silent --fail --output /dev/null -X PUT -H 'Content-Type: application/json' -d '{"left": 3}' "$url"

while true; do
    left=$(curl --silent --fail --dump-header "$headers" "$url" | sed 's/.*"left": *\([0-9]*\).*/\1/')
    etag=$(sed -n 's/^etag: *\([0-9a-f]*\).*/\1/ip' "$headers")
    [ "$left" -gt 0 ] || { echo "sold out"; break; }
    status=$(curl --silent --output /dev/null --write-out '%{http_code}' -X PUT -H "If-Match: $etag" \
        -H 'Content-Type: application/json' -d "{\"left\": $((left - 1))}" "$url")
    case $status in
        200) echo "took one of $left" ;;
        409) echo "somebody was faster; again" ;;
        *) echo "unexpected status $status" >&2; exit 1 ;;
    esac
done
