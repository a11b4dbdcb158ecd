#!/usr/bin/env bash
# Every route as the README has it. Usage: curl.sh BASE_URL
set -euo pipefail
base=${1:?usage: curl.sh BASE_URL}
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
# A red PNG of one pixel.
base64 -d >"$folder/red.png" <<<'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC'

expect() { # expect STATUS TEXT curl-arguments… : the status, and a text that the answer holds
  local status=$1 text=$2 got; shift 2
  got=$(curl -sS -o "$folder/answer" -w '%{http_code}' --max-time 60 "$@")
  if [ "$got" != "$status" ] || ! grep -qF -- "$text" "$folder/answer"; then
    echo "wanted $status with $text, got $got: $*"; head -c 2000 "$folder/answer"; exit 1
  fi
}
json=(-H 'content-type: application/json')
expect 200 '"status":"ok"' "$base/health"
expect 200 live "$base/health/live"
expect 200 ready "$base/health/ready"
expect 200 siglip_ "$base/metrics"
expect 200 '"openapi"' "$base/openapi.json"
expect 200 'openapi:' "$base/openapi.yaml"
expect 200 '<title>siglip' "$base/docs"
expect 200 '"object":"model"' "$base/v1/models"
expect 200 '"embedding":[' "$base/v1/embeddings" "${json[@]}" -d '{"input": ["a cat", "a dog"]}'
expect 200 '"embedding":[' "$base/v1/embeddings/images" -F "image=@$folder/red.png"
expect 200 '"index":1' "$base/v1/embeddings/images" -F "image=@$folder/red.png" -F "image=@$folder/red.png"
expect 200 '"embedding":[' "$base/v1/embeddings/images" -H 'content-type: image/png' --data-binary "@$folder/red.png"
expect 200 '"prediction":' "$base/v1/classify" -F "image=@$folder/red.png" -F labels=red,green,blue
picture=$(base64 -w0 "$folder/red.png")
expect 200 '"probability":[[' "$base/v1/score" "${json[@]}" -d "{\"images\": [\"$picture\"], \"texts\": [\"red\"]}"
expect 400 '"code":"malformed_json"' "$base/v1/embeddings" "${json[@]}" -d '{"input":'
expect 404 '"code":"model_not_found"' "$base/v1/embeddings" "${json[@]}" -d '{"input": "a", "model": "x"}'
expect 404 '"code":"route_not_found"' "$base/nothing"
expect 405 '"code":"method_not_allowed"' -X DELETE "$base/v1/models"
expect 406 '"code":"not_acceptable"' "$base/v1/embeddings" "${json[@]}" -H 'accept: image/png' -d '{"input": "a"}'
expect 415 'unsupported_media_type' "$base/v1/embeddings" -d '{"input": "a"}'
expect 422 'input[1]: ' "$base/v1/embeddings" "${json[@]}" -d '{"input": ["a", {"image": "AAAA"}]}'
expect 422 'url_fetch_disabled' "$base/v1/embeddings" "${json[@]}" -d '{"input": {"image": "http://example.com/"}}'
curl -sS -D - -o /dev/null -H 'x-request-id: mine' "$base/v1/models" | grep -qi '^x-request-id: mine'
