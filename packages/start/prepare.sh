# What shortens the start of vLLM (docs/operations.md); the start command reads this file before it
# becomes vLLM. But for `completed`, nothing here may keep vLLM from starting.

# As PID 1 a shell hears no signal that it does not handle; sitecustomize.py does it for vLLM.
if [ $$ = 1 ]; then
    trap 'exit 143' TERM
fi

# Asked what a model's class can do, vLLM imports it in a process of its own, for seconds, and keeps
# the answer in its cache under a hash of the class's source. A hash that does not match is asked again.
cache="${VLLM_CACHE_ROOT:-${XDG_CACHE_HOME:-${HOME:-}/.cache}/vllm}/modelinfos"
(mkdir -p "$cache" && while read -r name info; do
    printf '%s\n' "$info" >"$cache/$name.json" || exit
done </packages/start/modelinfos) ||
    echo "prepare.sh: no model infos in $cache; vLLM looks at the model's class itself" >&2

# For the start command: supervisord would expand a %, and a shell alone would not.
percent="$(printf '\045')"

# The process of vLLM, which this shell becomes: what nginx.sh, beside this file, tells to stop.
echo $$ >/tmp/model-server.pid

# The image's nginx.conf has 768 connections for each of nginx's processes, one of which may get them
# all; a request takes two. nginx.sh has nginx use more, for those that are rejected, where it can.
# Where Truss has built the image without nginx, the card's queue alone counts.
if [ -e /etc/nginx/conf.d/proxy.conf ]; then
    export PREDICT_MOST_REQUESTS=320
fi

. /packages/start/machine.sh
. /packages/start/compile_cache.sh

# Python's garbage collector rests while vLLM is imported: see sitecustomize.py beside this file.
export PYTHONPATH="/packages/start${PYTHONPATH:+:$PYTHONPATH}"

# completed FROM TO LENGTH: the folder TO, with links to all files of FROM and a config.json.
#
# vLLM looks for the length of the context in config.json; where a repo in Mistral's format has none,
# it tries twice, 2 s apart, several times a start. The one made here says what vLLM would be told
# by its own default or by the model's card, LENGTH in tokens.
completed() {
    [ -d "$1" ] || { echo "prepare.sh: there is no folder $1 to serve" >&2; return 1; }
    rm -rf "$2" && mkdir -p "$2" && ln -sf "$1"/* "$2" && {
        [ -e "$2/config.json" ] ||
            echo "{\"model_type\": \"mistral\", \"max_position_embeddings\": $3}" >"$2/config.json"
    }
}
