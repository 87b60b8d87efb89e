"""The dispatcher: the protocols of gensim's models and of ours (imports training, engines and wire)."""
