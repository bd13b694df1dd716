"""PECOS, omikuji and napkinXC behind one interface, each with the settings that it comes with.

Each is imported where it is used: a process measures one library and must not hold the others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import numpy as np
from scipy.sparse import csr_matrix

PADDING = -1


class Library(ABC):
    """One library: what it reads, fits, saves and predicts.

    Attributes:
        distribution: its name on the package index.
        settings: what is trained, in words.
    """

    distribution: ClassVar[str]
    settings: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        """Import the library.

        Args:
            folder: where the model is saved.
        """
        self.folder = folder

    @property
    def version(self) -> str:
        """Name and version."""
        return f"{self.distribution} {version(self.distribution)}"

    def take(self, train_NF: csr_matrix, labels_NL: csr_matrix) -> None:
        """Turn the training rows into what `fit` reads."""
        self.train_NF, self.labels_NL = train_NF, labels_NL

    @abstractmethod
    def fit(self) -> None:
        """Train, and save the model."""

    @abstractmethod
    def rank(self, rows_NF: csr_matrix, k: int) -> np.ndarray:
        """The best k labels of some rows, int64 (N, k), padded with -1."""

    @abstractmethod
    def use_one_thread(self) -> None:
        """From here on `ask` uses one thread."""

    @abstractmethod
    def ask(self, row_1F: csr_matrix, k: int) -> object:
        """The best k labels of one row: what is timed."""


class Pecos(Library):
    """XR-Linear: hierarchical k-means over label vectors (PIFA), a linear ranker on each level."""

    distribution = "libpecos"
    settings = "XR-Linear, defaults"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from pecos.xmc import Indexer, LabelEmbeddingFactory
        from pecos.xmc.xlinear.model import XLinearModel

        self._indexer, self._embedding, self._model = Indexer, LabelEmbeddingFactory, XLinearModel

        self.threads = -1  # all

    def fit(self) -> None:
        embeddings = self._embedding.create(self.labels_NL, self.train_NF, method="pifa")
        chain = self._indexer.gen(embeddings, indexer_type="hierarchicalkmeans")
        self._model.train(self.train_NF, self.labels_NL, C=chain).save(str(self.folder))
        self.model = self._model.load(str(self.folder), is_predict_only=True)

    def rank(self, rows_NF: csr_matrix, k: int) -> np.ndarray:
        found = self.model.predict(rows_NF, only_topk=k)
        return _ranked(
            [
                found.indices[low:high][np.argsort(-found.data[low:high], kind="stable")]
                for low, high in zip(found.indptr[:-1], found.indptr[1:], strict=True)
            ],
            k,
        )

    def use_one_thread(self) -> None:
        self.threads = 1

    def ask(self, row_1F: csr_matrix, k: int) -> object:
        return self.model.predict(row_1F, only_topk=k, threads=self.threads)


class Omikuji(Library):
    """Parabel: three balanced trees of linear classifiers."""

    distribution = "omikuji"
    settings = "Parabel, defaults"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        import omikuji

        self._model = omikuji.Model
        self.text = folder.with_name(f"{folder.name}.train.txt")

    def take(self, train_NF: csr_matrix, labels_NL: csr_matrix) -> None:
        """Write the rows as a file in XC sparse layout, which is all that it reads."""
        with self.text.open("w", encoding="ascii") as file:
            file.write(f"{train_NF.shape[0]} {train_NF.shape[1]} {labels_NL.shape[1]}\n")
            for row in range(train_NF.shape[0]):
                labels = labels_NL.indices[slice(*labels_NL.indptr[row : row + 2])]
                features = slice(*train_NF.indptr[row : row + 2])
                pairs = zip(train_NF.indices[features].tolist(), train_NF.data[features].tolist(), strict=True)
                written = "".join(f" {index}:{value:.9g}" for index, value in pairs)
                file.write(f"{','.join(map(str, labels))}{written}\n")

    def fit(self) -> None:
        self.model = self._model.train_on_data(str(self.text))
        self.folder.mkdir()
        self.model.save(str(self.folder))
        self.text.unlink()

    def rank(self, rows_NF: csr_matrix, k: int) -> np.ndarray:
        return _ranked([[label for label, _ in self._predict(rows_NF[row], k)] for row in range(rows_NF.shape[0])], k)

    def use_one_thread(self) -> None:
        self.model.init_prediction_thread_pool(1)

    def ask(self, row_1F: csr_matrix, k: int) -> object:
        return self._predict(row_1F, k)

    def _predict(self, row_1F: csr_matrix, k: int) -> list[tuple[int, float]]:
        pairs = list(zip(row_1F.indices.tolist(), row_1F.data.tolist(), strict=True))
        found: list[tuple[int, float]] = self.model.predict(pairs, top_k=k)
        return found


class NapkinXC(Library):
    """A probabilistic label tree with k-means."""

    distribution = "napkinxc"
    settings = "PLT, defaults"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from napkinxc.models import PLT

        self._plt = PLT

    def fit(self) -> None:
        rows = np.split(self.labels_NL.indices, self.labels_NL.indptr[1:-1])
        self.model = self._plt(str(self.folder))
        self.model.fit(self.train_NF, [row.tolist() for row in rows])

    def rank(self, rows_NF: csr_matrix, k: int) -> np.ndarray:
        return _ranked(self.model.predict(rows_NF, top_k=k), k)

    def use_one_thread(self) -> None:
        self.model.set_params(threads=1)

    def ask(self, row_1F: csr_matrix, k: int) -> object:
        return self.model.predict(row_1F, top_k=k)


LIBRARIES: dict[str, type[Library]] = {"pecos": Pecos, "omikuji": Omikuji, "napkinxc": NapkinXC}


def _ranked(rows: list[list[int]], k: int) -> np.ndarray:
    ranked_NK = np.full((len(rows), k), PADDING, dtype=np.int64)
    for row, labels in enumerate(rows):
        ranked_NK[row, : min(k, len(labels))] = labels[:k]
    return ranked_NK
