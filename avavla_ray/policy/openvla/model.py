"""`OpenVla`: vision towers, projector, Llama, and OFT's proprioception token and L1 head.

A decision is `encode_images`, `embed_text` and `decode`; they are apart so that a policy can look at the visual and
text tokens before it says how much attention they get and what the action tokens start as.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from avavla_ray.errors import InputError
from avavla_ray.policy.openvla.actions import ActionBins
from avavla_ray.policy.openvla.attention import attention_implementation
from avavla_ray.policy.openvla.config import OpenVlaConfig, check_config
from avavla_ray.policy.openvla.heads import L1Head, ProprioProjector
from avavla_ray.policy.openvla.sequence import Sequence, TextBatch, assemble, attention_mask
from avavla_ray.policy.openvla.vision import FusedVision, Projector


class Decoded(NamedTuple):
    """Hidden states that the actions are read from, (B, M, D) each.

    before: output of the last-but-one layer, the belief of arXiv 2511.18960. last: of the last layer, normalised.
    """

    before: Tensor
    last: Tensor


class Generated(NamedTuple):
    """Greedy decoding token by token: ids (B, A), logits (B, A, vocabulary) float32, and `Decoded`'s hidden states
    before and last, (B, A, D)."""

    ids: Tensor
    logits: Tensor
    before: Tensor
    last: Tensor


def llama_config(config: OpenVlaConfig) -> LlamaConfig:
    """The language model's configuration as transformers knows it."""
    language = config.language
    return LlamaConfig(
        hidden_size=language.width, num_hidden_layers=language.layers, num_attention_heads=language.heads,
        num_key_value_heads=language.key_value_heads, intermediate_size=language.mlp_width,
        vocab_size=language.vocabulary, rms_norm_eps=language.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": language.rope_theta},
        max_position_embeddings=language.max_positions, bos_token_id=language.bos, eos_token_id=language.stop,
        pad_token_id=language.padding, tie_word_embeddings=False, attn_implementation="sdpa",
    )  # fmt: skip


