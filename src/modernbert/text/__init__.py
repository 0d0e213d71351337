"""From text to packed token ids: tokenizer, batch, packing, chunking."""
