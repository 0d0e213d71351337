"""Streams: any number of texts, each with the result that it has in a list, in little memory."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
import pytest
import torch

from modernbert.errors import InputError, TaskError, TooLongError
from modernbert.inference.engine import Engine, Reading, SequenceIds, Task, budget_for
from tests.inference.test_windows import SOON_S, wait_until_read

# fp32 sums in another order, on numbers of size 1.
MATES = 1e-5
WORDS = ("Paris", "bread", "the", "capital", "store", "walked", "of", "lawyer")
TEXTS = [" ".join(WORDS[(i * 3 + j) % 8] for j in range(i % 11)) for i in range(300)]
LONG = "He walked to the store and bought some bread for Anna. " * 6


@pytest.mark.parametrize(
    ("head", "ask", "texts"),
    [
        ("embed", "embed", TEXTS),
        ("token_embed", "embed_tokens", TEXTS),
        ("embed", "hidden_states", TEXTS),
        ("classify", "classify", TEXTS),
        ("classify", "classify", [(text, text[::-1]) for text in TEXTS]),
        ("tag", "tag", [text.split() if i % 2 else text for i, text in enumerate(TEXTS)]),
        ("mlm", "fill_masks", [f"{text} [MASK]" for text in TEXTS[:80]]),
    ],
    ids=["embed", "embed_tokens", "hidden_states", "classify", "pairs", "tag", "fill_masks"],
)
def test_a_stream_gives_each_item_with_the_result_that_a_list_has(model_of, head, ask, texts):
    model = model_of(head)
    items, found = zip(*getattr(model.stream(iter(texts)), ask)(), strict=True)
    assert list(items) == texts
    for ours, theirs in zip(found, getattr(model, ask)(texts), strict=True):
        assert_alike(ours, theirs)


def assert_alike(ours, theirs):
    if isinstance(ours, np.ndarray | torch.Tensor):
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype
        assert np.abs(np.asarray(ours) - np.asarray(theirs)).max(initial=0.0) <= MATES
    elif isinstance(ours, list):
        assert [(each.text, getattr(each, "label", None)) for each in ours] == [
            (each.text, getattr(each, "label", None)) for each in theirs
        ]
        assert [each.score for each in ours] == pytest.approx([each.score for each in theirs], abs=MATES)
    else:
        assert ours.scores == pytest.approx(theirs.scores, abs=MATES)


def test_a_list_of_many_windows_has_the_results_of_single_texts(model_of):
    model = model_of("embed")
    together = model.embed(TEXTS)
    for place in (0, 63, 64, 65, 191, 299):
        assert np.abs(together[place] - model.embed([TEXTS[place]])[0]).max() <= MATES


def test_the_text_of_an_item_is_taken_out_of_it(model_of):
    rows = [{"id": i, "body": text} for i, text in enumerate(TEXTS[:70])]
    found = list(model_of("embed").stream(rows, text=lambda row: row["body"]).embed())
    assert [row["id"] for row, _ in found] == list(range(70))
    assert np.abs(found[69][1] - model_of("embed").embed([TEXTS[69]])[0]).max() <= MATES


def test_an_endless_stream_takes_as_much_memory_as_a_short_one(model_of):
    model = model_of("embed")
    model.embed(TEXTS)

    def peak(num_texts):
        stream = model.stream(f"bread {i}" for i in itertools.count()).embed()
        tracemalloc.start()
        for _ in islice(stream, num_texts):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        stream.close()
        return most

    short, long = peak(3000), peak(9000)  # three windows of the largest are in memory from 2,000 texts on
    assert long <= short * 1.1


def test_results_come_while_the_source_waits(model_of):
    goes_on = threading.Event()

    def lines():
        yield from ["Paris", "bread"]
        assert goes_on.wait(SOON_S)
        yield "the"

    stream = model_of("embed").stream(lines()).embed()
    assert [text for text, _ in islice(stream, 2)] == ["Paris", "bread"]
    goes_on.set()
    assert [text for text, _ in stream] == ["the"]


def test_an_iterator_that_raises_gives_what_was_done_first(model_of):
    def lines():
        yield from TEXTS[:150]
        raise LookupError("the disk is gone")

    done = []
    with pytest.raises(LookupError, match="the disk is gone"):
        done.extend(model_of("classify").stream(lines()).classify())
    assert [text for text, _ in done] == TEXTS[:150]


def test_a_text_that_has_no_result_comes_behind_all_before_it(model_of):
    texts = [*TEXTS[:150], LONG, *TEXTS[:20]]
    done = []
    with pytest.raises(TooLongError, match="text 150 by") as caught:
        done.extend(model_of("embed").stream(texts).embed(overflow="error"))
    assert [text for text, _ in done] == TEXTS[:150]
    assert caught.value.__context__ is None
    wait_until_read()


def test_an_item_that_is_no_text_is_named_behind_all_before_it(model_of):
    done = []
    with pytest.raises(InputError, match=r"text 90 is of type dict, not str; stream\(items, text=\.\.\.\)"):
        done.extend(model_of("embed").stream([*TEXTS[:90], {}]).embed())
    assert len(done) == 90
    with pytest.raises(InputError, match="item 1 is a pair, unlike those before it"):
        list(model_of("classify").stream(["a", ("b", "c")]).classify())
    with pytest.raises(InputError, match="text 0: word 1 is of type int"):
        list(model_of("tag").stream([["a", 1]]).tag())


def test_a_result_that_cannot_be_made_comes_behind_all_before_it():
    computed = []

    def read(window):
        def finish(rows):
            if "bad" in window.texts:
                raise InputError(f"text {window.first + window.texts.index('bad')}")
            return [text.upper() for text in window.texts]

        sequences = [SequenceIds(token_ids=[1], token_types=[0]) for _ in window.texts]
        return Reading(sequences=sequences, finish=finish)

    def forward(batch):
        computed.append(batch.num_sequences)
        return [None] * batch.num_sequences

    texts = ["a"] * 100 + ["bad"] + ["b"] * 100
    engine = Engine(device=torch.device("cpu"))
    stream = engine.stream(((t, t) for t in texts), Task(label="test", read=read, forward=forward))
    done = []
    with pytest.raises(InputError, match="text 100"):
        done.extend(stream)
    assert done == [("a", "A")] * 100
    assert sum(computed) <= 64 + 3 * 128  # the window again in halves, not text by text


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda stream: stream.embed(dimensions=0), InputError, "between 1 and"),
        (lambda stream: stream.embed(prompt="q"), InputError, "no prompt 'q'"),
        (lambda stream: stream.embed(overflow="cut"), InputError, "overflow is one of"),
        (lambda stream: stream.embed(max_length=2), InputError, "leaves no room"),
        (lambda stream: stream.hidden_states(overflow="windows"), InputError, "one result a token"),
        (lambda stream: stream.classify(), TaskError, "cannot classify"),
    ],
)
def test_wrong_arguments_are_errors_before_any_text_is_taken(model_of, ask, error, message):
    def lines():
        pytest.fail("a text was taken")
        yield ""

    with pytest.raises(error, match=message):
        ask(model_of("embed").stream(lines()))


@pytest.mark.parametrize("items", ["one text", b"bytes", {"a": 1}, 7, None])
def test_what_is_no_iterable_of_texts_is_refused(model_of, items):
    with pytest.raises(InputError, match=f"not one {type(items).__name__}"):
        model_of("embed").stream(items)


def test_no_texts_give_no_results(model_of):
    assert list(model_of("embed").stream([]).embed()) == []


def test_cuts_of_a_list_are_told_once_and_of_a_stream_at_once_and_at_the_end(model_of):
    model, texts = model_of("embed"), [LONG] * 300
    with pytest.warns(UserWarning, match="^300 of 300 texts were cut") as caught:
        model.embed(texts, overflow="truncate")
    assert len(caught) == 1
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stream = model.stream(texts).embed(overflow="truncate")
        next(stream)
        num_first = len(caught)
        list(stream)
    assert num_first <= 1  # told when the results of the window are taken
    assert len(caught) == 2
    assert sum(each.message.num_cut for each in caught) == 300
    assert all(each.filename == __file__ for each in caught)


def test_what_the_caller_does_between_results_has_its_gradients(model_of):
    stream = model_of("embed").stream(TEXTS).embed()
    assert all(torch.is_grad_enabled() for _ in islice(stream, 100))
    stream.close()


def test_who_stops_early_frees_the_thread(model_of):
    for _ in model_of("embed").stream(itertools.cycle(TEXTS)).embed():
        break
    wait_until_read()


def test_threads_may_share_a_model_each_with_a_stream_of_its_own(model_of):
    model = model_of("embed")
    expected = model.embed(TEXTS)

    def ask(kind):
        if kind % 2:
            return model.embed(TEXTS)
        return np.stack([vector for _, vector in model.stream(iter(TEXTS)).embed()])

    with ThreadPoolExecutor(6) as pool:
        for found in pool.map(ask, range(18)):
            assert np.abs(found - expected).max() <= MATES
    wait_until_read()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_process_has_streams_of_its_own(model_of):
    model = model_of("embed")
    expected = model.embed(TEXTS[:70])
    stream = model.stream(itertools.cycle(TEXTS)).embed()
    next(stream)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            model_again = np.stack([vector for _, vector in model.stream(TEXTS[:70]).embed()])
            assert np.abs(model_again - expected).max() <= MATES
            code = 2
            list(stream)
        except InputError as error:
            code = 0 if "was forked" in str(error) else 3
        finally:
            stream.close()
            os._exit(code)
    assert wait_for(child) == 0
    assert len(list(islice(stream, 100))) == 100  # the parent's goes on
    stream.close()


def wait_for(child):
    end = time.monotonic() + 6 * SOON_S
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return pytest.fail("the child hangs")


INTERRUPTED = """
import itertools, signal, sys, modernbert
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs, and theirs, ignore it
model = modernbert.load(sys.argv[1], dtype="float32")
endless = itertools.chain(["a"], iter(input, "")) if sys.argv[2] == "waits" else itertools.repeat("bread")
try:
    for number, _ in enumerate(model.stream(endless).embed()):
        if number == 0:
            print("started", flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("source", ["runs", "waits"])
def test_ctrl_c_ends_a_stream_at_once_and_quietly(folder_of, source):
    call = [sys.executable, "-c", INTERRUPTED, str(folder_of("embed")), source]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(call, **pipes, text=True) as process:
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        assert process.stdout.readline() == "interrupted\n"
        assert process.wait(6 * SOON_S) == 0
        assert time.monotonic() - started < SOON_S
        assert process.stderr.read() == ""


def test_a_pack_is_as_large_as_the_threads_need():
    assert budget_for(1) == 1024
    assert budget_for(2) == 2048
    assert budget_for(64) == 4096
