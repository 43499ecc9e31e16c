"""From a card and a user's choices to config.yaml, and to Baseten. Runs without vLLM.

cards, sections   templates/models/*.yaml and what each key means; gpus reads templates/gpus.yaml
options           what a user chooses: MODEL, GPU, PRECISION, …; precisions, sources, weights,
                  environment and vllm_args read the choices that have rules of their own
memory, plan, fit what a model weighs; what a GPU then holds; whether a choice runs, or why not
config            renders config.yaml: start_command and variables are parts of it, example its
                  sample request, summary what is printed, edits what a hand has changed in it
baseten           calls of Baseten's API; checks and verify say whether a deployment is as planned
"""
