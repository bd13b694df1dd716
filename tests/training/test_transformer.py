"""The transformer encoder: what the transformers library computes with the same weights, in any company and padding."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from tests.training.synthetic import MINILM, load, tiny_transformer
from tests.training.test_tokens import sequences
from training.artifact import new_model
from training.data.batches import Bags
from training.data.dataset import Dataset, UnsuitableData
from training.encoders import EncoderError, TransformerConfig, TransformerEncoder, new_encoder, transformer
from training.encoders.features import FeatureTable
from training.encoders.pretrained import load_weights, longest_input, model_folder, new_transformer, read_architecture
from training.methods.base import Shape
from training.methods.unidec import UnidecConfig
from training.tokens import token_sequences

VOCABULARY = 30522
TEXTS = ["a red house by the river", "", "Candles! and unbelievably many bridges, " * 4]
SHAPE = Shape(input_width=VOCABULARY, label_count=8, train_rows=45, text=True, single_label=False)

rows = st.lists(st.lists(st.integers(1000, 5000), max_size=9), min_size=1, max_size=5)


def config(**options: Any) -> TransformerConfig:
    return TransformerConfig(**{"model": MINILM, "layers": 1} | options).resolved()


def pretrained_encoder(**options: Any) -> TransformerEncoder:
    """An encoder with the real weights, in evaluation mode."""
    torch.manual_seed(0)
    made = new_encoder(config(**options), SHAPE)
    assert isinstance(made, TransformerEncoder)
    load_weights(made.transformer, Path(MINILM))
    return made.eval()


@pytest.fixture(scope="module")
def encoders() -> dict[str, TransformerEncoder]:
    """One of each pooling."""
    return {pooling: pretrained_encoder(pooling=pooling) for pooling in ("mean", "cls")}


def padded(rows: Sequence[Sequence[int]], length: int) -> tuple[Tensor, Tensor]:
    """Ids and values (Q, T); what stands where the value is 0 must not matter."""
    ids_QT, values_QT = torch.full((len(rows), length), 2000), torch.zeros(len(rows), length)
    for row, ids in enumerate(rows):
        ids_QT[row, : len(ids)], values_QT[row, : len(ids)] = torch.tensor(ids, dtype=torch.int64), 1
    return ids_QT, values_QT


@torch.no_grad()
def reference(texts: list[str], pooling: str, layers: int) -> Tensor:
    """Pooled vectors as the model's card says, one text at a time, by the library's own tokenizer and forward pass."""
    tokenizer, model = AutoTokenizer.from_pretrained(MINILM), AutoModel.from_pretrained(MINILM).eval()
    pooled = []
    for text in texts:
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=16)
        hidden_TD = model(**inputs, output_hidden_states=True).hidden_states[layers][0]
        pooled.append(hidden_TD.mean(dim=0) if pooling == "mean" else hidden_TD[0])
    return torch.stack(pooled)


@pytest.mark.parametrize(("pooling", "layers"), [("mean", 6), ("cls", 2)])
def test_vectors_are_those_of_the_library(pooling: str, layers: int) -> None:
    options = TransformerConfig(model=MINILM, pooling=pooling, max_tokens=16)  # type: ignore[arg-type]
    read = token_sequences(options.tokenizer([]), TEXTS, 16)
    encoder = pretrained_encoder(pooling=pooling, layers=layers if layers < 6 else None)
    with torch.no_grad():
        found = encoder.pooled(Bags.from_csr(read))
    torch.testing.assert_close(found, reference(TEXTS, pooling, layers), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_neither_company_nor_padding_changes_a_vector(encoders: dict[str, TransformerEncoder], pooling: str) -> None:
    encoder = encoders[pooling]

    @settings(max_examples=15)
    @given(rows=rows, more=st.integers(0, 4))
    @torch.no_grad()
    def holds(rows: list[list[int]], more: int) -> None:
        alone = torch.cat([encoder(Bags.from_csr(sequences([row], VOCABULARY))) for row in rows])
        together = encoder(Bags.from_csr(sequences(rows, VOCABULARY)))
        served = encoder.padded(*padded(rows, max(1, *map(len, rows), 1) + more))
        assert together.shape == (len(rows), encoder.output_width)
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(served, alone, rtol=1e-4, atol=1e-5)

    holds()


def test_many_rows_are_read_in_pieces(encoders: dict[str, TransformerEncoder], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of like length together, each back in its place."""
    encoder, shapes = encoders["mean"], []
    bags = Bags.from_csr(sequences([[2000 + row] * (1 + row % 4) for row in range(9)], VOCABULARY))
    with torch.no_grad():
        whole = encoder(bags)
        monkeypatch.setattr(transformer, "TOKENS_AT_ONCE", 8)
        with reads(encoder, lambda ids: shapes.append(tuple(ids.shape))):
            torch.testing.assert_close(encoder(bags), whole, rtol=1e-4, atol=1e-5)
    # Lengths 1, 2, 3, 4, 1, 2, 3, 4, 1.
    assert shapes == [(2, 4), (2, 3), (4, 2), (1, 1)]


