"""Run sequences of different lengths as one pack, and check that none of them sees another.

python examples/packed_batches.py
"""

import torch

from modernbert import PRESETS, PackedBatch


def main() -> None:
    torch.manual_seed(0)
    encoder = PRESETS["ettin-17m"]().build().eval()  # random weights: enough to look at how batches work
    lengths = [7, 300, 40, 3]
    sequences = [torch.randint(0, 50_000, (length,)).tolist() for length in lengths]

    batch = PackedBatch.from_sequences(sequences)
    print("cu_seqlens  ", batch.cu_seqlens.tolist())
    print("position_ids", batch.position_ids[:9].tolist(), "...")
    padded = max(lengths) * len(lengths)
    print(f"{batch.num_tokens} tokens; a padded batch would compute {padded}")

    with torch.no_grad():
        together = batch.split(encoder(batch))  # one [n, D] for each sequence
        alone = [encoder(PackedBatch.from_sequences([sequence])) for sequence in sequences]
    gaps = [(one - other).abs().max().item() for one, other in zip(together, alone, strict=True)]
    print("each sequence alone gives the same numbers:", max(gaps) < 1e-5)

    input_ids = torch.tensor([[1, 2, 3, 0], [4, 5, 0, 0]])  # from a tool that pads
    from_padded = PackedBatch.from_padded(input_ids, attention_mask=(input_ids > 0).long())
    print("from a padded batch:", from_padded.token_ids.tolist())


if __name__ == "__main__":
    main()
