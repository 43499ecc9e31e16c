"""What stands in front of vLLM, in its process: `vllm serve … --middleware predict.app.Gateway`.

The way of a request:
app.py        the ASGI class that vLLM loads; reads settings.py (limits.yaml, PREDICT_…) once
admission.py  routes, slots, 503 with Retry-After, probes (liveness.py watches the engine),
              tokens an event while many streams run (pacing.py)
memory.py     room for bodies, and for the images of all requests
requests/     reads the body, a large one in its turn (turns.py), checks limits, repairs
              conversations and tools, passes it on
constraints/  tries schemas, expressions and grammars before the engine takes them
legacy/       `prompt` and arguments of transformers' generate → chat; chat answers → {"output": …}
images/       fetches and decodes images: vLLM's media connector, with its own rules
errors/       brings every error into the OpenAI format; asgi.py has helpers for bodies

The process:
plugin.py     what vLLM loads in each of its processes
long_prompts.py, prefill_turns.py  keep long prompts from holding short ones up: while they are
              tokenized, and in the engine
tokenizing.py  what /tokenize shows, quickly
prompt_logprobs.py  counts the tokens of prompts whose log probabilities are asked for
scheduling.py has what the turns in the engine share; guard.py keeps their errors from ending it
logs.py       keeps requests out of the logs; logging.json is vLLM's logging configuration
hub_token.py  reads the secret at the start
running.py    what runs, as a line of /metrics for `make smoke`, and the memory of requests

What is changed of vLLM itself, each to be deleted when vLLM does it (vllm_internals.py lists all we
rely on): per_token.py and tool_parser.py spare CPU, continuing.py continues Anthropic's answers,
upgrades.py reads requests that offer HTTP/2, accepting.py has many connections accepted at a time.
"""
