"""Bounds what constrained output (schema, regular expression, grammar …) costs everybody else.

rewriting.py   regular expressions in the words that xgrammar reads
categories.py  … Unicode's categories
lookaround/    … look-ahead and word boundaries
ranges.py      sets of characters, for both
trial.py       compiles a constraint and walks it
process.py     a process of its own that does both, with limits on CPU time and memory
common.py      what it compiles in advance
child.py       starts it, and talks to it
recent.py      a map that forgets
readings.py    in the API server: vLLM reads a constraint once, and after it was tried
verdicts.py    in the API server: asks it before vLLM reads a constraint, keeps the answer
masks.py       in the engine: ends a request whose masks take more than their share of time
turns.py       in the engine: which constrained requests go on in a step
"""
