import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream.records import Numbered
from stream.whereabouts import Whereabouts

EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("batch"), st.integers(0, 2), st.lists(st.integers(0, 30), unique=True, max_size=8)),
        st.tuples(st.just("evict"), st.integers(0, 2), st.lists(st.integers(0, 30), unique=True, max_size=4)),
        st.tuples(st.just("new book"), st.just(0), st.just([])),
        st.tuples(st.just("without numbers"), st.integers(0, 2), st.lists(st.integers(0, 30), unique=True, max_size=4)),
    ),
    max_size=40,
)


@given(EVENTS)
def test_an_asset_is_found_where_the_dictionary_has_it(events: list[tuple[str, int, list[int]]]) -> None:
    whereabouts = Whereabouts()
    indices: list[dict[str, int]] = [{}, {}, {}]
    book, shift = object(), 0
    for what, partition, assets in events:
        index = indices[partition]
        names = tuple(f"pump-{asset}" for asset in assets)
        if what == "evict":
            for name in names:
                index.pop(name, None)
            whereabouts.forget()
        elif what == "new book":
            book, shift = object(), shift + 7  # other numbers for the same names
        else:
            numbers = np.array([(asset + shift) % 31 for asset in assets], np.int32)
            given = Numbered.of(names, book, numbers) if what == "batch" else names
            found = whereabouts.find(partition, given, index)
            assert found.tolist() == [index.get(name, -1) for name in names]
            for place in np.flatnonzero(found < 0).tolist():
                found[place] = index[names[place]] = next(at for at in range(99) if at not in index.values())
            whereabouts.keep(partition, given, found)
