"""What stands in front of vLLM, in its process: `vllm serve … --middleware predict.app.Gateway`.

The way of a request:
app.py        the ASGI class that vLLM loads; reads settings.py (limits.yaml, PREDICT_…) once
admission.py  routes, slots, 503 with Retry-After, probes (liveness.py watches the engine)
requests/     reads the body, checks limits (limits.yaml), repairs conversations, passes it on
constraints/  tries schemas, expressions and grammars before the engine takes them
legacy/       `prompt` and arguments of transformers' generate → chat; chat answers → {"output": …}
images/       fetches and decodes images: vLLM's media connector, with its own rules
errors/       brings every error into the OpenAI format; asgi.py has helpers for bodies

The process: plugin.py is what vLLM loads in each of its processes, logs.py keeps requests out of
the logs, hub_token.py reads the secret at the start, tool_parser.py repairs a parser,
vllm_internals.py lists what we rely on that vLLM does not promise.
"""
