"""A journal of live labels goes into an export: as rows, vectors, records and a bitmap, and in nobody's way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_export import leading
from model_export.changes import fold
from model_export.cli import main
from model_export.diff import compare_bundles
from model_export.errors import ExportError, UsageError
from model_export.exporters.unidec import UnidecExporter
from model_export.label_index import IndexChoice
from model_export.verify import query_of, verify_bundle
from model_export.writer import Built, Options, build
from service.bundle import Bundle, layout, open_bundle, write_labels
from service.bundle.manifest import ChangesSection, Precision
from service.bundle.reader import read_manifest
from service.bundle.searching import UnidecSection
from service.engine import Engine
from service.filters.allowed import Allowed, bits_of
from service.filters.search import Wanted
from service.live.changes import LabelChange
from service.live.journal import Journal
from tests.artifacts import Workshop
from tests.bundles import resign, write_manifest
from tests.changes import change, make
from training import metrics
from training.artifact import Artifact, read_artifact
from training.data.batches import Bags
from training.tokens import as_encoded, label_limit, read_words

NEW = "quark-viewer shows the quarks of a proton while they swim"
Builder = Callable[..., tuple[Built, Bundle]]


def write_journal(file: Path, *changes: LabelChange) -> Path:
    journal = Journal(file, "model")
    for one in changes:
        journal.append(one)
    journal.close()
    return file


def sample_texts(artifact: Artifact) -> list[str]:
    return [sample for sample in artifact.samples if isinstance(sample, str)]


def labels_for(artifact: Artifact) -> dict[str, str]:
    """New labels: one of unheard-of words, one that a sample asks for, one with the text of another label."""
    assert artifact.label_texts is not None
    return {'new "one"': NEW, "né": sample_texts(artifact)[0], "twin": artifact.label_texts[7]}


@pytest.fixture(scope="module")
def built(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """Bundles with new labels and three disabled ones, two of the artifact's and the last, each written once."""
    folder, made = tmp_path_factory.mktemp("changes"), dict[tuple[object, ...], tuple[Built, Bundle]]()

    def bundle(kind: str, precision: Precision = "fp32", index: IndexChoice = "auto") -> tuple[Built, Bundle]:
        if (kind, precision, index) not in made:
            artifact, place = read_artifact(workshop.artifact(kind)), folder / str(len(made))
            one = change(labels_for(artifact), disable=[artifact.label_ids[3], artifact.label_ids[0], "twin"])
            journal = write_journal(folder / f"{len(made)}.jsonl", one)
            options = Options(precision=precision, index=index, journal=journal)
            made[kind, precision, index] = build(artifact, place, options), open_bundle(place)
        return made[kind, precision, index]

    return bundle


IDS = st.text("abc", min_size=1, max_size=2)
STEPS = st.tuples(IDS, st.sampled_from(["add", "disable", "enable", "remove"]))


@settings(max_examples=60)
@given(st.lists(IDS, min_size=1, max_size=8, unique=True), st.lists(STEPS, max_size=30))
def test_a_journal_is_folded_as_one_would_by_hand(ids: list[str], steps: list[tuple[str, str]]) -> None:
    added: dict[str, str] = {}
    disabled: set[str] = set()
    changes = []
    for number, (id_, step) in enumerate(steps):
        if step == "add":
            changes.append(change({id_: added.setdefault(id_, f"text {number}")}))
        elif step == "disable":
            changes.append(LabelChange(disable=(id_,)))
            disabled.add(id_)
        elif step == "enable":
            changes.append(LabelChange(enable=(id_,)))
            disabled.discard(id_)
        elif id_ in added:
            changes.append(LabelChange(remove=(id_,)))
            del added[id_]
            disabled.discard(id_)
    behind = [id_ for id_ in added if id_ not in ids]
    off = [row for row, id_ in enumerate([*ids, *behind]) if id_ in disabled]
    with TemporaryDirectory() as folder:
        journal = write_journal(Path(folder) / "labels.jsonl", LabelChange(disable=("never there",)), *changes)
        if len(off) == len(ids) + len(behind):
            with pytest.raises(
                UsageError, match=f"expected a label that is not disabled, found all {len(off)} disabled"
            ):
                fold(journal, ids)
            return
        folded = fold(journal, ids)
    assert list(folded.added.items()) == [(id_, added[id_]) for id_ in behind]
    assert folded.disabled == off
    assert (folded.known, folded.unknown) == (len(added) - len(behind), 1 + len(disabled) - len(off))
    bits_L = np.unpackbits(folded.bits_W(len(ids) + len(behind)), bitorder="little")
    assert np.flatnonzero(bits_L).tolist() == off
    if behind or off:
        assert folded.section == ChangesSection(zero_shot=len(behind), disabled=len(off))
    else:
        assert folded.section is None


