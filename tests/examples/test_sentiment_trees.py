import dataclasses
import json
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path

import batches
import drawing
import encoding
import keras
import learner
import numpy as np
import pytest
import scores
import tensorflow as tf
import training
import treebank
import whole_files
import word_vectors

PROGRAM = Path(__file__).parents[2] / "examples" / "sentiment_trees"
OWN = PROGRAM / "sentences"
GOOD = "(3 (2 The) (3 (3 good) (2 ones)))"
BAD = "(1 (2 the) (0 (0 worst) (2 <ones>)))"
SMALL = learner.Settings(embedded=8, hidden=6, batch=4, dropout=0.0, decay=0.0)
# Sums of a few float32 numbers in another order.
CLOSE = 1e-5


def own() -> treebank.Treebank:
    return treebank.read_treebank(OWN)


def folder_of(path: Path, **parts: str) -> Path:
    for name in treebank.PARTS:
        (path / f"{name}.txt").write_text(parts.get(name, f"{GOOD}\n{BAD}\n"), encoding="utf-8")
    return path


def rows(sentences, task=batches.FINE):
    return batches.rows_of(sentences, treebank.vocabulary(sentences), task)


def test_a_word_and_its_label_are_one_node():
    sentence = treebank.sentence(GOOD)
    assert sentence.words == ("The", "good", "ones")
    assert sentence.parents == (-1, 0, 0, 2, 2)
    assert sentence.labels == (3, 2, 3, 3, 2)
    assert treebank.sentence("(2 Yes)").parents == (-1,)
    assert treebank.sentence("(2 -LRB-)").words == ("(",)


def test_empty_lines_are_passed_over_and_words_may_hold_spaces(tmp_path):
    folder = folder_of(tmp_path, dev=f"\n(2 (2 8\xa01\\/2) (2 x))\n\n{GOOD}")
    bank = treebank.read_treebank(folder)
    assert [sentence.words[0] for sentence in bank.dev] == ["8_1\\/2", "The"]


def test_a_limit_draws_sentences_from_all_of_a_file_by_the_seed_in_their_order(tmp_path):
    folder = folder_of(tmp_path, dev="\n".join(f"(2 w{number})" for number in range(100)))
    drawn = [
        [int(s.words[0][1:]) for s in treebank.read_treebank(folder, 20, seed).dev]
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0] == sorted(set(drawn[0]))
    assert len(drawn[0]) == 20
    assert drawn[0][-1] > 50
    assert len(treebank.read_treebank(folder, 200).dev) == 100


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("(3 (2 a) (2 b)", "column 1: the bracket is never closed"),
        ("word", "column 1: 'word' stands outside any tree"),
        ("(3 (2 a) (7 b))", "the label '7' is not one of 0, 1, 2, 3, 4"),
        ("(3 (2 a) b)", "holds neither one word nor two bracketed phrases"),
        ("(3 (2 a) (2 b) (2 c))", "holds neither one word nor two"),
        ("(3 (2 a))", "holds neither one word nor two"),
        ("(2)", "the sentence has no word"),
        (f"{GOOD} {GOOD}", "holds 2 trees"),
    ],
)
def test_a_line_that_is_no_labelled_tree_is_named(tmp_path, line, reason):
    folder = folder_of(tmp_path, test=f"{GOOD}\n{line}\n")
    with pytest.raises(treebank.TreebankError) as raised:
        treebank.read_treebank(folder)
    assert str(raised.value).startswith(f"{folder / 'test.txt'}, line 2: ")
    assert reason in str(raised.value)
    assert "\n" not in str(raised.value)


def test_files_that_are_missing_empty_or_no_text_are_named(tmp_path):
    folder = folder_of(tmp_path, dev="\n")
    with pytest.raises(treebank.TreebankError, match=r"dev\.txt, line 1: .* no sentence"):
        treebank.read_treebank(folder)
    (folder / "dev.txt").write_bytes(GOOD.encode() + b"\n(2 \xff)")
    with pytest.raises(treebank.TreebankError, match=r"dev\.txt, line 2: not UTF-8"):
        treebank.read_treebank(folder)
    (folder / "dev.txt").unlink()
    with pytest.raises(treebank.TreebankError, match=r"dev\.txt is missing"):
        treebank.read_treebank(folder)


def test_the_sentences_of_the_example_are_varied_and_held_out():
    bank = own()
    assert sum(map(len, bank.parts.values())) == 60
    for part in bank.parts.values():
        assert {sentence.labels[0] for sentence in part} == set(range(5))
    texts = [" ".join(one.words).lower() for part in bank.parts.values() for one in part]
    assert len(set(texts)) == len(texts)


