from __future__ import annotations

import pytest
import torch

from reuselib.quantization.packing import num_words, pack, unpack


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("columns", [1, 7, 8, 32, 40, 65])
def test_what_is_packed_is_unpacked(bits, columns):
    codes = torch.randint(-(1 << (bits - 1)), 1 << (bits - 1), (5, columns)).to(torch.int8)

    words = pack(codes, bits)

    assert words.dtype == torch.int32
    assert words.shape == (5, num_words(columns, bits))
    assert unpack(words, bits, columns).equal(codes)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("columns", [32, 64, 96])
def test_the_bits_are_those_of_compressed_tensors(bits, columns):
    from compressed_tensors.compressors.pack_quantized.helpers import (
        pack_to_int32,
        unpack_from_int32,
    )

    codes = torch.randint(-(1 << (bits - 1)), 1 << (bits - 1), (6, columns)).to(torch.int8)

    assert pack(codes, bits).equal(pack_to_int32(codes, bits))
    assert unpack_from_int32(pack(codes, bits), bits, codes.shape).equal(codes)


def test_the_first_code_lies_in_the_lowest_bits():
    codes = torch.tensor([[-8, -7, -8, -8, -8, -8, -8, 7]], dtype=torch.int8)

    assert pack(codes, 4).item() & 0xFFFFFFFF == 0xF0000010
