"""The bag encoder: one function computed twice (training's bags, serving's padded rows), held to a NumPy reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.sparse import check_sparse_tensor_invariants

from tests.training.synthetic import bags, matrix
from training.encoders import BagConfig, BagEncoder

WIDTH = 9
Cells = list[dict[int, float]]

counts = st.integers(1, 50).map(float)
values = st.floats(-100, 100, width=32).filter(lambda value: value == 0 or abs(value) > 1e-3)


def encoder(widths: tuple[int, ...] = (6, 6, 4), *, text: bool = True, seed: int = 0, **options: float) -> BagEncoder:
    torch.manual_seed(seed)
    made = BagEncoder(BagConfig(widths=widths, **options), WIDTH, text=text)  # type: ignore[arg-type]
    with torch.no_grad():
        made.bias.normal_()
        made.idf.uniform_(1, 5)
    return made


def padded(rows: Cells) -> tuple[Tensor, Tensor]:
    """Ids and values (Q, T); id 0 with value 0 pads."""
    length = max(1, *map(len, rows), 1)
    ids_QT, values_QT = torch.zeros(len(rows), length, dtype=torch.int64), torch.zeros(len(rows), length)
    for row, cells in enumerate(rows):
        for place, (id_, value) in enumerate(sorted(cells.items())):
            ids_QT[row, place], values_QT[row, place] = id_, value
    return ids_QT, values_QT


def reference(model: BagEncoder, rows: Cells) -> NDArray[np.float64]:
    """TF-IDF, unit length, matrix product, layers: on dense float64 rows."""
    weights = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    dense_QV = matrix(rows, WIDTH).toarray().astype(np.float64)
    if model.text:
        for cell in np.argwhere(dense_QV > 0):
            dense_QV[tuple(cell)] = (1 + math.log(dense_QV[tuple(cell)])) * weights["idf"][cell[1]]
    lengths_Q1 = np.linalg.norm(dense_QV, axis=1, keepdims=True)
    dense_QV = np.divide(dense_QV, lengths_Q1, where=lengths_Q1 > 0, out=np.zeros_like(dense_QV))
    embeddings_VD = weights["bag.weight"]
    if model.columns is not None:
        embeddings_VD = embeddings_VD[model.columns.numpy()]
    hidden_QD = np.maximum(dense_QV @ embeddings_VD + weights["bias"], 0)
    for layer in range(len(model.layers)):
        above_QD = np.maximum(hidden_QD @ weights[f"layers.{layer}.weight"].T + weights[f"layers.{layer}.bias"], 0)
        hidden_QD = hidden_QD + above_QD if above_QD.shape == hidden_QD.shape else above_QD
    return hidden_QD


@given(
    data=st.data(),
    text=st.booleans(),
    widths=st.sampled_from([(5,), (6, 6), (6, 4), (6, 6, 4), (3, 5, 5)]),
    hashed_width=st.sampled_from([0, 0, 4]),
)
def test_both_paths_equal_the_reference(
    data: st.DataObject, text: bool, widths: tuple[int, ...], hashed_width: int
) -> None:
    bag = st.dictionaries(st.integers(0, WIDTH - 1), counts if text else values, max_size=WIDTH)
    rows = data.draw(st.lists(bag, min_size=1, max_size=4))
    model = encoder(widths, text=text, hashed_width=hashed_width).eval()
    with torch.no_grad():
        from_bags = model(bags(rows, WIDTH)).numpy()
        from_padded = model.padded(*padded(rows)).numpy()
    expected = reference(model, rows)
    np.testing.assert_allclose(from_bags, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(from_padded, from_bags, rtol=1e-5, atol=1e-6)


def test_tf_idf_by_hand() -> None:
    # One text of four tells (1 + df = 2, 4): idf ln(5/2) + 1 and ln(5/4) + 1; counts 1 and e^1 weigh 1 and 2.
    model = encoder((2,), text=True)
    model.set_idf(matrix([{0: 3.0, 1: 1.0}, {1: 1.0}, {1: 7.0}, {}], WIDTH))
    weights = model.weigh(torch.tensor([0, 1, 8]), torch.tensor([1.0, math.e, 1.0]))
    expected = [math.log(5 / 2) + 1, 2 * (math.log(5 / 4) + 1), math.log(5) + 1]
    assert weights.tolist() == pytest.approx(expected)


def test_features_keep_their_values() -> None:
    model = encoder((2,), text=False)
    before = model.idf.clone()
    model.set_idf(matrix([{0: 3.0}], WIDTH))
    assert torch.equal(model.idf, before)
    assert model.weigh(torch.tensor([0, 1]), torch.tensor([-2.5, 0.0])).tolist() == [-2.5, 0.0]


@pytest.mark.parametrize("text", [True, False])
def test_only_the_direction_of_a_bag_matters(text: bool) -> None:
    model = encoder((4,), text=text).eval()
    small, large = ({0: 1.0, 3: 1.0}, {0: 8.0, 3: 8.0})
    one, other = model(bags([small, large], WIDTH))
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("text", [True, False])
def test_an_empty_bag_gives_what_the_biases_say(text: bool) -> None:
    model = encoder((4,), text=text).eval()
    expected = torch.relu(model.bias)
    for output in (model(bags([{}], WIDTH)), model.padded(*padded([{}])), model(bags([{0: 0.0}], WIDTH))):
        torch.testing.assert_close(output[0], expected)


def test_an_empty_bag_has_finite_gradients() -> None:
    model = encoder((4, 4))
    model(bags([{}, {1: 2.0}], WIDTH)).sum().backward()
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters() if weight.grad is not None)


def test_layers_of_equal_width_are_joined_by_a_shortcut() -> None:
    model = encoder((5, 5, 3)).eval()
    with torch.no_grad():
        for silent in (model.bias, *model.layers.parameters()):
            silent.zero_()
    # The third layer has another width and passes nothing on; the second, silenced, passes on its input.
    assert model.layers_above(torch.ones(1, 5)).tolist() == [[0.0] * 3]
    model.layers = model.layers[:1]
    assert model.layers_above(torch.ones(1, 5)).tolist() == [[1.0] * 5]


def test_dropout_acts_in_training_only() -> None:
    model = encoder((64,), dropout=0.5)
    with torch.no_grad():
        model.bias.fill_(100.0)
    batch = bags([{0: 1.0}], WIDTH)
    dropped = (model.train()(batch) == 0).float().mean().item()
    assert 0.2 < dropped < 0.8
    assert (model.eval()(batch) > 0).all()


def test_widths_must_be_derived_first() -> None:
    with pytest.raises(ValueError, match="widths must be derived"):
        BagEncoder(BagConfig(), WIDTH, text=True)


def test_output_width_is_that_of_the_last_layer() -> None:
    for widths in ((7,), (7, 3)):
        model = encoder(widths)
        assert model.output_width == widths[-1] == model(bags([{}], WIDTH)).shape[1]


def test_updates_by_rows_have_the_gradients_of_the_whole_table() -> None:
    batch = bags([{0: 1.0, 3: 2.0}, {}, {3: 1.0}], 6)
    gradients = []
    for updates in ("dense", "rows"):
        torch.manual_seed(0)
        encoder = BagEncoder(BagConfig(widths=(4,), table_updates=updates), 6, text=True)
        with check_sparse_tensor_invariants(enable=False):
            encoder(batch).square().sum().backward()  # type: ignore[no-untyped-call]
        gradient = encoder.bag.weight.grad
        assert gradient is not None
        assert gradient.is_sparse == (updates == "rows")
        gradients.append(gradient)
    dense, by_rows = gradients
    torch.testing.assert_close(by_rows.to_dense(), dense)
    assert by_rows.coalesce().indices().tolist() == [[0, 3]]


def test_option_scale() -> None:
    for scale in (0.1, 2.0):
        encoder = BagEncoder(BagConfig(widths=(300,), scale=scale), 100, text=True)
        assert encoder.bag.weight.std().item() == pytest.approx(scale, rel=0.05)


def test_colliding_features_add_up() -> None:
    """Four rows for nine features, two or three each; with no nonlinearity between, a sum is all that is known."""
    model = encoder((6,), text=False, hashed_width=4).eval()
    assert model.columns is not None
    assert sorted(np.bincount(model.columns).tolist()) == [2, 2, 2, 3]
    assert model.bag.weight.shape == (4, 6)
    left, right = np.flatnonzero(model.columns == model.columns[0])[:2].tolist()
    other = int(np.flatnonzero(model.columns != model.columns[0])[0])
    with torch.no_grad():
        swapped = [model(bags([{left: one, right: two, other: 1.0}], WIDTH)) for one, two in ((3.0, 4.0), (4.0, 3.0))]
        parted = model(bags([{left: 3.0, other: 1.0}], WIDTH))
    assert torch.equal(*swapped)
    assert not torch.equal(parted, swapped[0])


def test_networks_hash_differently_and_seeds_repeat_it() -> None:
    torch.manual_seed(3)
    config = BagConfig(widths=(2,), hashed_width=40)
    one, two = (BagEncoder(config, 1000, text=False).columns for _ in range(2))
    torch.manual_seed(3)
    again = BagEncoder(config, 1000, text=False).columns
    assert one is not None
    assert two is not None
    assert again is not None
    assert torch.equal(one, again)
    assert (one == two).float().mean() < 0.1


@pytest.mark.parametrize("hashed_width", [0, WIDTH, WIDTH + 1])
def test_inputs_that_are_not_wider_are_not_hashed(hashed_width: int) -> None:
    model = encoder(hashed_width=hashed_width)
    assert model.columns is None
    assert "columns" not in model.state_dict()
    assert model.bag.weight.shape[0] == WIDTH