BUILT = [
    ("unidec", "fp32", "auto"),
    ("depsl", "fp32", "ivf"),
    ("unidec-own", "fp32", "auto"),
    ("depsl-own-transformer", "fp32", "auto"),
    ("unidec-reranked", "int8", "hnsw"),
]


@pytest.mark.parametrize(("kind", "precision", "index"), BUILT)
def test_new_labels_are_rows_behind_the_artifacts(
    workshop: Workshop, built: Builder, kind: str, precision: Precision, index: IndexChoice
) -> None:
    artifact, (_, bundle) = read_artifact(workshop.artifact(kind)), built(kind, precision, index)
    labels, count, new = bundle.labels, len(artifact.label_ids), labels_for(artifact)
    manifest = bundle.manifest
    assert manifest.changes == ChangesSection(zero_shot=3, disabled=3)
    assert manifest.label_count == len(labels) == manifest.trained_count + 3 == count + 3
    rows = list(range(count, count + 3))
    assert [labels.id(row) for row in range(len(labels))] == [*artifact.label_ids, *new]
    assert [labels.text(row) for row in rows] == list(new.values())
    assert labels.find(orjson.dumps(list(new))).tolist() == rows
    records = [json.loads(record + b"}") for record in labels.open_records([0, *rows])]
    assert records[0] == {"id": artifact.label_ids[0], "text": labels.text(0)}
    assert records[1:] == [{"id": id_, "text": text, "zero_shot": True} for id_, text in new.items()]
    assert list(records[1]) == ["id", "text", "zero_shot"]


def scale_of(bundle: Bundle) -> float:
    """What of the encoder's cosine the score of an added label is."""
    assert isinstance(bundle.manifest.method, UnidecSection)
    assert bundle.manifest.method.reading is not None
    return bundle.manifest.method.reading.scale


def test_the_scale_is_what_the_best_labels_have_of_their_encoders_cosine(workshop: Workshop, built: Builder) -> None:
    bundle = built("unidec")[1]
    engine, samples = Engine.open(bundle, device="cpu"), read_artifact(workshop.artifact("unidec")).samples
    queries_QD = engine._encoder.vectors(engine.prepare(list(map(query_of, samples))), "query")
    labels_LD = bundle.arrays[layout.LABEL_VECTORS][: bundle.manifest.trained_count]
    half = labels_LD.shape[1] // 2
    pairs = []
    for query_D in queries_QD:
        scores_L, cosines_L = labels_LD @ query_D, 2 * labels_LD[:, :half] @ query_D[:half]
        pairs += [(cosines_L[row], scores_L[row]) for row in np.argsort(-scores_L)[:100]]
    cosines, scores = np.array(pairs).T
    (slope,), *_ = np.linalg.lstsq(cosines[:, None], scores)
    assert scale_of(bundle) == pytest.approx(max(0.5, slope), abs=0.006)


