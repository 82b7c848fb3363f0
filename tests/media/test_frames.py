import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonant.media.frames import centre_crop, centres, resize, short_side


@given(st.floats(0, 1e4), st.floats(0.01, 100), st.integers(1, 64))
def test_centres_are_midpoints_of_equal_parts(start, length, frames):
    times = centres(start, start + length, frames)
    edges = np.linspace(start, start + length, frames + 1)
    np.testing.assert_allclose(times, (edges[:-1] + edges[1:]) / 2, rtol=1e-9, atol=1e-9)
    assert start < times[0] and times[-1] < start + length


@given(st.integers(1, 4_000), st.integers(1, 4_000), st.integers(1, 500))
def test_short_side_keeps_the_shape(width, height, size):
    new = short_side(width, height, size)
    assert min(new) == size
    assert max(new) == pytest.approx(size * max(width, height) / min(width, height), abs=0.51)
    assert (new[0] >= new[1]) == (width >= height) or new[0] == new[1]


def test_centre_crop_takes_the_middle():
    frames = np.arange(2 * 5 * 8 * 3, dtype=np.uint8).reshape(2, 5, 8, 3)
    np.testing.assert_array_equal(centre_crop(frames, 4), frames[:, 0:4, 2:6])
    with pytest.raises(ValueError, match="8 x 5 hold no square of 6"):
        centre_crop(frames, 6)


def test_resize_keeps_flat_colours_and_averages():
    frames = np.zeros((1, 8, 16, 3), np.uint8)
    frames[:, :, 8:] = 200
    small = resize(frames, 4)
    assert small.shape == (1, 4, 8, 3)
    np.testing.assert_array_equal(small[0, :, [0, -1], 0], [[0] * 4, [200] * 4])
    assert resize(frames, 8) is frames
