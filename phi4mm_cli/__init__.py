"""phi4mm: recordings, pictures and documents to text, with Phi-4-multimodal-instruct."""

__version__ = "0.1.0"
