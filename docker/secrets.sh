#!/bin/sh
# The secrets of docker-compose.yml, made where they are missing: files of random bytes, in a folder of this user alone.
# hf_token, for repositories that ask for a login, holds what HF_TOKEN says, or nothing.
# `docker/secrets.sh key ID TENANT` adds an API key to a service that runs.
# The files themselves are readable, since a container's user, who has another id, reads them through a bind mount.
set -eu
folder=${NAG_SECRETS_FOLDER:-$(dirname "$0")/secrets}
mkdir -p "$folder"
chmod 700 "$folder"
umask 022

random() { head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n'; }

# key ID TENANT SCOPES: prints a new API key; its hash goes into the file, which stays the one that is mounted.
key() {
  secret=nag_$(random)
  hash=$(printf %s "$secret" | sha256sum | cut -d ' ' -f 1)
  printf '[keys.%s]\ntenant = "%s"\nsha256 = "%s"\nscopes = [%s]\n\n' "$1" "$2" "$hash" "$3" >> "$folder/api_keys.toml"
  printf %s "$secret"
}

if [ "${1:-}" = key ]; then
  key "$2" "$3" '"generate", "read"'
  echo
  exit
fi
if [ ! -s "$folder/redis.conf" ]; then
  password=$(random)
  printf 'requirepass %s\n' "$password" > "$folder/redis.conf"
  printf 'redis://:%s@redis:6379/0' "$password" > "$folder/nag_redis_url"
fi
if [ ! -s "$folder/api_keys.toml" ]; then
  key prometheus prometheus '"admin", "read"' > "$folder/prometheus_api_key"
  printf 'The API key of this service, shown once: %s\n' "$(key first first '"generate", "read"')"
fi
if [ ! -s "$folder/nag_webhook_secret" ]; then
  printf 'whsec_%s' "$(head -c 32 /dev/urandom | base64)" > "$folder/nag_webhook_secret"
fi
if [ ! -s "$folder/hf_token" ]; then
  printf %s "${HF_TOKEN:-}" > "$folder/hf_token"
fi
if [ ! -s "$folder/grafana_password" ]; then
  random > "$folder/grafana_password"
fi
