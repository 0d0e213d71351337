"""Vectors for texts and for tokens, held to Sentence Transformers where it has words for them."""

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

import modernbert
from modernbert.errors import InputError
from modernbert.heads.embed import EmbedHeadConfig
from modernbert.pretrained.sentence import TextSettings
from tests.inference.tiny import write_tiny

# fp32 sums in another order, on vectors of length 1.
TOLERANCE = 1e-5
TEXTS = ["Paris is the capital of France.", "bread", "He walked to the store and bought some bread", ""]
LONG = "He walked to the store and bought some bread for Anna. " * 6


def distance(found, expected):
    """How far the vectors of a text lie apart at most, in lengths of the expected one."""
    apart = np.linalg.norm(found - expected, axis=1)
    return float((apart / np.linalg.norm(expected, axis=1)).max())


@pytest.fixture
def with_prompts(tmp_path):
    """A function that writes a model with prompts, and gives it from our hand and from theirs."""

    def written(family="modernbert", *, default_prompt=None, lowercases=False, prompts=None, **head):
        settings = TextSettings(
            prompts=prompts or {"query": "query: ", "passage": "document: ", "plain": ""},
            default_prompt=default_prompt,
            lowercases=lowercases,
        )
        folder = write_tiny(tmp_path / "model", EmbedHeadConfig(**head), family=family, settings=settings)
        ours = modernbert.load(folder, dtype="float32", device="cpu")
        return ours, SentenceTransformer(str(folder), device="cpu")

    return written


@pytest.mark.parametrize("name", ["embed", "embed_raw", "embed_dense"])
def test_vectors_equal_sentence_transformers(model_of, folder_of, name):
    theirs = SentenceTransformer(str(folder_of(name)), device="cpu")
    found = model_of(name).embed(TEXTS)
    assert found.dtype == np.float32
    assert distance(found, theirs.encode(TEXTS)) <= TOLERANCE


@pytest.mark.parametrize("family", ["modernbert", "bert"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "mean_sqrt_len_tokens", "lasttoken"])
def test_a_prompt_that_is_not_pooled_equals_sentence_transformers(with_prompts, family, pooling):
    ours, theirs = with_prompts(family, pools_prompt=False, poolings=(pooling,))
    for name in ("query", "plain"):
        expected = theirs.encode(TEXTS, prompt_name=name)
        assert distance(ours.embed(TEXTS, prompt=name), expected) <= TOLERANCE
    assert np.abs(ours.embed(TEXTS) - ours.embed(TEXTS, prompt="query")).max() > 100 * TOLERANCE


def test_a_prompt_that_is_pooled_equals_sentence_transformers(with_prompts):
    ours, theirs = with_prompts()
    assert distance(ours.embed(TEXTS, prompt="query"), theirs.encode_query(TEXTS)) <= TOLERANCE
    assert distance(ours.embed(TEXTS, prompt="passage"), theirs.encode_document(TEXTS)) > TOLERANCE


def test_query_and_document_may_always_be_named(model_of):
    model = model_of("embed")
    for name in ("query", "document"):
        assert np.array_equal(model.embed(TEXTS, prompt=name), model.embed(TEXTS))


def test_a_document_takes_the_prompt_for_passages_where_a_folder_has_that(with_prompts):
    ours, _ = with_prompts()
    assert np.array_equal(ours.embed(TEXTS, prompt="document"), ours.embed(TEXTS, prompt="passage"))
    assert not np.array_equal(ours.embed(TEXTS, prompt="document"), ours.embed(TEXTS))


def test_the_default_prompt_is_for_vectors_and_not_for_hidden_states(with_prompts):
    ours, theirs = with_prompts(default_prompt="query")
    assert distance(ours.embed(TEXTS), theirs.encode(TEXTS)) <= TOLERANCE
    assert np.array_equal(ours.embed(TEXTS), ours.embed(TEXTS, prompt="query"))
    assert len(ours.hidden_states(["bread"])[0]) == len(ours.tokenizer.encode_ids(["bread"])[0])


