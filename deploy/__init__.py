"""Turns a card and a user's choices into config.yaml, and calls Baseten. Runs without vLLM.

cards, sections   templates/models/*.yaml and what each key means; gpus reads templates/gpus.yaml
options           what a user chooses: MODEL, GPU, PRECISION, …; precisions, sources, weights,
                  environment and vllm_args parse the choices that have rules of their own
memory, plan, fit model size; what a GPU then has room for; whether a choice runs, or why not
config            renders config.yaml: start_command and variables are parts of it, example its
                  sample request, summary what is printed, edits the changes made to it by hand
baseten           calls Baseten's API; checks and verify compare a deployment with the plan
"""
