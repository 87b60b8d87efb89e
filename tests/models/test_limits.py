"""At the ends of what numbers can hold: the right answer, or an error that names the documents."""

from __future__ import annotations

import gensim.models
import numpy as np
import pytest

from distcorpus.models import LdaModel

WORDS = dict(enumerate("abcd"))
DOCUMENTS = [[(0, 1), (1, 2)], [(1, 1), (2, 3)], [(0, 2), (3, 1)], [(2, 1), (3, 2)]] * 3


def lda(documents=DOCUMENTS, **options):
    return LdaModel(documents, id2word=WORDS, **{"num_topics": 2, "random_state": 1, **options})


@pytest.mark.parametrize("update", [{"update_every": 0}, {"update_every": 4}])
def test_counts_of_several_chunks_that_add_up_to_too_much(update):
    documents = [[(0, 1e9)], [(1, 1)], [(0, 1e9)], [(0, 1e9)]]
    message = r"^chunk [023], documents 0-0: term id 0: a sum exceeds .*\(2147483648\).* give smaller counts"
    with pytest.raises(OverflowError, match=message):
        lda(documents, num_topics=1, chunksize=1, **update)
    # As they come one by one, they can be counted.
    assert lda(documents, num_topics=1, chunksize=1).state.get_lambda()[0, 0] > 1e9


def test_statistics_that_are_no_numbers_are_refused():
    model = lda()
    model.state.sstats[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"^state\.sstats has what is no number"):
        model.update(DOCUMENTS)


def halves(count):
    """Documents of a few words, every second one of other words than the rest."""
    random = np.random.default_rng(0)
    return [
        [(int(word), count) for word in sorted(random.choice(20, 8, replace=False) + 20 * (number % 2))]
        for number in range(60)
    ]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("count", "passes"), [(1e-4, 20), (1e-4, 10), (1e-5, 3), (1e-5, 20)])
def test_topics_of_hardly_any_words_are_gensims(count, passes, dtype):
    """Their weights exp(psi(lambda) - psi(total)) are of numbers near 0, where psi has a pole."""
    options = {"id2word": dict.fromkeys(range(40), "w"), "num_topics": 2, "random_state": 1, "passes": passes}
    options |= {"eta": 1e-6, "alpha": 0.5, "chunksize": 60, "dtype": dtype, "eval_every": None}
    ours, plain = (cls(halves(count), **options) for cls in (LdaModel, gensim.models.LdaModel))
    assert np.isfinite(ours.expElogbeta).all()
    # Each of the statistics is rounded to the grid in each pass.
    np.testing.assert_allclose(ours.state.sstats, plain.state.sstats, atol=passes * 2.0**-22, rtol=1e-3)
