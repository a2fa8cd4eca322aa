"""`phi4mm serve`: an engine behind a small OpenAI-compatible server, for many clients at once.

`shared` shares the engine, which has one thread, among those who wait for its answers; `uploads` keeps the media of a
request for as long as it lasts; `body` and `asked` read what a chat request asks for, `chat` answers it, `speech` is
the project's own transcription in OpenAI's form; `gate` stands before them all, with the key and the limits.
"""
