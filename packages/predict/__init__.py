"""The code in front of vLLM, in its process: `vllm serve … --middleware predict.app.Gateway`.

The path of a request:
app.py        the ASGI class that vLLM loads; reads settings.py (limits.yaml, PREDICT_…) once
admission.py  routes, slots, 503 with Retry-After, probes (liveness.py watches the engine),
              tokens per event while many streams run (pacing.py), a rate limit for
              answers without the engine (rate_limit.py)
memory.py     room for bodies, and for the images of all requests
requests/     reads the body, a large one in its turn (turns.py), checks limits, repairs
              conversations and tools, passes it on
constraints/  tries schemas, expressions and grammars before the engine gets them
legacy/       `prompt` and arguments of transformers' generate → chat; chat answers → {"output": …}
images/       fetches and decodes images: vLLM's media connector, with our own rules
errors/       brings every error into the OpenAI format; asgi.py has helpers for bodies

The process:
plugin.py     what vLLM loads in each of its processes
long_prompts.py, prefill_turns.py  keep long prompts from holding up short ones, when they are
              tokenized and in the engine
tokenizing.py  repairs /tokenize
prompt_logprobs.py, beams.py  have the engine do costly work for one request at a time
sampling_params.py  refuses numbers that the engine cannot take
unread.py     gives a client that was not reading its tokens in pieces
scheduling.py  what the turns in the engine share
logs.py       keeps requests out of the logs; logging.json is vLLM's logging configuration
hub_token.py  reads the secret at the start
running.py    adds to /metrics what runs, for `make smoke`, and the memory of requests

Changes to vLLM itself, each to be deleted once vLLM has it (vllm_internals.py lists all we rely
on): per_token.py and tool_parser.py save CPU, continuing.py continues Anthropic's answers,
upgrades.py reads requests that offer HTTP/2, accepting.py accepts many connections at a time.
"""
