"""A whole model as one value: an encoder and the head on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import nn

from modernbert.encoder.config import Part
from modernbert.encoder.encoder import Encoder, EncoderConfig
from modernbert.encoder.presets import PARTS
from modernbert.heads.classify import ChoiceHeadConfig, ClassifyHeadConfig
from modernbert.heads.embed import DenseConfig, EmbedHeadConfig, PoolerHeadConfig, TokenEmbedHeadConfig
from modernbert.heads.mlm import MlmHeadConfig
from modernbert.heads.tokens import SpanHeadConfig, TagHeadConfig
from modernbert.heads.transform import TransformConfig

HEAD_PARTS: tuple[type[Part], ...] = (
    ChoiceHeadConfig,
    ClassifyHeadConfig,
    DenseConfig,
    EmbedHeadConfig,
    MlmHeadConfig,
    PoolerHeadConfig,
    SpanHeadConfig,
    TagHeadConfig,
    TokenEmbedHeadConfig,
    TransformConfig,
)


class HeadPart(Protocol):
    """A head: one of the parts above, or a user's own.

    Its module holds the encoder as `model` and is called as `module(batch, backend)`.
    """

    def build(self, encoder: Encoder) -> nn.Module:
        """The encoder with this head on it."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig(Part):
    """An encoder and its head. Without a word on the head, texts are embedded by the mean of their token
    vectors.
    """

    kind: ClassVar[str] = "model"
    encoder: EncoderConfig
    head: HeadPart = EmbedHeadConfig()

    def build(self) -> nn.Module:
        """The model with freshly drawn weights, from torch's global generator; its encoder is the attribute
        `model`.
        """
        return self.head.build(self.encoder.build())


ALL_PARTS: tuple[type[Part], ...] = (*PARTS, *HEAD_PARTS, ModelConfig)
