"""Media in: decoding, voice activity, cutting. Nothing here knows the model."""
