"""Rules and rounds that hypothesis draws, for the tests of verified weights."""

from hypothesis import strategies as st

from fccl.contribution.verified import Verified
from fccl.testing.quadratic import Quadratic, updates

number = st.integers(-768, 768).map(lambda n: n / 256)  # no numbers so small that their products vanish
row = st.tuples(number, number, number)
away = st.floats(1, 3, width=32) | st.floats(-3, -1, width=32)
like_row = st.tuples(away, away, away)  # none is more than three times as far from 0 as another
rows = st.lists(row, min_size=1, max_size=7)
quadratics = st.builds(Quadratic, target=row, curvature=st.tuples(*[st.floats(0.125, 4)] * 3))
rules = st.builds(
    Verified,
    loss=quadratics,
    steps=st.integers(1, 6),
    temperature=st.floats(0.125, 8),
    prior=st.sampled_from(["samples", "uniform"]),
)


@st.composite
def rounds(draw, row=row, **limits):
    given_rows = draw(st.lists(row, **({"min_size": 1, "max_size": 7} | limits)))
    samples = draw(st.lists(st.integers(1, 1000), min_size=len(given_rows), max_size=len(given_rows)))
    return updates(given_rows, samples)