def test_words_count_in_small_letters_and_strangers_are_zero():
    sentences = [treebank.sentence(GOOD), treebank.sentence(BAD)]
    known = treebank.vocabulary(sentences)
    assert known.labels[0] == "the"
    flat = encoding.flat_inputs([treebank.sentence("(2 (2 THE) (2 moon))")], known)
    assert flat["words"].tolist() == [1, 0]
    assert flat["words.row_splits"].tolist() == [0, 2]
    assert flat["parents.row_splits"].tolist() == [0, 3]


def test_every_epoch_has_every_tree_once_in_another_order():
    data = rows(own().train)
    epochs = [
        [row for inputs, _ in data.learning(size=5, seed=1) for row in inputs["words"].to_list()],
        [row for inputs, _ in data.learning(size=5, seed=2) for row in inputs["words"].to_list()],
    ]
    assert epochs[0] != epochs[1]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(data.words.to_list())


def test_batches_keep_words_parents_and_classes_together():
    sentences = own().train
    known = treebank.vocabulary(sentences)
    by_words = {
        tuple(known[word.lower()] for word in sentence.words): sentence for sentence in sentences
    }
    for inputs, classes in rows(sentences).learning(size=5, seed=0):
        parts = (inputs["words"], inputs["parents"], classes)
        for words, parents, labels in zip(*(part.to_list() for part in parts), strict=True):
            sentence = by_words[tuple(words)]
            assert (tuple(parents), tuple(labels)) == (sentence.parents, sentence.labels)


def test_the_loss_sums_over_nodes_and_leaves_out_those_without_a_class():
    classes = tf.ragged.constant([[0, -1, 1], [1]], dtype="int32")
    values = np.random.default_rng(0).normal(size=(4, 2)).astype("float32")
    log = values - np.log(np.exp(values).sum(axis=1, keepdims=True))
    loss = learner.node_loss(classes, classes.with_values(tf.constant(values)))
    np.testing.assert_allclose(loss, [-log[0, 0] - log[2, 1], -log[3, 1]], atol=CLOSE)


def test_a_step_moves_the_words_of_the_batch_by_plain_descent_and_no_others():
    keras.utils.set_random_seed(0)
    sentences = own().train
    known = treebank.vocabulary(sentences)
    model = learner.make_learner(len(known), 5, SMALL)
    data = batches.rows_of(sentences[:1], known, batches.FINE)
    (batch,) = data.in_order(1)
    table = model.word_vectors
    before = table.numpy()
    with tf.GradientTape() as tape:
        loss = learner.node_loss(batch[1], model(batch[0], training=True))
    gradient = tf.convert_to_tensor(tape.gradient(loss, table.value)).numpy()
    model.train_step(batch)
    moved = table.numpy() - before
    np.testing.assert_allclose(moved, -SMALL.words_learning_rate * gradient, atol=CLOSE)
    used = set(data.words.values.numpy())
    assert {row for row in range(len(known)) if moved[row].any()} == used


def test_decay_alone_takes_all_weights_but_the_word_vectors_towards_zero():
    settings = dataclasses.replace(SMALL, decay=1e-2, learning_rate=1e-3)
    known = treebank.vocabulary(own().train)
    model = learner.make_learner(len(known), 5, settings)
    data = batches.rows_of(own().train[:1], known, batches.FINE)
    unknown = data.classes.with_values(tf.fill(tf.shape(data.classes.values), batches.LEFT_OUT))
    before = [weight.numpy() for weight in model.trainable_weights]
    model.fit(dataclasses.replace(data, classes=unknown).in_order(1), shuffle=False, verbose=0)
    for weight, old in zip(model.trainable_weights, before, strict=True):
        slope = (0 if weight is model.word_vectors else settings.decay) * old
        step = settings.learning_rate * slope / np.sqrt(slope**2 + 1e-10)
        np.testing.assert_allclose(weight, old - step, atol=CLOSE)


QUICK = learner.Settings(
    embedded=16, hidden=12, batch=8, dropout=0.0, learning_rate=0.1, words_learning_rate=0.5,
    epochs=20, patience=20,
)  # fmt: skip


def test_the_model_learns_the_sentences_it_is_shown():
    keras.utils.set_random_seed(0)
    data = rows(own().train)
    model = learner.make_learner(len(treebank.vocabulary(own().train)), 5, QUICK)
    trained = training.train(model, data, data, QUICK, "own", training.Console(quiet=True))
    assert max(trained.dev) > 0.9
    assert trained.loss[-1] < trained.loss[0] / 4


