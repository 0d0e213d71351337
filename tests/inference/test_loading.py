"""From a folder to a model and back: what it can do, where it computes, and that nothing is lost."""

import subprocess
import sys
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
import transformers
from torch import nn

import modernbert
from modernbert.encoder.config import Part
from modernbert.errors import BackendError, ConfigError, FolderError, InputError, ModernBertError, TaskError
from modernbert.heads.embed import EmbedHeadConfig
from modernbert.heads.model import ModelConfig
from modernbert.pretrained.folder import Pretrained, read_folder, write_folder
from modernbert.text.batch import PackedBatch
from tests.inference.tiny import HEADS, byte_level, tiny_modernbert, write_tiny

TOLERANCE = 1e-5
TEXTS = ["Paris is the capital of France.", "bread"]
CALLS = {
    "fill_mask": lambda model: model.fill_mask("a [MASK]"),
    "fill_masks": lambda model: model.fill_masks(["a [MASK]"]),
    "embed": lambda model: model.embed(TEXTS),
    "embed_tokens": lambda model: model.embed_tokens(TEXTS),
    "maxsim": lambda model: model.maxsim(TEXTS, TEXTS),
    "similarity": lambda model: model.similarity(TEXTS, TEXTS),
    "classify": lambda model: model.classify(TEXTS),
    "rerank": lambda model: model.rerank("a", TEXTS),
    "tag": lambda model: model.tag(TEXTS),
    "answer": lambda model: model.answer("Who?", "Anna"),
    "answers": lambda model: model.answers("Who?", "Anna"),
    "choose": lambda model: model.choose("a", TEXTS),
    "hidden_states": lambda model: model.hidden_states(TEXTS),
}


@pytest.mark.parametrize("method", CALLS)
@pytest.mark.parametrize("head", HEADS)
def test_a_method_works_or_says_what_the_model_can_do(model_of, head, method):
    model = model_of(head)
    if method in model.tasks:
        assert CALLS[method](model) is not None
        return
    with pytest.raises(TaskError) as caught:
        CALLS[method](model)
    message = str(caught.value)
    assert f"cannot {method}: it is a" in message
    assert message.endswith(f"It can: {', '.join(model.tasks)}")


def test_every_method_is_some_models_task(model_of):
    assert {task for head in HEADS for task in model_of(head).tasks} == CALLS.keys()


def test_a_model_shows_what_it_is(model_of):
    shown = repr(model_of("classify"))
    assert "a classifier of bad, fair, good, torch.float32, cpu" in shown


def test_a_users_own_head_has_hidden_states_and_its_module(tmp_path):
    @dataclass(frozen=True, kw_only=True, slots=True)
    class Lengths(Part):
        kind: ClassVar[str] = "lengths"

        def build(self, encoder):
            module = nn.Module()
            module.model = encoder
            return module

    encoder = tiny_modernbert(byte_level().vocab_size)
    write_tiny(tmp_path / "model", Lengths(), encoder=encoder)
    with pytest.raises(ConfigError, match=r"unknown part 'lengths'.*parts=\[YourPartConfig\]"):
        modernbert.load(tmp_path / "model")
    model = modernbert.load(tmp_path / "model", parts=[Lengths])
    assert model.tasks == ("hidden_states",)
    assert len(model.hidden_states(TEXTS)) == 2
    with pytest.raises(TaskError, match=r"it is a Lengths\. It can: hidden_states"):
        model.embed(TEXTS)


def test_a_model_without_tokenizer_files_takes_packs_only(tmp_path, folder_of):
    model = read_folder(folder_of("embed"))
    write_folder(tmp_path / "model", replace(model, tokenizer=None))
    loaded = modernbert.load(tmp_path / "model", dtype="float32")
    with pytest.raises(TaskError, match=r"has no tokenizer files.*model.encoder\(batch\) works"):
        loaded.embed(TEXTS)
    assert loaded.encoder(PackedBatch.from_sequences([[1, 2, 3]])).shape == (3, 64)


