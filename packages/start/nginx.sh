#!/bin/sh
# nginx with a graceful stop and more connections: the image has this script as
# /usr/local/bin/nginx, ahead of the real one on PATH (build_commands in config.yaml), and Truss's
# supervisord runs it.
#
# On a stop, supervisord first sends SIGTERM to nginx, which would end nginx and every stream at
# once. This script passes SIGTERM on to vLLM, which refuses new requests with a 503 and lets
# running ones finish; nginx ends after it. supervisord kills this shell after 10 s and gives vLLM
# another 10 s; nginx outlives this shell until the container ends.
nginx=/usr/sbin/nginx
case "$*" in
*"daemon off"*) ;;
*) exec "$nginx" "$@" ;;
esac

# The image's nginx.conf allows 768 connections per worker process, and one process may get them
# all. A request takes two; with none left, nginx answers 500 where vLLM would answer 503.
config=/tmp/nginx.conf
[ "$(ulimit -n)" -ge 8192 ] 2>/dev/null || ulimit -n 8192 2>/dev/null
sed 's/worker_connections [0-9]*;/worker_connections 4096;/' /etc/nginx/nginx.conf >"$config" &&
    "$nginx" -t -q -c "$config" 2>/dev/null && set -- -c "$config" "$@"

stop() {
    trap '' TERM
    server="$(cat /tmp/model-server.pid 2>/dev/null)"
    kill -TERM "$server" 2>/dev/null
    while kill -0 "$server" 2>/dev/null; do sleep 0.1; done
    # until it has ended: nginx hears it only once it is up; $! is empty if it was not started
    while kill -QUIT "$!" 2>/dev/null; do sleep 0.1; done
    exit 0
}

trap stop TERM
"$nginx" "$@" &
wait "$!"
