"""Pretrained transformers from a folder or from the Hugging Face hub: configuration, weights, tokenizer.

Nothing here reaches for the network unless a hub name was given, and no code that comes with a model is ever run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer
from torch import nn

from training.encoders.base import EncoderError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
# Of config.json: where its author kept the model, and who wrote it with what. None of it decides what is computed.
NOTES = ("_name_or_path", "architectures", "transformers_version", "dtype", "torch_dtype")


def model_folder(name: str) -> Path:
    """The folder of a model, which is downloaded to the hub's cache if it is the name of one on the hub.

    Args:
        name: a folder, or a name such as "sentence-transformers/all-MiniLM-L6-v2".

    Raises:
        EncoderError: it is neither, or the hub cannot be reached and its cache does not hold the model.
    """
    folder = Path(name)
    if not folder.is_dir():
        folder = _download(name)
    for file in (CONFIG, TOKENIZER):
        if not (folder / file).is_file():
            raise EncoderError(f"encoder.model {name}: expected {CONFIG}, {TOKENIZER} and weights, found no {file}")
    return folder


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(snapshot_download(name, allow_patterns=[CONFIG, TOKENIZER, "model*.safetensors*"]))
    except (OSError, HFValidationError, HfHubHTTPError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise EncoderError(
            f"encoder.model: expected a folder with {CONFIG}, {TOKENIZER} and weights, or the name of a model on the "
            f"Hugging Face hub, found {name!r}, which is no folder and cannot be had from the hub: {reason}"
        ) from error


def read_architecture(folder: Path) -> dict[str, Any]:
    """What `config.json` says of the model's shape: all that is needed to build it without its folder.

    Raises:
        EncoderError: the file is broken, or the model is no encoder that this program can build.
    """
    file = folder / CONFIG
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        architecture = {name: value for name, value in found.items() if name not in NOTES}
        config = _configuration(architecture)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise EncoderError(f"{file}: expected a transformer's configuration, found: {error}") from error
    if "auto_map" in architecture:
        raise EncoderError(f"{file}: expected a model that the transformers package knows, found one with its own code")
    if getattr(config, "is_encoder_decoder", False):
        raise EncoderError(f"{file}: expected an encoder, found the encoder and decoder of {config.model_type}")
    return architecture


def layer_count(architecture: dict[str, Any]) -> int:
    """Layers of the whole model."""
    return int(_configuration(architecture).num_hidden_layers)


def new_transformer(architecture: dict[str, Any], layers: int) -> PreTrainedModel:
    """An untrained transformer: its first layers, and nothing above the last of them.

    Args:
        architecture: see `read_architecture`.
        layers: how many.
    """
    return _without_pooler(_library().AutoModel.from_config(_configuration(architecture, layers), dtype=torch.float32))


def load_weights(transformer: PreTrainedModel, folder: Path) -> None:
    """Give a transformer of `new_transformer` the weights in the model's folder.

    Raises:
        EncoderError: the folder holds no weights, or not all of them.
    """
    try:
        with _quiet():
            trained, report = _library().AutoModel.from_pretrained(
                folder, config=transformer.config, dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
        trained = _without_pooler(trained)
        missing = sorted(set(report["missing_keys"]) & set(trained.state_dict()))
        transformer.load_state_dict(trained.state_dict())
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise EncoderError(f"{folder}: expected a model's weights, found: {reason}") from error
    if missing:
        raise EncoderError(f"{folder}: expected all weights of the model, found none for {', '.join(missing)}")


def read_tokenizer(folder: Path) -> Tokenizer:
    """The model's tokenizer, without truncation and padding: both are done here.

    Raises:
        EncoderError: the tokenizers library does not understand the file.
    """
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    except Exception as error:  # the library raises the base class itself
        raise EncoderError(f"{folder / TOKENIZER}: expected a tokenizer, found: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def longest_input(transformer: PreTrainedModel) -> int | None:
    """Tokens that the transformer has positions for; None where positions are relative and have no end."""
    for name, module in transformer.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # Families after RoBERTa count positions from behind that of padding.
            before = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - before
    return None


def turns_by_position(transformer: PreTrainedModel) -> bool:
    """Whether positions are told by rotating vectors, rather than by a table of them or by distances."""
    return longest_input(transformer) is None and "position_ids" in signature(transformer.forward).parameters


def _library() -> Any:
    """The transformers package, which takes seconds to load and only runs with a transformer need."""
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise EncoderError(
            f"encoder.kind transformer: expected the extra xmcserve[transformer], found {error}"
        ) from error
    return transformers


def _configuration(architecture: dict[str, Any], layers: int | None = None) -> PretrainedConfig:
    options = dict(architecture)
    config = _library().AutoConfig.for_model(options.pop("model_type"), **options)
    if layers is not None:
        config.num_hidden_layers = layers
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:layers]
    return config


def _without_pooler(transformer: PreTrainedModel) -> PreTrainedModel:
    """Some families put a trained layer above the first token; what is pooled here are the tokens below it."""
    if getattr(transformer, "pooler", None) is not None:
        transformer.pooler = None
    return transformer


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's progress bars and reports from the user; what is missing is asked for and said here."""
    logging = _library().utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
