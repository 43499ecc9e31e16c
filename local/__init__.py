"""Runs the built Truss on this machine, without Docker and without a GPU. Linux only.

truss       builds the container's files with Truss's own builder, and runs them in sandbox
processes   a running container, seen from outside; ports and machine: what it needs here
standins/   small checkpoints, trained here, in place of the weights
finetunes/  the same for adapters and quantized weights
vllm/, cpu/ what vLLM's CPU build needs; environment.yaml has its variables
clients     real clients, each language in its own environment, against the container
"""
