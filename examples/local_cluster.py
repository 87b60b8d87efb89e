"""gensim's own classes, unmodified, on a cluster of this machine, which grows while a model is trained."""

from gensim.models import LdaModel

from distcorpus import LocalCluster
from distcorpus.demo import lee

dictionary, corpus = lee()

if __name__ == "__main__":
    with LocalCluster(n_workers=1) as cluster:
        print(cluster)
        lda = LdaModel(corpus, id2word=dictionary, num_topics=10, chunksize=50, distributed=True)
        cluster.scale(2)
        lda.update(corpus)
        print(cluster)
        status = cluster.dispatcher.status()
        print("workers:", ", ".join(f"{worker['name']} ({worker['state']})" for worker in status["workers"]))
    for topic, words in lda.show_topics(3, 8, formatted=False):
        print(f"topic {topic}:", ", ".join(word for word, _ in words))
