# shellcheck shell=bash
# Helpers shared by the scripts. Sourced, never run.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"
# Where rustup and the engine put their programs, also when the shell's profile does not say so.
PATH=$PATH:$HOME/.cargo/bin:/usr/local/sbin:/usr/sbin:/sbin

say() { if [ -t 1 ]; then printf '\033[1m==> %s\033[0m\n' "$*"; else printf '==> %s\n' "$*"; fi; }
note() { printf '    %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# setting NAME DEFAULT: as grid reads it: from the environment, .env, the file of settings, else the default.
setting() {
    local value=${!1-} file=config/grid.toml key=${1#GRID_}
    if [ -z "$value" ] && [ -f .env ]; then value=$(assigned "$1" .env); fi
    if [ "$1" != GRID_CONFIG ]; then file=$(setting GRID_CONFIG config/grid.toml); fi
    if [ -z "$value" ] && [ -f "$file" ]; then key=${key,,} value=$(assigned "${key//_/[._]}" "$file"); fi
    printf '%s' "${value:-$2}"
}

# assigned KEY FILE: the value of the last line `KEY = value`, without quotes and comment.
assigned() {
    sed -nE "s/^[[:space:]]*(export[[:space:]]+)?$1[[:space:]]*=[[:space:]]*//p" "$2" | tail -n 1 | tr -d '\r' |
        sed -E "s/^\"([^\"]*)\".*/\1/; t; s/^'([^']*)'.*/\1/; t; s/[[:space:]]+#.*//; s/[[:space:]]+\$//"
}

# as_root COMMAND...: as it is for root, else through sudo.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif have sudo; then sudo "$@"
    else return 126
    fi
}
may_become_root() { [ "$(id -u)" = 0 ] || have sudo; }

# The engine that grid will use is the one the scripts use: .env counts for both.
use_engine_of_settings() {
    local host
    host=$(setting DOCKER_HOST '')
    if [ -n "$host" ]; then export DOCKER_HOST=$host; fi
}
# grant_network PROGRAM: lets Grid set up the network of the functions. Root may; others need the right on the program,
# which each build takes away.
grant_network() {
    local right=cap_net_admin,cap_net_bind_service=ep
    if [ "$(id -u)" = 0 ] || [ "$(setting GRID_EGRESS_ENFORCEMENT firewall)" = guard-only ]; then return; fi
    if setcap -q -v "$right" "$1" >/dev/null 2>&1; then return; fi
    say 'Giving Grid the right to set up the network of the functions (setcap)'
    may_become_root || die "neither root nor sudo here. Ask somebody who is root to run: setcap $right $1
      Or do without a firewall, if you trust every function: GRID_EGRESS_ENFORCEMENT=guard-only make run"
    as_root setcap "$right" "$1" || die "setcap failed: is $1 on a file system that keeps capabilities?"
}

engine_version() { timeout 10 docker version --format '{{.Server.Version}}' 2>/dev/null; }
engine_answers() { have docker && engine_version >/dev/null; }

# rejoin_docker_group SCRIPT ARGS...: a user who was added to the group `docker` after logging in
# has it in the group database, but not in this session. Runs the script again with it.
rejoin_docker_group() {
    if [ "$(id -u)" = 0 ] || [ -n "${REJOINED_DOCKER_GROUP-}" ] || ! have sg; then return 0; fi
    if id -nG | grep -qw docker || ! id -nG "$(id -un)" | grep -qw docker; then return 0; fi
    export REJOINED_DOCKER_GROUP=1
    # sg waits for the script and passes no signal on: when it is ended, so is the script.
    exec sg docker -c "exec setpriv --pdeathsig TERM $(printf '%q ' "$@")"
}

# progress LABEL COMMAND...: runs the command into a log, says every 10 s how long it has taken and
# what it does, and shows the end of the log when it fails.
progress() {
    local label=$1 log start=$SECONDS ticker code=0
    shift
    log=$(mktemp)
    (
        while sleep 10; do
            note "$label: $((SECONDS - start)) s, $(tr '\r' '\n' <"$log" | grep -v '^ *$' | tail -n 1 | cut -c 1-90)"
        done
    ) &
    ticker=$!
    "$@" >"$log" 2>&1 || code=$?
    kill "$ticker" 2>/dev/null || true
    wait "$ticker" 2>/dev/null || true
    if [ "$code" = 0 ]; then
        note "$label: done in $((SECONDS - start)) s"
    else
        note "$label: failed after $((SECONDS - start)) s (exit code $code):"
        tail -n 25 "$log" | sed 's/^/      /'
    fi
    rm -f "$log"
    return "$code"
}

# runtimes: one line per runtime of config/runtimes.toml: its name, base image and fallbacks.
runtimes() {
    awk '
        function strings(text,   out) {
            out = ""
            while (match(text, /"[^"]*"/)) {
                out = out " " substr(text, RSTART + 1, RLENGTH - 2)
                text = substr(text, RSTART + RLENGTH)
            }
            return out
        }
        function flush() { if (name != "" && base != "") print name base fallbacks; name = base = fallbacks = "" }
        { sub(/^[ \t]+/, "") }
        /^#/ { next }
        /^\[/ {
            flush(); list = 0
            if (match($0, /^\[runtimes\./)) { name = substr($0, 11); sub(/\].*/, "", name); gsub(/"/, "", name) }
            next
        }
        list { fallbacks = fallbacks strings($0); if (/\]/) list = 0; next }
        /^base[ \t]*=/ { sub(/#.*/, ""); base = strings($0) }
        /^fallbacks[ \t]*=/ { fallbacks = strings($0); list = !/\]/ }
        END { flush() }
    ' config/runtimes.toml
}

# local_image IMAGE...: the first of them that the engine has.
local_image() {
    local image
    for image; do
        if docker image inspect "$image" >/dev/null 2>&1; then
            echo "$image"
            return 0
        fi
    done
    return 1
}
