# shellcheck shell=bash
# What `run` and `databases` share; sourced, not run.

# packages LIST [OPTION…]: a virtual environment with the packages of a list, made once per list; sets `python`. The options
# are pip's.
packages() {
  local list=$1 stamp folder; shift
  stamp=$(sha256sum "$list" | cut -c1-16)
  folder=$cache/clients-$stamp
  python=$folder/bin/python
  [ ! -e "$folder/ready" ] || return 0
  rm -rf "$folder"
  python3 -m venv "$folder"
  "$folder/bin/pip" install --quiet --disable-pip-version-check "$@" -r "$list"
  touch "$folder/ready"
}

# start_server BINARY MODEL: the service on a free port that it picks itself; sets `server`, `log` and `base`. Whoever calls
# this kills `server` and removes `log` when it ends.
start_server() {
  log=$(mktemp)
  "$1" serve --model "$2" --port 0 --log-format json --drain-timeout 10s 2>"$log" &
  server=$!
  base=
  for _ in $(seq 600); do
    kill -0 $server 2>/dev/null || { cat "$log"; echo "the server did not start"; exit 1; }
    base=$(sed -n 's/.*listening on \(http:\/\/[0-9.:]*\).*/\1/p' "$log" | head -1)
    if [ -n "$base" ] && curl -fsS -o /dev/null "$base/health/ready" 2>/dev/null; then break; fi
    sleep 0.2
  done
  curl -fsS -o /dev/null "$base/health/ready" || { cat "$log"; echo "the server did not become ready"; exit 1; }
}

# client NAME COMMAND…: one line for a client; its output only if it fails, which sets `failed`.
failed=0
client() {
  local name=$1 out; shift
  printf '%-22s' "$name"
  out=$(mktemp)
  if timeout 600 "$@" >"$out" 2>&1; then echo ok; else echo FAILED; cat "$out"; failed=1; fi
  rm -f "$out"
}

# stop_server: an orderly end, and the end of the script.
stop_server() {
  kill -TERM $server
  local status=0
  wait $server || status=$?
  printf '%-22s' "SIGTERM"
  if [ $status = 0 ]; then echo "ok (exit 0)"; else echo "FAILED (exit $status)"; failed=1; fi
  if [ $failed != 0 ]; then echo "--- the server's last lines"; tail -20 "$log"; fi
  exit $failed
}