@contextmanager
def reads(encoder: TransformerEncoder, note: Callable[[Tensor], None]) -> Iterator[None]:
    """Tell what ids the transformer is given."""
    hook = encoder.transformer.register_forward_pre_hook(
        lambda module, arguments, named: note(named["input_ids"]), with_kwargs=True
    )
    yield
    hook.remove()


@pytest.mark.parametrize("frozen", [False, True])
def test_no_row_gives_no_vector(frozen: bool) -> None:
    """One of several workers may have none of a batch."""
    made = pretrained_encoder(frozen=frozen)
    made.remember(sequences([[1000]]))
    assert made(Bags.from_csr(sequences([[1000]])[:0])).shape == (0, made.output_width)


def test_layers_above() -> None:
    encoder = pretrained_encoder(widths=(5, 5, 3))
    assert encoder.output_width == 3
    with torch.no_grad():
        pooled_QD = encoder.pooled(Bags.from_csr(sequences([[2000, 3000]], VOCABULARY)))
        first_QD = torch.relu(encoder.layers[0](pooled_QD))
        second_QD = first_QD + torch.relu(encoder.layers[1](first_QD))
        expected = torch.relu(encoder.layers[2](second_QD))
        torch.testing.assert_close(encoder.layers_above(pooled_QD), expected)


def test_dropout_acts_in_training_only() -> None:
    encoder = pretrained_encoder(dropout=0.5, frozen=True)
    bags = Bags.from_csr(sequences([[2000, 3000]], VOCABULARY))
    assert 0.3 < (encoder.train()(bags) == 0).float().mean().item() < 0.7
    assert (encoder.eval()(bags) != 0).all()


def test_a_frozen_transformer_stays_in_evaluation_mode_and_gets_no_gradient() -> None:
    encoder = pretrained_encoder(frozen=True, widths=(4,)).train()
    assert encoder.training
    assert not encoder.transformer.training
    encoder(Bags.from_csr(sequences([[2000, 3000], [4000]], VOCABULARY))).sum().backward()
    assert {name for name, weight in encoder.named_parameters() if weight.grad is not None} == {
        "layers.0.weight",
        "layers.0.bias",
    }
    assert list(encoder.own_weights()) == list(encoder.transformer.parameters())


def test_vectors_that_stay_as_they_are_get_a_mean_of_0_and_a_deviation_of_1(texts: Path) -> None:
    """A dimension that does not vary is not blown up."""
    dataset, run = load(texts, tiny_transformer("mach", {"frozen": True}))
    encoder = new_encoder(run.encoder, Shape.of(dataset)).eval()
    bags = Bags.from_csr(dataset.train.inputs)
    encoder.initialise(dataset)
    hidden_ND = encoder(bags)
    torch.testing.assert_close(hidden_ND.mean(dim=0), torch.zeros(384), rtol=0, atol=1e-4)
    torch.testing.assert_close(hidden_ND.std(dim=0, correction=0), torch.ones(384), rtol=1e-3, atol=0)
    one = replace(dataset, train=dataset.train.take(np.zeros(3, dtype=np.int64)))
    encoder.initialise(one)
    assert encoder(Bags.from_csr(one.train.inputs)).abs().max() < 1e-3


@given(rows=rows, others=rows)
def test_a_feature_table_knows_what_was_added(rows: list[list[int]], others: list[list[int]]) -> None:
    draw = np.random.default_rng(0)
    table, first = FeatureTable(), {}
    for part in (rows, others):
        vectors = torch.from_numpy(draw.random((len(part), 3)))
        table.add(Bags.from_csr(sequences(part, VOCABULARY)), vectors)
        for row, vector in zip(part, vectors, strict=True):
            first.setdefault(tuple(row), vector)
    asked = [*others, *rows]
    found = table.find(Bags.from_csr(sequences(asked, VOCABULARY)))
    assert found is not None
    assert torch.equal(found, torch.stack([first[tuple(row)] for row in asked]))
    assert table.find(Bags.from_csr(sequences([*asked, [7]], VOCABULARY))) is None


def test_the_embeddings_belong_to_the_encoders_rate(texts: Path) -> None:
    """Else their rate would be that of a bag's table: a hundred times too high."""
    dataset, run = load(texts, tiny_transformer("unidec"))
    model = new_model(run, Shape.of(dataset))
    rates = {id(weight): group["lr"] for group in model.parameter_groups(1.0, 5.0, 0.5) for weight in group["params"]}
    named = {name: rates[id(weight)] for name, weight in model.named_parameters()}
    assert {rate for name, rate in named.items() if ".transformer." in name} == {0.5}
    assert named["classifier.weight"] == UnidecConfig().classifier_rate
    assert named["encoder_head.weight"] == 1.0


