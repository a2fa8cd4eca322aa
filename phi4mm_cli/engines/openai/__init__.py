"""The engine that asks servers which speak OpenAI's protocol."""
