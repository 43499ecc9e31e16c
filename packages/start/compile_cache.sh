# Keeps what a replica has compiled for the next one; prepare.sh sources this file.
#
# Baseten mounts /cache/model into all replicas of a model, where it offers that (b10cache). If the
# mount is there, this unpacks what an earlier replica left, before vLLM starts. If nothing is there
# yet, it packs what this replica compiles, once vLLM is ready, in the background and under a unique
# name, and then renames the archive: an archive is complete or absent, and of two replicas the
# later one's stays. Another config.yaml, GPU or driver has another archive. Nothing here may keep
# vLLM from starting.

shared=/cache/model
seconds=120 # for a mount that does not answer
kept="$(
    {
        cat /app/config.yaml /proc/driver/nvidia/version
        grep -h '^Model:' /proc/driver/nvidia/gpus/*/information
    } 2>/dev/null | cksum | tr ' ' -
)"
archive="$shared/vllm-compiled-$kept.tar.gz"

# The folders of what vLLM and its libraries compile at a start, if they exist.
compiled() {
    for folder in "${VLLM_CACHE_ROOT:-${XDG_CACHE_HOME:-$HOME/.cache}/vllm}/torch_compile_cache" \
        "$HOME/.triton/cache" "$HOME/.humming/cache" "$HOME/.cache/flashinfer"; do
        [ -d "$folder" ] && echo "$folder"
    done
}

# Unpacks an earlier replica's archive; false if there is no good one.
restore() {
    if [ ! -f "$archive" ]; then
        say "compile cache: nothing in $shared for this config and GPU yet"
        return 1
    fi
    # gzip detects an archive that is cut off or changed; in a fresh container the folders are new
    if timeout "$seconds" gzip -t "$archive" 2>/dev/null &&
        timeout "$seconds" tar -xzf "$archive" -C / 2>/dev/null; then
        say "compile cache: found in $shared, $(du -sh "$archive" | cut -f 1)"
        return
    fi
    say "compile cache: $archive is damaged and not used"
    compiled | while read -r folder; do rm -rf "$folder"; done
    rm -f "$archive" 2>/dev/null
    return 1
}

keep() {
    port="$(sed -n 's/^ *server_port: *//p' /app/config.yaml)"
    until curl -fs -o /dev/null --max-time 5 "http://127.0.0.1:$port/health"; do
        kill -0 $$ 2>/dev/null || return # vLLM has ended
        sleep 2
    done
    folders="$(compiled)"
    [ -n "$folders" ] || return
    draft="$(mktemp "$shared/.vllm-compiled.XXXXXX" 2>/dev/null)" || {
        say "compile cache: $shared cannot be written, so nothing is kept"
        return
    }
    # relative to /, so that they are unpacked to where they were
    if echo "$folders" | sed 's|^/||' |
        nice -n 19 timeout "$seconds" tar -czf "$draft" -C / -T - 2>/dev/null &&
        mv -f "$draft" "$archive" 2>/dev/null; then
        say "compile cache: kept in $shared for the next replica, $(du -sh "$archive" | cut -f 1)"
    else
        rm -f "$draft" 2>/dev/null
        say "compile cache: $shared has no room or failed, so nothing is kept"
    fi
    find "$shared" -maxdepth 1 -name '*vllm-compiled*' -mtime +30 -delete 2>/dev/null
}

if [ ! -d "$shared" ]; then
    say "compile cache: no $shared is mounted, so every replica compiles for itself"
elif ! restore; then
    keep &
fi