def write_model(folder: Path, **architecture: Any) -> Path:
    """A model's folder with the given configuration, the real tokenizer and no weights."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(architecture))
    (folder / "tokenizer.json").symlink_to(Path(MINILM) / "tokenizer.json")
    return folder


BERT = {"model_type": "bert", "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 40000}


def test_a_name_that_is_no_folder_and_not_on_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hub is not asked: what it would say depends on the network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for name in ("nobody/no-such-model", "no/such/folder"):
        with pytest.raises(EncoderError) as refusal:
            TransformerConfig(model=name).resolved()
        assert str(refusal.value).startswith(
            "encoder.model: expected a folder with config.json, tokenizer.json and weights, or the name of a model on "
            f"the Hugging Face hub, found '{name}', which is no folder and cannot be had from the hub: "
        )


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json"])
def test_a_folder_without_a_file(tmp_path: Path, missing: str) -> None:
    folder = write_model(tmp_path / "model", **BERT)
    (folder / missing).unlink()
    with pytest.raises(EncoderError, match=rf"expected config\.json, tokenizer\.json and weights, found no {missing}"):
        model_folder(str(folder))


@pytest.mark.parametrize(
    ("architecture", "sentence"),
    [
        ({"hidden_size": 8}, r"config\.json: expected a transformer's configuration, found: 'model_type'"),
        ({"model_type": "none-such"}, r"expected a transformer's configuration, found: .*none-such"),
        (
            BERT | {"auto_map": {"AutoModel": "evil.Model"}},
            "the transformers package knows, found one with its own code",
        ),
        ({"model_type": "t5"}, "expected an encoder, found the encoder and decoder of t5"),
    ],
)
def test_configurations_that_cannot_be_used(tmp_path: Path, architecture: dict[str, Any], sentence: str) -> None:
    with pytest.raises(EncoderError, match=sentence):
        read_architecture(write_model(tmp_path / "model", **architecture))


def test_a_configuration_that_is_no_json(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    (folder / "config.json").write_text("{")
    with pytest.raises(EncoderError, match=r"config\.json: expected a transformer's configuration"):
        read_architecture(folder)


def test_an_architecture_says_nothing_of_its_author_or_this_machine() -> None:
    assert {"_name_or_path", "transformers_version", "architectures"}.isdisjoint(read_architecture(Path(MINILM)))


def test_a_folder_without_weights_or_with_some_missing(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = write_model(tmp_path / "model", **BERT)
    made = new_transformer(read_architecture(folder), 1)
    with pytest.raises(EncoderError, match="expected a model's weights, found"):
        load_weights(made, folder)
    save_file({name: weight.clone() for name, weight in made.state_dict().items()}, folder / "model.safetensors")
    load_weights(made, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.0.output.dense.weight"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(EncoderError, match=r"found none for encoder\.layer\.0\.output\.dense\.weight"):
        load_weights(made, folder)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"layers": 7}, r"encoder\.layers: expected at most the 6 of .*, found 7"),
        ({"max_tokens": 513}, r"encoder\.max_tokens: expected at most the 512 of .*, found 513"),
        ({"max_label_tokens": 600}, r"encoder\.max_label_tokens: expected at most the 512 of .*, found 600"),
    ],
)
def test_sizes_that_the_model_does_not_have(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(EncoderError, match=sentence), torch.device("meta"):
        new_encoder(config(**options), SHAPE)


@pytest.mark.parametrize("option", ["max_tokens", "max_label_tokens"])
def test_a_limit_that_special_tokens_fill(option: str) -> None:
    with pytest.raises(EncoderError, match=rf"encoder\.{option}: expected more than the 2 special tokens, found 2"):
        TransformerConfig(model=MINILM, **{option: 2}).tokenizer([])  # type: ignore[arg-type]


def test_a_tokenizer_with_more_ids_than_the_model(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", **BERT | {"vocab_size": 50})
    with pytest.raises(EncoderError, match="expected a tokenizer of 50 ids at most, found 30522"):
        new_encoder(TransformerConfig(model=str(folder)).resolved(), SHAPE)


def test_positions_behind_that_of_padding_do_not_count() -> None:
    """As in models after RoBERTa, whose 514 positions hold 512 tokens."""
    options = {"model_type": "roberta", "hidden_size": 8, "num_attention_heads": 2, "max_position_embeddings": 514}
    with torch.device("meta"):
        assert longest_input(new_transformer(options | {"pad_token_id": 1}, 1)) == 512
        assert longest_input(new_transformer(BERT, 1)) == 512


def test_features_are_refused(features: Path) -> None:
    with pytest.raises(UnsuitableData, match="a transformer reads texts, and this data set has features"):
        load(features, tiny_transformer("mach"))


def test_points_and_labels_have_limits_of_their_own(texts: Path) -> None:
    dataset, _ = load(texts, tiny_transformer("unidec", {"max_tokens": 5, "max_label_tokens": 3}))
    assert longest(dataset, "train") == 5
    assert dataset.label_bags is not None
    assert np.diff(dataset.label_bags.indptr).max() == 3


def longest(dataset: Dataset, split: str) -> int:
    return int(np.diff(getattr(dataset, split).inputs.indptr).max())
