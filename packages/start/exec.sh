#!/bin/sh
# The start command begins with the shell's `exec`, so that in an image without supervisord, where
# Truss runs it by `sh -c`, vLLM replaces that shell: as PID 1 the shell would not hear a stop.
# supervisord runs the start command without a shell and finds this instead, as /usr/local/bin/exec
# (build_commands in config.yaml).
exec "$@"
