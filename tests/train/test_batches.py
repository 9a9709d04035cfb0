import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.forward import fixed_batches, resolve_dtype, widths
from winnow.train.batches import PADDING, pack

DOCUMENTS = st.lists(st.lists(st.integers(1, 50), max_size=30), max_size=20)


@given(DOCUMENTS, st.integers(1, 16))
def test_packing_loses_no_token_and_keeps_the_order(documents, context):
    windows = pack([np.array(tokens, dtype=np.int32) for tokens in documents], context, eos=0)
    stream = [token for tokens in documents for token in [*tokens, 0]]
    assert windows.dtype == np.int32 and windows.shape == (-(-len(stream) // context), context)
    flat = windows.reshape(-1)
    assert flat[: len(stream)].tolist() == stream
    assert (flat[len(stream) :] == PADDING).all() and len(flat) - len(stream) < context


def test_a_negative_token_is_an_error():
    with pytest.raises(ValueError, match="negative"):
        pack([np.array([3, -1])], 4, eos=0)


@given(st.lists(st.integers(0, 700), max_size=300), st.integers(1, 4096))
def test_fixed_batches_hold_every_sequence_once_in_a_shape_of_its_own_length(lengths, tokens):
    shapes, seen = {}, []
    for width, rows, members in fixed_batches(np.array(lengths, dtype=np.int64), 700, tokens):
        assert 1 <= len(members) <= rows == max(1, tokens // width)
        for member in members:
            assert lengths[member] <= width
            assert width == widths(700)[np.searchsorted(widths(700), lengths[member])]
        shapes[width] = rows
        seen += members.tolist()
    assert sorted(seen) == list(range(len(lengths)))


def test_widths_are_multiples_of_sixteen_that_reach_the_longest():
    for longest in (1, 16, 17, 256, 257, 1000, 8192):
        steps = widths(longest)
        assert steps[-1] >= longest and (steps % 16 == 0).all() and (np.diff(steps) > 0).all()
        assert len(steps) == 1 or steps[-2] < longest


def test_an_unknown_dtype_is_a_user_error():
    assert resolve_dtype("float32") == "float32" and resolve_dtype("auto") in ("float32", "bfloat16")
    with pytest.raises(ValueError, match="dtype 'int8' is unknown"):
        resolve_dtype("int8")