def test_training_ends_early_and_goes_back_to_the_best_epoch():
    keras.utils.set_random_seed(0)
    data = rows(own().train)
    settings = dataclasses.replace(QUICK, patience=2)
    model = learner.make_learner(len(treebank.vocabulary(own().train)), 5, settings)
    # What it says untrained is forgotten more with every epoch.
    said = tf.argmax(model(data.inputs).values, axis=-1, output_type=tf.int32)
    dev = dataclasses.replace(data, classes=data.classes.with_values(said))
    trained = training.train(model, data, dev, settings, "own", training.Console(quiet=True))
    assert len(trained.dev) == trained.best_epoch + settings.patience < settings.epochs
    assert trained.dev[-1] < max(trained.dev) == trained.dev[trained.best_epoch - 1]
    again = model.evaluate(dev.in_order(64), verbose=0, return_dict=True)["root_accuracy"]
    assert again == pytest.approx(max(trained.dev), abs=CLOSE)


def judged_as(sentences, shares):
    row_splits = np.cumsum([0, *(len(sentence.labels) for sentence in sentences)])
    return scores.Judged(sentences, np.array(shares), row_splits)


def test_roots_and_nodes_are_scored_in_five_classes_and_in_two():
    sentences = [treebank.sentence("(3 (2 a) (4 b))"), treebank.sentence("(1 c)")]
    judged = judged_as(
        sentences,
        [
            [0.3, 0.0, 0.2, 0.4, 0.1],  # right in both
            [0.9, 0.0, 0.1, 0.0, 0.0],  # wrong, and neutral: not counted in two classes
            [0.0, 0.4, 0.0, 0.3, 0.3],  # wrong in five, right in two: 0.6 against 0.4
            [0.0, 0.4, 0.3, 0.3, 0.0],  # right in both: the neutral share is for neither side
        ],
    )
    assert scores.score(judged, batches.FINE) == scores.Score(1.0, 0.5, 2)
    assert scores.score(judged, batches.BINARY) == scores.Score(1.0, 1.0, 2)
    assert judged.of(1).shape == (1, 5)


def test_a_model_of_two_classes_is_scored_by_them():
    sentences = [treebank.sentence("(3 (1 a) (4 b))"), treebank.sentence("(2 c)")]
    judged = judged_as(sentences, [[0.4, 0.6], [0.1, 0.9], [0.2, 0.8], [0.7, 0.3]])
    score = scores.score(judged, batches.BINARY)
    assert (score.root, score.sentences) == (1.0, 1)
    assert score.nodes == pytest.approx(2 / 3)


def test_the_majority_is_that_of_the_training_sentences():
    train = [treebank.sentence("(3 a)")] * 2 + [treebank.sentence("(0 a)")]
    test = [treebank.sentence("(3 a)"), treebank.sentence("(1 a)"), treebank.sentence("(2 a)")]
    assert scores.majority(train, test, batches.FINE).root == pytest.approx(1 / 3)
    assert scores.majority(train, test, batches.BINARY).root == pytest.approx(1 / 2)


def test_sentences_without_a_class_are_left_out_of_a_task():
    assert batches.BINARY.takes(treebank.sentence("(3 a)"))
    assert not batches.BINARY.takes(treebank.sentence("(2 a)"))
    assert batches.FINE.takes(treebank.sentence("(2 a)"))


def test_only_the_wanted_word_vectors_are_read(tmp_path):
    file = tmp_path / "vectors.txt"
    file.write_text("good 1 2\nother x y\n. 5 6\n. . 3 4\n", encoding="utf-8")
    found = word_vectors.read_vectors(file, {"good", ".", "missing"}, 2)
    assert {word: vector.tolist() for word, vector in found.items()} == {
        "good": [1, 2],
        ".": [5, 6],
    }
    known = treebank.trees.Vocabulary(["missing", "good"])
    table = word_vectors.start_vectors(known, {"good": found["good"]}, 2, seed=0)
    assert table[2].tolist() == [1, 2]
    assert 0 < np.abs(table[1]).max() <= word_vectors.SPREAD


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("good 1 2 3\n", r"line 1: 3 numbers behind the word, expected 2"),
        ("x 1 2\ngood 1\n", r"line 2: 1 numbers, expected 2"),
        ("x 1 2\ngood 1 what\n", r"line 2: could not convert string to float"),
        ("x 1 2\n", r"a vector for none of the 1 words"),
    ],
)
def test_a_file_of_other_word_vectors_is_refused_with_the_line(tmp_path, text, reason):
    file = tmp_path / "vectors.txt"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(word_vectors.WordVectorsError, match=reason):
        word_vectors.read_vectors(file, {"good"}, 2)
    with pytest.raises(word_vectors.WordVectorsError, match=r"missing\.txt cannot be read"):
        word_vectors.read_vectors(tmp_path / "missing.txt", {"good"}, 2)