@pytest.mark.parametrize(("kind", "precision", "index"), [case for case in BUILT if "own" not in case[0]])
def test_a_new_label_is_found_by_its_text(built: Builder, kind: str, precision: Precision, index: IndexChoice) -> None:
    """Queries and labels pass one projection: nothing is nearer to a text than itself, but what both heads agree on."""
    engine = Engine.open(built(kind, precision, index)[1], device="cpu")
    (best,) = engine.answer_alone(NEW, 1)
    assert best.label == 'new "one"'
    assert 0 < best.score <= 1


@pytest.mark.parametrize(
    ("kind", "precision", "index"), [case for case in BUILT if case[1] == "fp32" and "reranked" not in case[0]]
)
def test_a_new_labels_score_is_the_encoders_cosine_to_scale(
    workshop: Workshop, built: Builder, kind: str, precision: Precision, index: IndexChoice
) -> None:
    """In the space of both heads, too, where trained labels have the mean of two cosines; there the scale is not 1."""
    exporter = UnidecExporter(read_artifact(workshop.artifact(kind)))
    model, bundle = exporter.model, built(kind, precision, index)[1]
    row = bundle.labels.find(orjson.dumps(['new "one"']))
    engine = Engine.open(bundle, device="cpu")
    assert exporter.artifact.tokenizer is not None
    config = exporter.artifact.config.run.texts
    words = as_encoded(read_words(exporter.artifact.tokenizer, [NEW], config, label_limit(config)), config)
    (label_D,) = model.encode_labels(model.encoder(Bags.from_csr(words))).detach().numpy()
    expected_Q = scale_of(bundle) * model.encode(model.encoder(exporter.samples)).detach().numpy() @ label_D
    bags = engine.prepare([query_of(sample) for sample in exporter.artifact.samples])
    wanted = Wanted(1, Allowed.of_bits(bits_of(row, bundle.manifest.label_count)))
    found = engine.run(bags, 1, dict.fromkeys(range(len(bags)), wanted), raw=True).filtered
    bound = 1e-5 if index == "auto" else 1e-2
    np.testing.assert_allclose([found[place].scores_K[0] for place in range(len(bags))], expected_Q, atol=bound)


@pytest.mark.parametrize("kind", ["unidec", "unidec-own", "depsl-own-transformer", "unidec-reranked"])
def test_an_export_answers_as_the_live_labels_did(workshop: Workshop, built: Builder, kind: str) -> None:
    """The same change of the bundle without it, made while that is open."""
    artifact = read_artifact(workshop.artifact(kind))
    live = Engine.open(open_bundle(workshop.bundle(kind)), device="cpu")
    make(live, change(labels_for(artifact), disable=[artifact.label_ids[3], artifact.label_ids[0], "twin"]))
    folded = Engine.open(built(kind)[1], device="cpu")
    for text in (NEW, *sample_texts(artifact)[:10]):
        expected, found = live.answer_alone(text, 20), folded.answer_alone(text, 20)
        assert [one.score for one in found] == pytest.approx([one.score for one in expected], abs=1e-4)
        last = found[-1].score + 1e-4  # rounding decides what comes after it
        assert {one.label for one in found if one.score > last} == {one.label for one in expected if one.score > last}


@pytest.mark.parametrize(("kind", "heads"), [("unidec", 2), ("unidec-own", 2), ("depsl-own-transformer", 1)])
def test_a_twin_has_its_siblings_encoder_vector(workshop: Workshop, built: Builder, kind: str, heads: int) -> None:
    bundle = built(kind)[1]
    vectors_LD = bundle.arrays[layout.LABEL_VECTORS]
    half, scale = vectors_LD.shape[1] // heads, scale_of(bundle)
    assert (scale == 1) is (heads == 1)
    np.testing.assert_allclose(vectors_LD[-1, :half], heads * scale * vectors_LD[7, :half], atol=1e-5)
    assert not vectors_LD[-3:, half:].any()


