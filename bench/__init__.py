"""`make bench`: measures this Truss, bare vLLM, stock vLLM, or a deployment by its URL.

stock, overhead, startup, scaling   the parts: what is compared, and how it is shown
deployment                          any server by its URL
servers, bypass                     what is measured: started, with a door past the middleware
client, backends, images            `vllm bench serve`, which sends the requests
cpu, machine, metrics, parsing      what is read, and the arithmetic of it
part, session                       rounds in turn; a run that was stopped goes on
page, plots, text/                  docs/benchmarks.md
"""
