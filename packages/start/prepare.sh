# Shortens the start of vLLM (docs/operations.md); the start command sources this file before it
# becomes vLLM. Except for `completed`, nothing here may keep vLLM from starting.

# As PID 1, a shell ignores a signal that it does not handle; for vLLM, sitecustomize.py handles it.
if [ $$ = 1 ]; then
    trap 'exit 143' TERM
fi

# To learn what a model's class can do, vLLM imports it in a separate process, which takes seconds,
# and caches the answer under a hash of the class's source. If the hash does not match, vLLM asks
# again.
cache="${VLLM_CACHE_ROOT:-${XDG_CACHE_HOME:-${HOME:-}/.cache}/vllm}/modelinfos"
(mkdir -p "$cache" && while read -r name info; do
    printf '%s\n' "$info" >"$cache/$name.json" || exit
done </packages/start/modelinfos) ||
    echo "prepare.sh: no model infos in $cache; vLLM looks at the model's class itself" >&2

# For the start command: supervisord would expand a %, a shell would not.
percent="$(printf '\045')"

# The process id of vLLM, which this shell becomes; nginx.sh, beside this file, stops it by that.
echo $$ >/tmp/model-server.pid

# The image's nginx.conf allows 768 connections per nginx process, and one process may get them all;
# a request takes two. If it can, nginx.sh has nginx allow more, for requests that are rejected. If
# Truss has built the image without nginx, only the card's queue counts.
if [ -e /etc/nginx/conf.d/proxy.conf ]; then
    export PREDICT_MOST_REQUESTS=320
fi

. /packages/start/machine.sh
. /packages/start/compile_cache.sh

# Python's garbage collector rests while vLLM is imported: see sitecustomize.py beside this file.
export PYTHONPATH="/packages/start${PYTHONPATH:+:$PYTHONPATH}"

# completed FROM TO LENGTH: the folder TO, with links to all files of FROM and a config.json.
#
# vLLM looks for the context length in config.json. If a repo in Mistral's format has none, vLLM
# tries twice, 2 s apart, several times per start. The config.json made here gives what vLLM would
# get from its own default or from the model's card: LENGTH, in tokens.
completed() {
    [ -d "$1" ] || { echo "prepare.sh: there is no folder $1 to serve" >&2; return 1; }
    rm -rf "$2" && mkdir -p "$2" && ln -sf "$1"/* "$2" && {
        [ -e "$2/config.json" ] ||
            echo "{\"model_type\": \"mistral\", \"max_position_embeddings\": $3}" >"$2/config.json"
    }
}
