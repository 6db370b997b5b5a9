"""Export a fine-tuned model to a folder that runs without torch."""

from __future__ import annotations

import copy
import json
import shutil
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from cookbook import extra
from cookbook.models import load
from cookbook.runtimes import Onnx
from cookbook.tables import read_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from cookbook.models import Loadable


def export_onnx(
    model: Loadable,
    folder: str | Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    int8: bool = True,
) -> Path:
    """Export a classifier or marker to ONNX, for this package or any ONNX runtime, without torch.

    With int8 the weights become 8-bit integers, and activations as they come. How many of the
    products with weights that reached is printed: where few, there is no gain in speed.

    Args:
        model: As for `load`, and so is `tokenizer`.
        folder: Where to write `model.onnx`, `config.json` and the tokenizer.
        tokenizer: Of a model in memory.
        int8: Less than a third of the size, and faster on most CPUs; False for fp32, exactly.

    Returns:
        The folder.

    Raises:
        ModuleNotFoundError: onnx, onnxruntime or onnxscript is missing; says what to install.
        ValueError: The model writes, or can't be exported.

    Warns:
        UserWarning: Less than nine in ten of the products are in int8.
    """
    with extra("deploy"):
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    given = _runtime(("classifier", "marker"), model, tokenizer)
    network = copy.deepcopy(given.network).cpu().float().eval()
    told = {"architectures": [type(network).__name__], "pad_token_id": given.pad}
    network.config.update({**told, "use_cache": False})
    # What torch puts around sdpa for rows without any token takes a tenth of the time.
    network.set_attn_implementation("eager")
    plain = load(network, given.tokenizer, max_length=given.limit)
    texts = ["one", "two or three", "and a longer one of them"]
    with TemporaryDirectory() as temporary:
        made = Path(temporary)
        _save_tokenizer(plain.runtime, made)
        # In full, since `save_pretrained` leaves out label names that are LABEL_0, LABEL_1, …
        network.config.to_json_file(made / "config.json", use_diff=False)
        batch = plain.runtime.inputs(plain.runtime.encode(texts[:2]))
        onnx.save(_graph(network, batch), made / "model.onnx")
        # A graph may hold for no other texts than those that it was made with.
        exact = Onnx(plain.kind, made, plain.config, None)
        one, other = (next(each.answer([each.encode(texts)])) for each in (exact, plain.runtime))
        if not np.allclose(one, other, atol=1e-3):
            raise ValueError(f"A {type(network).__name__} can't be exported: answers differ.")
        if int8:
            _quantise(made / "model.onnx")
        shutil.copytree(made, folder, dirs_exist_ok=True)
    return Path(folder)


def export_ctranslate2(
    model: Loadable,
    folder: str | Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    quantization: str | None = "int8",
) -> Path:
    """Export a BART to CTranslate2, for `extract_keywords`, without torch.

    Args:
        model: As for `load`, and so is `tokenizer`.
        folder: Where to write the model and the tokenizer.
        tokenizer: Of a model in memory.
        quantization: `"int8"`, `"float16"` (for a GPU) or None for fp32.

    Returns:
        The folder.

    Raises:
        ModuleNotFoundError: ctranslate2 is missing; says what to install.
        ValueError: The model doesn't write, or a special token is known nowhere.
    """
    with extra("deploy"):
        from ctranslate2.converters import TransformersConverter
    runtime = _runtime(("writer",), model, tokenizer)
    network = copy.deepcopy(runtime.network)
    # Which of the two configurations has them differs from version to version of transformers.
    known = network.generation_config.to_dict()
    known |= {name: value for name, value in network.config.to_dict().items() if value is not None}
    # Older Trainers take away the beginning that BERT's tokenizer lacks; nothing is read with it.
    if known.get("bos_token_id") is None:
        known["bos_token_id"] = known.get("decoder_start_token_id")
    ids = {}
    for name in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"):
        if known.get(name) is None:
            raise ValueError(f"Neither config.json nor generation_config.json has {name}: set it.")
        ids[name] = int(np.ravel(known[name])[0])
    # What BART is; the converter asks for it.
    network.config.update({"normalize_before": False, **ids})
    with TemporaryDirectory() as temporary:
        saved, made = Path(temporary) / "saved", Path(temporary) / "made"
        network.save_pretrained(saved)
        runtime.tokenizer.save_pretrained(saved)
        TransformersConverter(str(saved)).convert(str(made), quantization=quantization)
        # The converter asks the tokenizer, and BERT's has no beginning and end; the model knows.
        begin, end, *_ = runtime.tokenizer.convert_ids_to_tokens(list(ids.values()))
        told = {**read_json(made / "config.json"), "bos_token": begin, "eos_token": end}
        told |= {"architectures": [type(network).__name__], "is_encoder_decoder": True}
        (made / "config.json").write_text(json.dumps(told, indent=2), "utf-8")
        _save_tokenizer(runtime, made)
        network.generation_config.save_pretrained(made)
        shutil.copytree(made, folder, dirs_exist_ok=True)
    return Path(folder)


