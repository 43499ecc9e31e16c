"""Limits what constrained output (schema, regular expression, grammar …) costs other requests.

rewriting.py   rewrites regular expressions so that xgrammar can read them
categories.py  … Unicode's categories
lookaround/    … look-ahead and word boundaries
ranges.py      sets of characters, for both
trial.py       compiles a constraint and walks it
process.py     the process that does both, with limits on CPU time and memory
common.py      what that process compiles in advance
child.py       starts the process, and talks to it
recent.py      a map that forgets
readings.py    in the API server: vLLM reads a constraint once, and after its trial
verdicts.py    in the API server: asks the process before vLLM reads a constraint, keeps the answer
masks.py       in the engine: ends a request whose masks take more than their share of time
turns.py       in the engine: chooses the constrained requests that go on in a step
"""