@pytest.mark.parametrize(("kind", "precision", "index"), BUILT)
def test_such_a_bundle_is_verified_beside_its_artifact(
    workshop: Workshop, built: Builder, kind: str, precision: Precision, index: IndexChoice
) -> None:
    made, bundle = built(kind, precision, index)
    verified = verify_bundle(bundle.path, read_artifact(workshop.artifact(kind)))
    assert verified.comparison == made.comparison
    if precision == "fp32" and index == "auto":
        assert made.comparison.equal_scores
        assert made.comparison.parity.equal_top_k == 1


def test_a_wrong_vector_of_a_new_label_is_seen(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sample asks for one of the new labels, so that the comparison reads it."""
    artifact = read_artifact(workshop.artifact("unidec"))
    journal = write_journal(tmp_path / "labels.jsonl", change(labels_for(artifact)))
    true_vectors = UnidecExporter.label_vectors
    monkeypatch.setattr(UnidecExporter, "label_vectors", lambda self: 0.99 * true_vectors(self))
    with pytest.raises(ExportError, match="unidec: expected scores within"):
        build(artifact, tmp_path / "bundle", Options(journal=journal))


def test_the_texts_that_are_compared_are_the_bundles(workshop: Workshop, built: Builder, tmp_path: Path) -> None:
    artifact, path = read_artifact(workshop.artifact("unidec")), tmp_path / "bundle"
    shutil.copytree(built("unidec")[1].path, path)
    labels = open_bundle(path).labels
    ids, texts = zip(*((labels.id(row), labels.text(row)) for row in range(len(labels))), strict=True)
    for other, sentence in (
        ([*texts[:-2], NEW, texts[-1]], "expected scores within"),
        (None, "unidec: expected the text of every label that was added, found labels without"),
    ):
        write_labels(path, ids, other, zero_shot=3)
        manifest = read_manifest(path)
        write_manifest(path, manifest.model_copy(update={"has_label_texts": other is not None}))
        resign(path)
        with pytest.raises(ExportError, match=sentence):
            verify_bundle(path, artifact)


def test_an_artifact_that_reads_no_texts_is_not_compared(workshop: Workshop, built: Builder, tmp_path: Path) -> None:
    shutil.copytree(workshop.artifact("unidec"), tmp_path / "artifact")
    config = tmp_path / "artifact" / "config.json"
    config.write_text(config.read_text().replace('"inference": "both"', '"inference": "classifier"'))
    with pytest.raises(ExportError, match="expected an artifact that reads label texts, found one that reads none"):
        verify_bundle(built("unidec")[1].path, read_artifact(tmp_path / "artifact"))


DISABLED = ["mach-features", "declare-features", "ova-features", "unidec-features", "declare", "depsl"]


@pytest.mark.parametrize("kind", DISABLED)
def test_every_method_can_disable_labels(workshop: Workshop, tmp_path: Path, kind: str) -> None:
    """Those with which golden answers began."""
    artifact, plain = read_artifact(workshop.artifact(kind)), open_bundle(workshop.bundle(kind))
    best = {answer.labels[0].id for answer in plain.manifest.golden}
    assert 1 < len(best) < len(artifact.label_ids)
    journal = write_journal(tmp_path / "labels.jsonl", LabelChange(disable=tuple(best)))
    manifest = build(artifact, tmp_path / "bundle", Options(journal=journal)).manifest
    bundle = open_bundle(tmp_path / "bundle")
    assert manifest.changes == ChangesSection(zero_shot=0, disabled=len(best))
    assert manifest.label_count == manifest.trained_count == len(artifact.label_ids)
    bits_L = np.unpackbits(bundle.arrays[layout.LABELS_DISABLED], bitorder="little")
    assert {artifact.label_ids[row] for row in np.flatnonzero(bits_L)} == best
    for old, new in zip(plain.manifest.golden, manifest.golden, strict=True):
        assert best.isdisjoint({label.id for label in new.labels})
        assert len(new.labels) == min(5, len(artifact.label_ids) - len(best))
        kept = [label.id for label in old.labels if label.id not in best]
        assert [label.id for label in new.labels][: len(kept)] == kept
    verified = verify_bundle(tmp_path / "bundle", artifact)
    assert verified.comparison is not None
    assert verified.comparison.parity == plain.manifest.parity
    assert set(manifest.files) - set(plain.manifest.files) == {layout.LABELS_DISABLED}
    assert manifest.version != plain.manifest.version


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("mach-features", "MACH finds labels by buckets that are learned together; train it with them"),
        ("declare-features", "DECLARE finds labels by the training rows that have them; train it with them"),
        ("ova-features", "each label has a classifier that is learned; train it with them"),
        ("unidec-features", "its classifier alone is served, which has learned a vector for each label; train it"),
    ],
)
def test_who_reads_no_texts_takes_no_new_labels(workshop: Workshop, tmp_path: Path, kind: str, reason: str) -> None:
    artifact = read_artifact(workshop.artifact(kind))
    known = artifact.label_ids[1]
    journal = write_journal(tmp_path / "labels.jsonl", change({known: "there already", "x": "new", "y": "newer"}))
    with pytest.raises(UsageError, match=f"found 2 others that were added, and {reason}"):
        build(artifact, tmp_path / "bundle", Options(journal=journal))
    assert not (tmp_path / "bundle").exists()
    journal = write_journal(tmp_path / "other.jsonl", change({known: "there already"}))
    assert build(artifact, tmp_path / "bundle", Options(journal=journal)).changes.known == 1


def test_the_same_changes_give_the_same_version(workshop: Workshop, tmp_path: Path) -> None:
    """However they were written down, and another one where anything else was disabled or added."""
    artifact = read_artifact(workshop.artifact("depsl"))
    first, second, third = artifact.label_ids[:3]
    steps = [change({"x": NEW}, disable=[second]), LabelChange(disable=(third,)), change({"y": "new"}, disable=[first])]
    journals = [
        write_journal(tmp_path / "0", *steps, LabelChange(enable=(third,), remove=("y",))),
        write_journal(tmp_path / "1", change({"x": NEW}, disable=[first, second])),
        write_journal(tmp_path / "2", change({"x": NEW}, disable=[first])),
        write_journal(tmp_path / "3", change({"x": f"{NEW} again"}, disable=[first, second])),
        write_journal(tmp_path / "4", LabelChange(enable=(third,))),
    ]
    made = [build(artifact, tmp_path / "bundle", Options(journal=journal)).manifest for journal in journals]
    assert made[0].files == made[1].files
    assert made[0].version == made[1].version
    plain = open_bundle(workshop.bundle("depsl")).manifest
    assert len({manifest.version for manifest in (*made, plain)}) == 4
    assert made[4].changes is None
    assert made[4].version == plain.version


def test_new_labels_have_groups_and_propensities(workshop: Workshop, tmp_path: Path) -> None:
    artifact = read_artifact(workshop.artifact("depsl"))
    journal = write_journal(tmp_path / "labels.jsonl", change({"x": NEW, "y": "another new one"}))
    groups = tmp_path / "groups.csv"
    groups.write_text(f"id,group\n{artifact.label_ids[2]},de\ny,de\nx,at\n", encoding="utf-8")
    options = Options(journal=journal, groups=groups, propensity_weight=1.0)
    build(artifact, tmp_path / "bundle", options)
    bundle = open_bundle(tmp_path / "bundle")
    count, config = len(artifact.label_ids), artifact.config
    assert bundle.manifest.groups == {"at": 1, "de": 2}
    bits_GL = np.unpackbits(bundle.arrays[layout.LABEL_GROUPS], axis=1, bitorder="little")
    assert [np.flatnonzero(bits_L).tolist() for bits_L in bits_GL] == [[count], [2, count + 1]]
    counts_L, constants = np.append(artifact.label_counts, [0, 0]), (config.card.propensity_a, config.card.propensity_b)
    expected_L = metrics.inverse_propensities(counts_L, config.counted_rows, *constants)
    np.testing.assert_allclose(bundle.arrays[layout.INVERSE_PROPENSITIES], expected_L, rtol=1e-6)
    assert verify_bundle(tmp_path / "bundle", artifact).comparison is not None


def test_new_labels_stand_behind_leading_coordinates_too(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"LEAST_NUMBERS": 1, "STEP": 2, "WORTH": 9.0}.items():
        monkeypatch.setattr(leading, name, value)
    artifact = read_artifact(workshop.artifact("unidec"))
    journal = write_journal(tmp_path / "labels.jsonl", change(labels_for(artifact)))
    made = build(artifact, tmp_path / "bundle", Options(journal=journal))
    assert isinstance(made.manifest.method, UnidecSection)
    assert made.manifest.method.index.leading is not None
    assert made.comparison.parity.equal_top_k == 1
    engine = Engine.open(open_bundle(tmp_path / "bundle"), device="cpu")
    assert [engine.answer_alone(NEW, 1)[0].label] == ['new "one"']


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return code, err


HEAD = '{"journal":1,"model":"m"}\n'


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "labels.jsonl: expected a journal of labels, found nothing"),
        ("{}\n", "labels.jsonl:1: expected the head of a journal of labels, found: model: Field required"),
        (HEAD + '{"disable":"a"}\n', "labels.jsonl:2: expected a change of labels, found: disable: "),
        (HEAD + '{"at":"","remove":["a"]}\n', 'expected a label that was added while it is served, found "a"'),
    ],
)
def test_a_wrong_journal_ends_the_command_with_2(
    workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, sentence: str
) -> None:
    journal = tmp_path / "labels.jsonl"
    if content is not None:
        journal.write_text(content)
    build = ["build", workshop.artifact("mach-features"), "--out", tmp_path / "bundle", "--journal"]
    code, said = refused(capsys, *build, journal)
    assert code == 2
    assert said.startswith(f"xmc-export: --journal {journal}")
    assert sentence in said
    code, said = refused(capsys, *build, tmp_path)
    assert code == 2
    assert "expected a readable journal, found: " in said
    assert not (tmp_path / "bundle").exists()


def test_commands_say_what_changed(workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artifact, out = workshop.artifact("depsl"), tmp_path / "bundle"
    ids = read_artifact(artifact).label_ids
    one = change({ids[0]: "known", "x": NEW, "y": "new", ids[1]: "known"}, disable=[ids[5], "gone", "y", ids[6]])
    journal = write_journal(tmp_path / "labels.jsonl", one)
    assert main(["build", str(artifact), "--out", str(out), "--journal", str(journal)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert f"  labels     {len(ids) + 2:,}" in printed
    assert "  changes    2 added, 3 disabled" in printed
    assert "  left out   2 added, which the artifact has" in printed
    assert "  left out   1 disabled, which there are not" in printed
    assert main(["verify", str(out), "--artifact", str(artifact)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert "  changes    2 added, 3 disabled" in printed
    assert not any(line.startswith("  left out ") for line in printed)
    plain = workshop.bundle("depsl")
    fields = compare_bundles(plain, out).fields
    assert {"changes.zero_shot: none -> 2", "changes.disabled: none -> 3"} <= set(fields)
    assert compare_bundles(out, out).agreement == 1


def test_a_journal_that_comes_to_nothing_is_said_to(
    workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = write_journal(tmp_path / "labels.jsonl", LabelChange(disable=("gone",)))
    build = ["build", str(workshop.artifact("mach-features")), "--out", str(tmp_path / "bundle")]
    assert main([*build, "--journal", str(journal)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert "  changes    none that the artifact does not have already" in printed
    assert "  left out   1 disabled, which there are not" in printed
    assert main(build) == 0
    assert "changes" not in capsys.readouterr().out
