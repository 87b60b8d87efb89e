"""Documents that come from a generator, are added to later, and never are in memory at once."""

from collections.abc import Iterator

from gensim.corpora import Dictionary
from gensim.test.utils import datapath
from gensim.utils import simple_preprocess

from distcorpus import LdaModel


def texts() -> Iterator[list[str]]:
    """Read one document after another."""
    with open(datapath("lee_background.cor"), encoding="utf-8") as lines:
        yield from map(simple_preprocess, lines)


dictionary = Dictionary(texts())
dictionary.filter_extremes(no_below=5, no_above=0.3)
bags = (dictionary.doc2bow(text) for text in texts())
lda = LdaModel(bags, id2word=dictionary, num_topics=10, chunksize=100, random_state=1)

more = ["The prime minister spoke of the economy.", "The team won the cricket test in Adelaide."]
new = [dictionary.doc2bow(simple_preprocess(text)) for text in more]
lda.update(new)
for text, topics in zip(more, lda[new], strict=True):
    best = max(topics, key=lambda pair: pair[1])[0]
    print(f"{text} -> topic {best}:", ", ".join(word for word, _ in lda.show_topic(best, 5)))
