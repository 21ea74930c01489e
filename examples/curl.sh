#!/bin/sh
# The API from a shell: sh examples/curl.sh [http://localhost:8000]. Needs curl and base64.
# With a token: DIFFUSION_ART_SERVE_TOKEN=... sh examples/curl.sh
set -eu
url=${1:-http://localhost:8000}
auth="Authorization: Bearer ${DIFFUSION_ART_SERVE_TOKEN:-none}"
json='Content-Type: application/json'
prompt='Vincent van Gogh / Wheat Field with Cypresses / Post-Impressionism / landscape / 1889'

# What is served, and what it can do.
curl -fsS "$url/v1/models" -H "$auth"
echo

# A picture as base64 ...
curl -fsS "$url/v1/images/generations" -H "$auth" -H "$json" \
  -d "{\"prompt\": \"$prompt\", \"seed\": 7, \"num_inference_steps\": 20}" |
  sed 's/.*"b64_json":"\([^"]*\)".*/\1/' | base64 -d > picture.png
echo picture.png

# ... or as an address, which is good for an hour.
address=$(curl -fsS "$url/v1/images/generations" -H "$auth" -H "$json" \
  -d "{\"prompt\": \"$prompt\", \"seed\": 8, \"response_format\": \"url\", \"output_format\": \"webp\"}" |
  sed 's/.*"url":"\([^"]*\)".*/\1/')
curl -fsS "$address" -o picture.webp
echo picture.webp

# The picture as it comes about: one event for each look at it.
curl -fsSN "$url/v1/images/generations" -H "$auth" -H "$json" \
  -d "{\"prompt\": \"$prompt\", \"stream\": true, \"partial_images\": 3}" | cut -c 1-100
