"""The closed world that the demo checkpoint knows: its words, its sentences in three languages, its conversations."""