def test_the_limit_is_the_folders_then_the_smaller_of_tokenizer_and_positions(tmp_path, folder_of, model_of):
    assert model_of("embed").max_length == 48
    model = read_folder(folder_of("embed"))
    model.settings = replace(model.settings, max_seq_length=16)
    write_folder(tmp_path / "model", model)
    assert modernbert.load(tmp_path / "model").max_length == 16


def test_padded_batches_give_the_same_as_packed(model_of):
    model = model_of("embed")
    ids = model.tokenizer.encode_ids(TEXTS)
    longest = max(map(len, ids))
    for pad in (lambda row, fill: row + fill, lambda row, fill: fill + row):
        padded = torch.tensor([pad(row, [3] * (longest - len(row))) for row in ids])
        mask = torch.tensor([pad([1] * len(row), [0] * (longest - len(row))) for row in ids])
        batch = PackedBatch.from_padded(padded, mask)
        expected = torch.cat(model.hidden_states(TEXTS))
        assert (model.encoder(batch) - expected).abs().max() <= TOLERANCE


# Where and how it computes


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"device": "tpu"}, "unknown device 'tpu'|device 'tpu' is not supported"),
        ({"device": "gpu"}, "unknown device 'gpu'; use 'auto', 'cpu', 'cuda'"),
        ({"device": "cuda:99"}, r"'cuda:99' was asked for, but torch finds \d+ CUDA device"),
        ({"dtype": "int7"}, "unknown dtype 'int7'; use 'auto', 'float32'"),
        ({"dtype": torch.int64}, "unknown dtype 'int64'"),
        ({"backend": "cudnn"}, "unknown attention backend 'cudnn'; there are: auto, "),
    ],
    ids=str,
)
def test_what_this_machine_has_not_got_is_an_error_that_says_what_there_is(folder_of, argument, message):
    with pytest.raises(BackendError, match=message):
        modernbert.load(folder_of("embed"), **argument)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_where_there_is_none_says_so(folder_of):
    with pytest.raises(BackendError, match=r"torch finds 0 CUDA device\(s\) here; use device='cpu'"):
        modernbert.load(folder_of("embed"), device="cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="flash attention runs here")
def test_a_backend_that_cannot_serve_says_why(folder_of):
    model = modernbert.load(folder_of("embed"), backend="flash", dtype="float32")
    with pytest.raises(BackendError, match="flash: needs a CUDA device"):
        model.embed(TEXTS)


def test_backends_agree(folder_of, model_of):
    slow = modernbert.load(folder_of("embed"), backend="reference", dtype="float32", device="cpu")
    assert np.abs(slow.embed(TEXTS) - model_of("embed").embed(TEXTS)).max() <= TOLERANCE


@pytest.mark.parametrize("head", HEADS)
def test_every_head_computes_in_bfloat16(folder_of, head):
    model = modernbert.load(folder_of(head), dtype="bfloat16", device="cpu")
    assert model.dtype == torch.bfloat16
    for method in model.tasks:
        assert CALLS[method](model) is not None


def test_vectors_in_bfloat16_are_near_those_in_float32(folder_of, model_of):
    found = modernbert.load(folder_of("embed"), dtype=torch.bfloat16, device="cpu").embed(TEXTS)
    assert found.dtype == np.float32
    cosine = (found * model_of("embed").embed(TEXTS)).sum(axis=1)
    assert cosine.min() > 0.99


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("head", HEADS)
def test_every_head_computes_on_cuda(folder_of, model_of, head):
    model = modernbert.load(folder_of(head), dtype="float32", device="cuda")
    for method in model.tasks:
        assert CALLS[method](model) is not None
    (found,), (expected,) = model.hidden_states(TEXTS[:1]), model_of(head).hidden_states(TEXTS[:1])
    assert found.device.type == "cpu"
    assert (found - expected).abs().max() <= 1e-3


# Saving


def test_saving_in_bfloat16_what_was_float32_warns_at_the_users_line(tmp_path, folder_of):
    model = modernbert.load(folder_of("embed"), dtype="bfloat16", device="cpu")
    with pytest.warns(UserWarning, match="holds float32 and the new one will hold torch.bfloat16") as caught:
        model.save(tmp_path / "saved")
    assert caught[0].filename == __file__
    again = modernbert.load(tmp_path / "saved", dtype="bfloat16", device="cpu")
    assert np.array_equal(again.embed(TEXTS), model.embed(TEXTS))
    again.save(tmp_path / "again")  # the file held bfloat16, so nothing is lost and nothing is said


@pytest.mark.parametrize("head", HEADS)
def test_a_saved_model_gives_the_same_bits(tmp_path, model_of, head):
    model = model_of(head)
    model.save(tmp_path / "saved")
    again = modernbert.load(tmp_path / "saved", dtype="float32", device="cpu")
    assert again.config == model.config
    for one, other in zip(model.hidden_states(TEXTS), again.hidden_states(TEXTS), strict=True):
        assert torch.equal(one, other)
    state, other_state = model.module.state_dict(), again.module.state_dict()
    assert state.keys() == other_state.keys()
    assert all(torch.equal(state[name], other_state[name]) for name in state)


def test_a_saved_model_has_the_same_hidden_states_in_transformers(tmp_path, model_of):
    model = model_of("embed")
    model.save(tmp_path / "saved")
    theirs = transformers.AutoModel.from_pretrained(tmp_path / "saved", attn_implementation="sdpa").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    for text, found in zip(TEXTS, model.hidden_states(TEXTS), strict=True):
        inputs = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            expected = theirs(inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state[
                0
            ]
        assert (found - expected).abs().max() <= TOLERANCE


def test_a_model_made_in_memory_saves_and_loads(tmp_path):
    config = ModelConfig(encoder=tiny_modernbert(400), head=EmbedHeadConfig())
    made = Pretrained(config=config, module=config.build(), tokenizer=byte_level())
    model = modernbert.Model(made, device=torch.device("cpu"))
    model.save(tmp_path / "saved")
    again = modernbert.load(tmp_path / "saved", dtype="float32", device="cpu")
    assert np.array_equal(model.embed(TEXTS), again.embed(TEXTS))


def test_a_folder_that_is_none_says_so(tmp_path):
    with pytest.raises(FolderError, match="there is no folder"):
        modernbert.load(tmp_path / "nothing")
    with pytest.raises(ModernBertError):
        modernbert.load(tmp_path)


def test_arguments_are_checked_before_the_work(model_of):
    with pytest.raises(InputError, match="max_length must be 1 or more, found -3"):
        model_of("embed").embed(TEXTS, max_length=-3)


def test_a_new_model_is_built_from_its_parts_and_saves_as_it_is(tmp_path):
    torch.manual_seed(0)
    tokenizer = byte_level()
    config = modernbert.ModelConfig(encoder=tiny_modernbert(tokenizer.vocab_size))
    made = modernbert.new(config, tokenizer=tokenizer, device="cpu")
    made.save(tmp_path / "made")
    loaded = modernbert.load(tmp_path / "made", dtype="float32", device="cpu")
    np.testing.assert_allclose(loaded.embed(TEXTS), made.embed(TEXTS), atol=TOLERANCE)


def test_a_new_model_whose_tokenizer_is_too_large_for_it_is_refused():
    small = replace(tiny_modernbert(10), pad_token_id=None)
    with pytest.raises(FolderError, match="the embedding of the model only 10"):
        modernbert.new(modernbert.ModelConfig(encoder=small), tokenizer=byte_level())


def test_loading_and_asking_import_no_compiler(folder_of):
    code = (
        "import sys, modernbert\n"
        "modernbert.load(sys.argv[1], dtype='float32').embed(['a text'])\n"
        "print([name for name in ('torch._dynamo', 'sympy', 'matplotlib') if name in sys.modules])"
    )
    call = [sys.executable, "-c", code, str(folder_of("embed"))]
    assert subprocess.run(call, capture_output=True, text=True, check=True).stdout == "[]\n"
