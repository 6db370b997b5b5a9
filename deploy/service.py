"""Serve one exported classifier over HTTP, without torch, transformers or the cookbook.

    pip install -r requirements.txt
    MODEL=path/to/exported uvicorn service:app --port 8000
    curl localhost:8000/classify -d '{"texts": ["Council approves budget for 2027"]}'

`MODEL` is a folder of `cookbook export` (`export.export_onnx`). The answers are those of
`inference.classify`. `handler` is the same for AWS Lambda, or what else calls a function.
"""

from __future__ import annotations

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from tokenizers import Encoding, Tokenizer

BATCH = 8  # texts of like length at once; more are slower on a CPU
MOST_TEXTS = int(os.environ.get("MOST_TEXTS", "1000"))
MOST_BYTES = int(os.environ.get("MOST_BYTES", "10000000"))

folder = Path(os.environ.get("MODEL", "model"))
if not (folder / "model.onnx").is_file():
    raise SystemExit(f"{folder} holds no model.onnx: set MODEL to a folder of `cookbook export`.")
config = json.loads((folder / "config.json").read_text("utf-8"))
names = [str(config["id2label"][str(i)]) for i in range(len(config["id2label"]))]
several = config.get("problem_type") == "multi_label_classification"
thresholds = dict.fromkeys(names, 0.5) | config.get("label_thresholds", {})
temperature = config.get("label_temperature") or 1.0
sure_from = config.get("sure_from")  # the score from which on an answer is sure, if one was chosen
padding = {
    "pad_id": config.get("pad_token_id") or 0,
    "direction": "left" if config.get("summary_type") == "last" else "right",
}
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))  # it cuts texts to their length
tokenizer.no_padding()
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1  # a batch per core beats a batch on all cores
session = onnxruntime.InferenceSession(
    str(folder / "model.onnx"),
    options,
    providers=["CPUExecutionProvider"],
    # The two operations that it puts together take a seventh less time apart.
    disabled_optimizers=["SkipLayerNormFusion"],
)
cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
pool = ThreadPoolExecutor(cores)


def probabilities(rows: list[Encoding]) -> np.ndarray:
    """Answer tokenised texts, padded to one length."""
    longest = max(len(row.ids) for row in rows)
    for row in rows:
        row.pad(longest, **padding)
    columns = {
        "input_ids": [row.ids for row in rows],
        "attention_mask": [row.attention_mask for row in rows],
        "token_type_ids": [row.type_ids for row in rows],
    }
    wanted = [each.name for each in session.get_inputs()]
    inputs = {name: np.array(columns[name], np.int64) for name in wanted}
    logits = session.run(["logits"], inputs)[0].astype(float) / temperature
    if several or len(names) == 1:
        return 1 / (1 + np.exp(-logits))
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def classify(texts: list[str]) -> list[dict[str, Any]]:
    """Return label, score and the scores of all labels for every text; a blank one has none.

    Where a text may have several labels, `label` is a list of those that reach their threshold.
    Where the model has a threshold for it, `sure` says whether the score reaches that.
    """
    rows = tokenizer.encode_batch(texts)
    asked = [place for place, text in enumerate(texts) if text.strip() and rows[place].ids]
    asked.sort(key=lambda place: len(rows[place].ids))
    batches = [asked[start : start + BATCH] for start in range(0, len(asked), BATCH)]
    answers: list[dict[str, Any]] = [{"label": None, "score": None, "scores": {}} for _ in texts]
    found = pool.map(probabilities, [[rows[place] for place in batch] for batch in batches])
    for place, scores in zip(asked, (row for part in found for row in part.tolist()), strict=True):
        scored = dict(zip(names, scores, strict=True))
        label: Any = max(names, key=scored.__getitem__)
        score = scored[label]
        if several:
            label = [name for name in names if scored[name] >= thresholds[name]]
            score = min(scored[name] if name in label else 1 - scored[name] for name in names)
        answers[place] = {"label": label, "score": score, "scores": scored}
        if sure_from is not None:
            answers[place]["sure"] = score >= sure_from
    return answers


def respond(body: bytes | str) -> tuple[dict[str, Any], int]:
    """Answer what was sent, or say what is wrong with it; with the status of HTTP."""
    if len(body) > MOST_BYTES:
        return {"error": f"That is too long: at most {MOST_BYTES:,} bytes at once."}, 413
    try:
        texts = json.loads(body)["texts"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return {"error": 'Send JSON: {"texts": ["a text", "another"]}.'}, 400
    if not isinstance(texts, list):
        return {"error": f"'texts' is no list of texts, but {json.dumps(texts)[:80]}."}, 422
    for place, text in enumerate(texts):
        if not isinstance(text, str) or re.search("[\ud800-\udfff]", text):  # half an emoji
            return {"error": f"Text {place} is no text, but {json.dumps(text)[:80]}."}, 422
    if len(texts) > MOST_TEXTS:
        return {"error": f"{len(texts):,} texts: send at most {MOST_TEXTS:,} at once."}, 413
    return {"answers": classify(texts)}, 200


async def health(request: Request) -> JSONResponse:
    """Say that the model is loaded, and what it answers."""
    return JSONResponse({"status": "ok", "labels": names})


async def answer(request: Request) -> JSONResponse:
    """Classify the texts of a request."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BYTES:
            break
    return JSONResponse(*await run_in_threadpool(respond, body))


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer an event whose `body` is what `/classify` takes."""
    said, status = respond(event.get("body") or "")
    return {"statusCode": status, "body": json.dumps(said)}


app = Starlette(routes=[Route("/health", health), Route("/classify", answer, methods=["POST"])])
