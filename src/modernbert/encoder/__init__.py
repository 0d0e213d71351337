"""The parts that an encoder is built from (FlexBERT), and the encoder."""
