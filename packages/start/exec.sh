#!/bin/sh
# The start command begins with the shell's `exec`: in an image without supervisord, Truss runs it
# with `sh -c`, and vLLM then replaces that shell, which as PID 1 would not hear a stop. supervisord
# runs the start command without a shell and finds this script instead, as /usr/local/bin/exec
# (build_commands in config.yaml).
exec "$@"
