from __future__ import annotations

import pytest

from reuselib.derivation.teacher import refuse_other_form
from reuselib.errors import IncompatibleStep


@pytest.mark.parametrize(
    ("form", "own"),
    [("sparse", "dense"), ("dense", "sparse"), ("adapter", "dense"), ("quantized", "dense")],
)
def test_weights_of_another_form_are_no_start(form, own):
    with pytest.raises(IncompatibleStep) as caught:
        refuse_other_form("other", form, own)
    assert form in caught.value.what
    assert caught.value.fix


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_weights_of_the_same_form_are(form):
    refuse_other_form("other", form, form)
