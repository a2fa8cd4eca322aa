"""Modules that are copied into a checkpoint folder for vLLM, which gets its prompts and media through them."""
