"""`make bench`: measures this Truss, bare vLLM, stock vLLM, or a deployment by its URL.

stock, overhead, startup, scaling   the parts: what each compares, and how it is shown
deployment                          any server by its URL
servers, bypass                     the servers to measure, one with a way past the middleware
client, backends, images            `vllm bench serve`, which sends the requests
cpu, machine, metrics, parsing      the readings, and the arithmetic on them
part, session                       alternating rounds; resuming a run that was stopped
page, plots, text/                  docs/benchmarks.md
"""
