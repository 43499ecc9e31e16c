# Logs what the machine is like, one line each, and turns on CUDA's compatibility libraries if the
# driver needs them; prepare.sh sources this file. Nothing here may keep vLLM from starting.

say() { echo "start: $*" >&2; }

# vLLM's image has CUDA 13, which a driver below 580 runs only through the compatibility libraries
# in the image; with a newer driver they must not come first. The image leaves them off.
# https://github.com/vllm-project/vllm/pull/33992
driver="$(grep -o '[0-9]\{3,\}\.[0-9.]*' /proc/driver/nvidia/version 2>/dev/null | head -n 1)"
if [ -z "$driver" ]; then
    say "no NVIDIA driver is loaded"
elif [ "${driver%%.*}" -lt 580 ]; then
    export VLLM_ENABLE_CUDA_COMPATIBILITY=1
    say "driver $driver, older than CUDA 13's 580: CUDA's compatibility libraries are used"
else
    say "driver $driver, new enough for CUDA 13 (580)"
fi

# in_gib FILE NAME: a figure of /proc/meminfo in GiB.
in_gib() { awk -v name="$2:" '$1 == name { printf "%.1f GiB", $2 / 1048576 }' "$1"; }
limit="$(cat /sys/fs/cgroup/memory.max 2>/dev/null)"
case "$limit" in
'' | max) limit="" ;;
*) limit=", of which this container may use $((limit / 1073741824)) GiB" ;;
esac
say "host memory: $(in_gib /proc/meminfo MemAvailable) of $(in_gib /proc/meminfo MemTotal) free$limit"

# The file system decides how fast weights are read: page faults over a network can be slow, and
# `--safetensors-load-strategy prefetch` may then be faster.
for folder in /models/*; do
    [ -d "$folder" ] || continue
    kind="$(df --output=fstype "$folder" 2>/dev/null | tail -n 1)"
    say "$folder is on ${kind:-an unknown file system}, $(timeout 10 du -shL "$folder" | cut -f 1)"
done