def _runtime(kinds: tuple[str, ...], model: Loadable, tokenizer: Any) -> Any:
    runtime = load(model, tokenizer).of_kind(*kinds).runtime
    if not hasattr(runtime, "network"):
        raise ValueError(f"{model} is exported already: name the model that it was made from.")
    if not runtime.tokenizer.is_fast:
        name = type(runtime.tokenizer).__name__
        raise ValueError(f"{name} has no tokenizer.json to export: take a 'fast' tokenizer.")
    return runtime


def _save_tokenizer(runtime: Any, folder: Path) -> None:
    """Save a tokenizer whose tokenizer.json alone reads texts as the model does: cut, unpadded."""
    tokenizer = copy.deepcopy(runtime.tokenizer)
    side, encoder = tokenizer.truncation_side, tokenizer.backend_tokenizer
    tokenizer.model_max_length = runtime.limit
    tokenizer.init_kwargs["truncation_side"] = side  # of which it saves what it was made with
    encoder.no_padding()
    encoder.no_truncation()
    if runtime.limit:
        encoder.enable_truncation(runtime.limit, direction=side)
    tokenizer.save_pretrained(folder)


def _graph(network: Any, batch: dict[str, Any]) -> Any:
    """Trace a classifier into a graph of ONNX in which weights are constants."""
    import torch
    from onnx_ir.passes.common import CommonSubexpressionEliminationPass
    from onnxscript import optimizer

    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with torch.inference_mode():
        program: Any = torch.onnx.export(
            network,
            kwargs=batch,
            input_names=list(batch),
            output_names=["logits"],
            dynamic_shapes=dict.fromkeys(batch, sizes),
            dynamo=True,
            verbose=False,
        )
    # ALBERT turns the weights that its layers share before each product, where they are neither
    # quantised nor fast. Turned once and for all, the layers still share them.
    CommonSubexpressionEliminationPass()(program.model)
    whole = {"input_size_limit": 1 << 40, "output_size_limit": 1 << 40}
    optimizer.fold_constants(program.model, onnx_shape_inference=False, **whole)
    optimizer.remove_unused_nodes(program.model)
    _read_first_token_early(program.model.graph)
    made = program.model_proto
    # The shapes that torch notes for values in between are of its own names, and onnxruntime's
    # quantisation stumbles over them; it infers its own.
    del made.graph.value_info[:]
    return made


def _quantise(path: Path) -> None:
    """Quantise a graph's products with weights; say how many of them."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Weights in 7 bits: CPUs without VNNI add up pairs of products in 16, which overflow.
    quantize_dynamic(path, path, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)
    graph = onnx.load(path).graph
    constant = {each.name for each in graph.initializer}
    done = left = 0
    for node in graph.node:
        if constant.issuperset(filter(None, node.input)):  # a weight that is turned, say
            constant.update(node.output)
        elif node.op_type in ("MatMulInteger", "ConvInteger"):
            done += 1
        elif node.op_type in ("MatMul", "Gemm", "Einsum", "Conv"):
            left += not constant.isdisjoint(node.input)
    told = f"int8: {done} of {done + left} products with weights ({done / max(done + left, 1):.0%})"
    print(told)  # noqa: T201
    if done < 0.9 * (done + left):
        warnings.warn(f"{told}: hardly faster than fp32, and less exact.", stacklevel=3)


def _read_first_token_early(graph: Any) -> None:
    """Leave out of a graph what the last layer computes for tokens that nobody reads.

    A classifier reads the first token of the last layer alone. What goes on row by row before that
    (feed-forward, norms, the attention's output) needn't be done for the others: a tenth of all
    work with six layers. `Gather` of the first token moves up as far as only such operations
    depend on it. Where there is no such node, the graph stays as it is.
    """
    import onnx_ir as ir

    constant = ir.convenience.get_const_tensor
    gather = next(filter(_takes_first_token, graph), None)
    if gather is None or len(gather.inputs[0].uses()) > 1:
        return
    by_row = ("Add", "Gelu", "LayerNormalization", "Mul", "Tanh")
    moved: list[Any] = []
    for node in reversed(graph):
        weights = node.op_type == "MatMul" and constant(node.inputs[1]) is not None
        users = {user for value in node.outputs for user in value.consumers()}
        if (weights or node.op_type in by_row) and users and users <= {gather, *moved}:
            moved.append(node)
    early: dict[Any, Any] = {}
    for node in moved:
        for place, value in enumerate(node.inputs):
            if constant(value) is None and value.producer() not in moved:
                if value not in early:
                    early[value] = ir.node("Gather", [value, gather.inputs[1]], {"axis": 1})
                    graph.append(early[value])
                node.replace_input_with(place, early[value].outputs[0])
    if moved:
        gather.outputs[0].replace_all_uses_with(gather.inputs[0])
        graph.remove(gather, safe=True)
        graph.sort()


def _takes_first_token(node: Any) -> bool:
    import onnx_ir as ir

    if node.op_type != "Gather" or node.attributes.get_int("axis", 0) != 1:
        return False
    index = ir.convenience.get_const_tensor(node.inputs[1])
    return index is not None and not index.numpy().any()
