from __future__ import annotations

from reuselib.quantization.interchange import quantization_config
from reuselib.quantization.schemes import scheme

INT8, INT4 = scheme("int8"), scheme("int4-weight", group_size=32)


def test_the_package_understands_what_is_said():
    from compressed_tensors.quantization import QuantizationConfig

    said = quantization_config(
        {"a": INT8, "b": INT8, "c": INT4}, ["table"], ["a", "b", "c", "head"]
    )

    config = QuantizationConfig.model_validate(said)

    assert [group.targets for group in config.config_groups.values()] == [
        ["table"],
        ["c"],
        ["Linear"],
    ]
    assert config.ignore == ["head"]
    assert config.format == "mixed-precision"
    assert config.config_groups["group_1"].weights.group_size == 32
    assert config.config_groups["group_2"].input_activations.dynamic


def test_one_format_is_named_as_such():
    assert quantization_config({"a": INT8}, ["table"], ["a"])["format"] == "int-quantized"
    assert quantization_config({"a": INT4}, [], ["a"])["format"] == "pack-quantized"
