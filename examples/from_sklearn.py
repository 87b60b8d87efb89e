"""Counts of scikit-learn's CountVectorizer; see docs/from-sklearn.md."""

import numpy as np
from gensim.test.utils import datapath
from sklearn.feature_extraction.text import CountVectorizer

from distcorpus import LdaModel, LsiModel

with open(datapath("lee_background.cor"), encoding="utf-8") as texts:
    vectorizer = CountVectorizer(max_df=0.3, min_df=5, stop_words="english")
    counts = vectorizer.fit_transform(texts)
id2word = dict(enumerate(vectorizer.get_feature_names_out()))

lda = LdaModel(counts.T, id2word=id2word, num_topics=10, passes=10, random_state=1)
topics = np.vstack(list(lda.transform(counts.T)))
print("documents x topics:", topics.shape, "first document:", topics[0].argmax())
print(f"perplexity {np.exp(-lda.log_perplexity(counts.T)):.0f}")

lsi = LsiModel(counts.T, id2word=id2word, num_topics=10)
print("singular values:", lsi.projection.s.round(1)[:5])
