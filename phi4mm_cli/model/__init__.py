"""The model core: loading a checkpoint and computing what the original computes. Used by the local engine only."""