def test_an_interrupted_file_is_as_it_was(tmp_path):
    path = tmp_path / "folder" / "summary.json"
    with whole_files.whole_file(path) as unfinished:
        unfinished.write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_files.whole_file(path) as unfinished:  # noqa: PT012
        unfinished.write_text("ne")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_words_stand_side_by_side_below_their_phrases():
    sentence = max(own().train, key=lambda one: len(one.words))
    places, width, height = drawing.layout(sentence)
    leaves = [i for i, below in enumerate(sentence.children) if not below]
    for (left, first), (right, second) in pairwise(zip(leaves, sentence.words, strict=True)):
        room = places[right].x - places[left].x
        assert room >= drawing.LETTER * (len(first) + len(second)) / 2
    bottom = max(place.y for place in places)
    assert all(places[leaf].y == bottom for leaf in leaves)
    for node, parent in enumerate(sentence.parents):
        assert parent < 0 or places[parent].y <= places[node].y - drawing.LEVEL
    assert max(place.x for place in places) < width
    assert bottom < height


def test_a_node_shows_how_it_is_labelled_and_how_it_is_judged():
    sentence = treebank.sentence(BAD)
    shares = np.full((5, 5), 0.05)
    shares[range(5), [4, *sentence.labels[1:]]] = 0.8
    figure = ElementTree.fromstring(drawing.parse_svg(sentence, shares))
    tag = "{http://www.w3.org/2000/svg}"
    halves = [path.get("fill") for path in figure.iter(f"{tag}path")]
    assert halves == [drawing.COLOURS[1], drawing.COLOURS[4]]
    discs = [disc.get("fill") for disc in figure.iter(f"{tag}circle") if disc.get("fill")]
    assert discs == [drawing.COLOURS[label] for label in sentence.labels[1:]]
    texts = [text.text for text in figure.iter(f"{tag}text")]
    assert texts[0] == "judged very positive (80%), labelled negative"
    assert texts[-3:] == ["the", "worst", "<ones>"]
    told = next(figure.iter(f"{tag}title")).text
    assert told.startswith("the worst <ones>\nlabelled negative\njudged very negative 5%")


def test_the_page_holds_every_parse_and_the_legend():
    parses = [(treebank.sentence(text), np.full((5, 5), 0.2)) for text in (GOOD, BAD)]
    text = drawing.page(parses, "A & B", "note")
    assert text.count("<figure>") == 2
    assert text.count("<svg") == 3
    assert "<h1>A &amp; B</h1>" in text
    assert all(f">{name}<" in text for name in treebank.NAMES)


def run(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(PROGRAM / "main.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_a_malformed_file_is_one_line_of_error(tmp_path):
    folder = folder_of(tmp_path, dev=f"{GOOD}\n(3 (2 a)\n")
    done = run("--data", folder, "--output", tmp_path / "out")
    assert done.returncode == 1
    *_, last = done.stdout.splitlines()
    assert last.startswith(f"Failed: {folder / 'dev.txt'}, line 2: ")
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.slow
def test_without_files_the_example_shows_the_mechanics_from_end_to_end(tmp_path):
    done = run("--output", tmp_path, "--binary-apart", "--hidden", 24, "--embedded", 32)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mechanics only" in done.stdout
    facts = json.loads((tmp_path / "summary.json").read_text())
    assert set(facts["models"]) == {"fine-grained", "binary"}
    for name in facts["models"]:
        assert facts["export"][name]["proof"]["ok"]
        alone = facts["onnxruntime_alone"][name]
        assert alone["sentences"] == 9
        assert alone["frameworks_loaded"] == []
        assert alone["largest_difference"] < CLOSE
        assert alone["same_classes"]
    assert "<svg" in (tmp_path / "parses.html").read_text()
    assert not list(tmp_path.rglob("*unfinished*"))


@pytest.mark.slow
def test_ctrl_c_ends_it_with_no_part_of_a_file(tmp_path):
    command = [sys.executable, PROGRAM / "main.py", "--epochs", "9999", "--patience", "9999"]
    command += ["--hidden", "8", "--embedded", "8", "--output", tmp_path / "out"]
    with subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What a shell starts in the background, this test perhaps, ignores Ctrl+C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        for line in process.stdout:
            if "epoch 3" in line:
                break
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, output + errors
    assert "Interrupted" in output
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
