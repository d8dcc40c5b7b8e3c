#!/bin/sh
# curl with HTTP/2, which offers an upgrade with each request.
body='{"model": "gpt-image-1", "prompt": "a shape"}'
said=$(curl --silent --http2 --output /dev/null --write-out '%{http_code} over HTTP/%{http_version}' \
  "$SERVICE_URL/v1/images/generations" -H "authorization: Bearer $SERVICE_KEY" -H 'content-type: application/json' \
  --data "$body")
case $said in 200*) passed=true ;; *) passed=false ;; esac
printf '{"request": "POST, upgrade offered", "result": "%s", "passed": %s}\n' "$said" "$passed"