def test_an_unknown_prompt_names_the_known(with_prompts, model_of):
    ours, _ = with_prompts()
    with pytest.raises(InputError, match="no prompt 'q'; its prompts are: 'query', 'passage', 'plain'"):
        ours.embed(TEXTS, prompt="q")
    with pytest.raises(InputError, match="its prompts are: none"):
        model_of("embed").embed(TEXTS, prompt="q")


def test_a_folder_that_lowercases_does(with_prompts):
    ours, theirs = with_prompts(lowercases=True, prompts={"query": "QUERY: "})
    assert np.array_equal(ours.embed(["Paris"], prompt="query"), ours.embed(["PARIS"], prompt="query"))
    assert distance(ours.embed(TEXTS, prompt="query"), theirs.encode_query(TEXTS)) <= TOLERANCE


def test_first_dimensions_have_length_1_again_where_the_model_has(model_of):
    whole, some = model_of("embed").embed(TEXTS), model_of("embed").embed(TEXTS, dimensions=8)
    expected = whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True)
    assert np.abs(some - expected).max() <= 1e-6
    raw = model_of("embed_raw")
    assert np.array_equal(raw.embed(TEXTS, dimensions=40), raw.embed(TEXTS)[:, :40])


@pytest.mark.parametrize("dimensions", [0, -1, 13])
def test_dimensions_that_a_vector_has_not_say_how_many_it_has(model_of, dimensions):
    with pytest.raises(InputError, match=f"between 1 and the model's 12, found {dimensions}"):
        model_of("embed_dense").embed([], dimensions=dimensions)


def test_long_texts_keep_length_1(model_of):
    vectors = model_of("embed").embed([LONG, "bread", ""])
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() <= 1e-6


def test_the_end_of_a_long_text_counts(model_of):
    model = model_of("embed")
    here, there = model.embed([LONG + "Paris is the capital", LONG + "some other words"])
    assert np.abs(here - there).max() > 1e-3


@pytest.mark.parametrize(("head", "family"), [("mlm", "modernbert"), ("pooler", "bert")])
def test_without_a_word_on_pooling_a_vector_is_the_mean_of_the_tokens(model_of, head, family):
    model = model_of(head, family)
    means = [hidden.mean(dim=0).numpy() for hidden in model.hidden_states(TEXTS)]
    assert np.abs(model.embed(TEXTS) - means).max() <= TOLERANCE


def test_hidden_states_are_those_of_the_encoder(model_of):
    from modernbert import PackedBatch

    model = model_of("embed")
    ids = model.tokenizer.encode_ids(TEXTS)
    batch = PackedBatch.from_sequences(ids)
    for found, expected in zip(model.hidden_states(TEXTS), batch.split(model.encoder(batch)), strict=True):
        assert (found - expected).abs().max() <= TOLERANCE


def test_token_vectors_are_projected_and_of_length_1(model_of):
    model = model_of("token_embed")
    found = model.embed_tokens(TEXTS)
    assert [each.shape for each in found] == [(len(ids), 8) for ids in model.tokenizer.encode_ids(TEXTS)]
    assert all(each.dtype == np.float32 for each in found)
    assert all(np.abs(np.linalg.norm(each, axis=1) - 1).max() <= 1e-6 for each in found)


def test_token_vectors_of_other_encoders_are_their_hidden_states(model_of):
    model = model_of("embed")
    for vectors, hidden in zip(model.embed_tokens(TEXTS), model.hidden_states(TEXTS), strict=True):
        assert np.array_equal(vectors, hidden.numpy())


def test_similarity_is_the_cosine_of_every_two_texts(model_of):
    model = model_of("embed_raw")
    found = model.similarity(TEXTS[:3], TEXTS[1:3])
    a = model.embed(TEXTS[:3])
    expected = (a @ a[1:].T) / np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(a[1:], axis=1))
    assert np.abs(found - expected).max() <= TOLERANCE
    assert model.similarity("bread", TEXTS).shape == (1, 4)
    assert model.similarity([], TEXTS).shape == (0, 4)
    assert model.similarity([], []).shape == (0, 0)


def test_the_names_of_special_tokens_in_a_text_are_plain(model_of):
    model = model_of("embed")
    (hidden,) = model.hidden_states(["[SEP]"])
    assert len(hidden) > 3