class OpenVla(nn.Module):
    """OpenVLA, or OpenVLA-OFT with `config.parallel`. Build it under `torch.device("meta")` to allocate nothing.

    Raises:
        InputError: the configuration is inconsistent.
    """

    special: Tensor

    def __init__(self, config: OpenVlaConfig) -> None:
        super().__init__()
        check_config(config)
        self.config = config
        self.vision = FusedVision(config)
        self.projector = Projector(config)
        self.language = LlamaForCausalLM(llama_config(config))
        self.proprio = ProprioProjector(config) if config.proprio_dim else None
        self.head = L1Head(config) if config.head_blocks else None
        self.bins = ActionBins(config)
        self.attention = "sdpa"
        # With a device of its own, so that a model built on `meta` has it too.
        special = torch.tensor([[config.language.bos], [config.language.stop]], device="cpu")
        self.register_buffer("special", special, persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """Of the language model's weights."""
        return self.language.lm_head.weight.dtype

    def set_attention(self, kernel: str) -> None:
        """Choose one of `attention.KERNELS` for the language model. It is no part of a checkpoint.

        Raises:
            InputError: no such kernel, or not in this PyTorch.
        """
        self.language.set_attn_implementation(attention_implementation(kernel))
        self.attention = kernel

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """In training mode, keep only the input of each language layer and vision block, and recompute the rest in the
        backward pass."""
        for part in (self.language, self.vision.dino, self.vision.siglip):
            if enabled:
                part.activation_checkpointing_enable({"use_reentrant": False})
            else:
                part.activation_checkpointing_disable()
        # Only re-entrant checkpointing needs them, and they would cost a backward pass through a frozen model.
        self.language.disable_input_require_grads()

    def encode_images(self, images: Tensor) -> Tensor:
        """(B, V, H, W, 3) uint8 at the configured size -> visual tokens (B, N, D).

        Raises:
            InputError: images of another number, size, channel order or type.
        """
        return self.projector(self.vision(images))

    def embed_text(self, ids: Tensor) -> Tensor:
        """Token ids (...) -> (..., D)."""
        return self.language.model.embed_tokens(ids)

    def embed_proprio(self, proprio: Tensor | None) -> Tensor | None:
        """Normalised (B, P) -> (B, 1, D); None for a model without a proprioception token, whatever is given.

        Raises:
            InputError: the model has the token, and proprioception is missing or of another width.
        """
        if self.proprio is None:
            return None
        P = self.config.proprio_dim
        if proprio is None or proprio.ndim != 2 or proprio.shape[1] != P:
            got = "none" if proprio is None else f"shape {tuple(proprio.shape)}"
            raise InputError(f"proprio: expected normalised (B, {P}), got {got}")
        return self.proprio(proprio).to(self.dtype)

    def decode(
        self,
        visual: Tensor,
        text: Tensor,
        present: Tensor | None,
        *,
        proprio: Tensor | None = None,
        actions: Tensor | None = None,
        visual_bias: Tensor | None = None,
        visual_index: Tensor | None = None,
    ) -> Decoded:
        """Run the language model once over the whole sequence.

        Args:
            visual: (B, N', D), possibly pruned. text: (B, L, D) embeddings of a `TextBatch`. present: (B, L) bool
                or None, as in that batch.
            proprio: (B, 1, D) from `embed_proprio`; needed where the model has a proprioception token.
            actions: (B, M, D) input embeddings of the action tokens; None starts them empty (zeros) as OFT does. A
                model without `parallel` needs those of the actions themselves (teacher forcing).
            visual_bias: (B, N') added to the attention logits of every query for a visual token, in every layer;
                log w multiplies its share of attention by w, renormalised.
            visual_index: (B, N') which visual tokens these are, where some were pruned.

        Raises:
            InputError: the proprioception token, or teacher-forced actions, are missing.
        """
        config = self.config
        if actions is None:
            if not config.parallel:
                raise InputError("this model decodes one token at a time: give decode() the actions' embeddings")
            actions = text.new_zeros(len(text), config.action_tokens, config.language.width)
        sequence = self._sequence(visual, text, present, proprio, actions, True, visual_bias, visual_index)
        hidden = self._run(sequence.embeddings, sequence.positions, sequence.key_bias)
        read = slice(sequence.first_read, sequence.first_read + actions.shape[1])
        return Decoded(hidden.before[:, read], hidden.last[:, read])

    def logits(self, hidden: Tensor) -> Tensor:
        """Last hidden states (..., D) -> (..., vocabulary) float32."""
        return self.language.lm_head(hidden).float()

    def read_actions(self, last: Tensor) -> Tensor:
        """`Decoded.last` (B, M, D) -> chunk (B, C, A) in the normalised space; float32 for the L1 head, and float64
        bin centres for a vocabulary head."""
        if self.head is not None:
            return self.head(last).float()
        ids = self.logits(last).argmax(dim=-1)
        return self.bins.decode(ids).unflatten(1, (self.config.chunk, self.config.action_dim))

    def generate(
        self,
        visual: Tensor,
        text: Tensor,
        present: Tensor | None,
        *,
        visual_bias: Tensor | None = None,
        visual_index: Tensor | None = None,
        actions: Tensor | None = None,
    ) -> Generated:
        """OpenVLA's greedy decoding, one token at a time.

        Args:
            visual, text, present, visual_bias, visual_index: as in `decode`.
            actions: (B, A, D), added to the embeddings of the generated tokens as they are fed back: row i to token i.
                The last token is never fed.

        Raises:
            InputError: `actions` of another shape, or gradient checkpointing in training mode, which leaves no cache
                of keys and values to decode with.
        """
        config = self.config
        B, A, D = len(text), config.action_dim, config.language.width
        if actions is not None and actions.shape != (B, A, D):
            raise InputError(f"actions: expected {(B, A, D)}, got {tuple(actions.shape)}")
        if self.training and self.language.is_activation_checkpointing:
            raise InputError(
                "generate() cannot recompute activations: call eval() or set_gradient_checkpointing(False)"
            )
        cache = DynamicCache(config=self.language.config)
        sequence = self._sequence(visual, text, present, None, text[:, :0], False, visual_bias, visual_index)
        x, positions, bias = sequence.embeddings, sequence.positions, sequence.key_bias
        ids, logits, states = [], [], []
        for i in range(A):
            hidden = self._run(x, positions, bias, cache)
            states.append(Decoded(hidden.before[:, -1:], hidden.last[:, -1:]))
            logits.append(self.logits(states[-1].last))
            ids.append(logits[-1].argmax(dim=-1))
            x, positions = self.embed_text(ids[-1]), positions[:, -1:] + 1
            if actions is not None:
                x = x + actions[:, i : i + 1]
            bias = None if bias is None else torch.cat([bias, torch.zeros_like(bias[:, :1])], dim=1)
        before, last = (torch.cat(parts, dim=1) for parts in zip(*states, strict=True))
        return Generated(torch.cat(ids, dim=1), torch.cat(logits, dim=1), before, last)

    @torch.no_grad()
    def act(self, images: Tensor, text: TextBatch, proprio: Tensor | None = None) -> Tensor:
        """The plain decision, as the reference makes it: images, prompts and proprioception -> chunk (B, C, A)."""
        visual, words = self.encode_images(images), self.embed_text(text.ids)
        if self.config.parallel:
            token = self.embed_proprio(proprio)
            return self.read_actions(self.decode(visual, words, text.present, proprio=token).last)
        return self.bins.decode(self.generate(visual, words, text.present).ids)[:, None]

    def _sequence(
        self,
        visual: Tensor,
        text: Tensor,
        present: Tensor | None,
        proprio: Tensor | None,
        actions: Tensor,
        with_stop: bool,
        visual_bias: Tensor | None,
        visual_index: Tensor | None,
    ) -> Sequence:
        if (proprio is None) != (self.proprio is None):
            wrong = "needs the token of embed_proprio()" if proprio is None else "has no proprioception token"
            raise InputError(f"proprio: this model {wrong}")
        special = self.embed_text(self.special)
        return assemble(
            special[:1], visual, proprio, text, present, actions, special[1:] if with_stop else None,
            visual_bias=visual_bias, visual_index=visual_index, visual_total=self.config.visual_tokens,
        )  # fmt: skip

    def _run(self, x: Tensor, positions: Tensor, key_bias: Tensor | None, cache: DynamicCache | None = None) -> Decoded:
        """All layers over the sequence, or over what is new to the cache."""
        model, causal = self.language.model, not self.config.parallel
        mask = attention_mask(key_bias, x.shape[1], causal, x.dtype) if self.attention == "sdpa" else None
        rotary = model.rotary_emb(x, position_ids=positions)
        before = x
        for layer in model.layers:
            before, x = x, layer(
                x, attention_mask=mask, position_embeddings=rotary, past_key_values=cache, is_causal=causal,
                key_bias=key_bias,
            )  # fmt: skip
        return Decoded(before, model.norm(x))
