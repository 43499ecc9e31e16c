"""Bounds what constrained output (schema, regular expression, grammar …) costs everybody else.

trial.py     a process of its own: compiles a constraint and walks it, with limits on CPU and memory
categories.py  before that: what xgrammar would misread in a regular expression
verdicts.py  in the API server: asks it before vLLM reads a constraint, keeps the answer
masks.py     in the engine: ends a request whose masks take more than their share of time
turns.py     in the engine: which constrained requests go on in a step
"""
