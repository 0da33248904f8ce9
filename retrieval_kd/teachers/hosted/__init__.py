"""Teachers that are not language models, on a server: embeddings and re-rankers."""
