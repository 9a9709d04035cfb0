import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.attribution.batching import BATCH_TOKENS, batches, canonical_order, check_documents, uniforms
from winnow.errors import UserError

lengths = st.lists(st.integers(0, 300), max_size=60)


@settings(max_examples=40, deadline=None)
@given(lengths, st.integers(2, 256))
def test_every_document_of_two_tokens_is_in_exactly_one_batch_with_its_own_tokens(counts, context):
    docs = [np.arange(count) + 1000 * index for index, count in enumerate(counts)]
    seen = []
    for batch in batches(docs, context, batch_tokens=512):
        assert batch.inputs.shape == batch.targets.shape == batch.weights.shape
        assert batch.inputs.shape[1] <= context
        for row, index in enumerate(batch.rows.tolist()):
            used = min(len(docs[index]), context) - 1
            assert (batch.inputs[row, :used] == docs[index][:used]).all()
            assert (batch.targets[row, :used] == docs[index][1 : used + 1]).all()
            assert (batch.inputs[row, used:] == docs[index][0]).all()
            assert np.isclose(batch.weights[row].sum(), 1.0, atol=1e-6)
            assert not batch.weights[row, used:].any()
            seen.append(index)
        assert not batch.weights[len(batch.rows) :].any()
    assert sorted(seen) == [index for index, count in enumerate(counts) if count >= 2]


def test_the_shape_of_a_batch_depends_on_the_length_alone():
    alone = [batch.inputs.shape for batch in batches([np.arange(50)], 256)]
    crowd = [batch.inputs.shape for batch in batches([np.arange(50)] * 200, 256)]
    assert set(alone) == set(crowd) == {(BATCH_TOKENS // 64, 64)}


def test_the_canonical_order_and_the_draws_depend_on_tokens_not_places():
    docs = [np.arange(index, index + 9) for index in range(20)]
    order = canonical_order(docs, seed=3)
    turned = canonical_order(docs[::-1], seed=3)
    assert (19 - turned == order).all()
    assert (canonical_order(docs, seed=4) != order).any()
    assert (uniforms(docs[2], 5, 8) == uniforms(docs[2].astype(np.int32), 5, 8)).all()
    assert (uniforms(docs[2], 5, 8) != uniforms(docs[3], 5, 8)).all()


@pytest.mark.parametrize(
    "doc", [np.array([1, 64]), np.array([-1, 2]), np.array([0.5, 1.0]), np.zeros((2, 2), dtype=int)]
)
def test_a_document_that_is_no_token_array_of_the_vocabulary_is_refused_by_its_place(doc):
    with pytest.raises(UserError, match="document 1"):
        check_documents([np.array([1, 2]), doc], 64)
