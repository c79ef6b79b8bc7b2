"""A file that equals its reference and is far from `predict` is no success."""

import dataclasses

from keras_saq.export.parity import OutputParity

_GOOD = OutputParity("out", 0.1, True, 0.0, 3.0, 0.1, 0.9, 1.0, 40.0)


def test_an_output_is_near_by_noise_or_by_steps():
    assert _GOOD.is_near
    assert dataclasses.replace(_GOOD, snr_db=2.0).is_near
    assert dataclasses.replace(_GOOD, max_lsb=27.0, snr_db=12.0).is_near
    assert not dataclasses.replace(_GOOD, max_lsb=87.0, snr_db=6.0).is_near
