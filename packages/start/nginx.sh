#!/bin/sh
# nginx with a graceful stop: the image has this as /usr/local/bin/nginx, in front of the real one on
# PATH (build_commands in config.yaml), and Truss's supervisord runs it.
#
# At a stop supervisord tells nginx first, by SIGTERM, which ends it and every stream at once. Here
# SIGTERM is handed on to vLLM: that refuses new requests with a 503 and lets running ones finish, and
# nginx ends after it. supervisord kills this shell after 10 s and goes on to vLLM for another 10 s;
# nginx outlives this shell until the container ends.
nginx=/usr/sbin/nginx
case "$*" in
*"daemon off"*) ;;
*) exec "$nginx" "$@" ;;
esac

stop() {
    trap '' TERM
    server="$(cat /tmp/model-server.pid 2>/dev/null)"
    kill -TERM "$server" 2>/dev/null
    while kill -0 "$server" 2>/dev/null; do sleep 0.1; done
    # until it has ended, for nginx hears it only once it is up; $! is empty where it was not started
    while kill -QUIT "$!" 2>/dev/null; do sleep 0.1; done
    exit 0
}

trap stop TERM
"$nginx" "$@" &
wait "$!"
