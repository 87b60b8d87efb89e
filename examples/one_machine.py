"""LDA and LSI on the cores of this machine; saved, and loaded by gensim."""

import tempfile
from pathlib import Path

import gensim
from gensim.models import TfidfModel

from distcorpus import LdaModel, LsiModel
from distcorpus.demo import lee

dictionary, corpus = lee()
lda = LdaModel(corpus, id2word=dictionary, num_topics=10, passes=10, alpha="auto", random_state=1)
for topic, words in lda.show_topics(3, 8, formatted=False):
    print(f"topic {topic}:", ", ".join(word for word, _ in words))
print(f"perplexity {2 ** -lda.log_perplexity(corpus):.0f} (as gensim has it)")

tfidf = TfidfModel(corpus)
lsi = LsiModel(tfidf[corpus], id2word=dictionary, num_topics=20)
print("singular values:", ", ".join(f"{value:.3f}" for value in lsi.projection.s[:5]))

with tempfile.TemporaryDirectory() as folder:
    lda.save(str(Path(folder) / "lda"))
    same = gensim.models.LdaModel.load(str(Path(folder) / "lda"))
    print("gensim reads it:", type(same).__name__, same.num_topics, "topics")
