"""Helpers for fine-tuning small models on synthetic data and measuring them honestly.

One small module per step, in the order in which data flows. Modules load on first use, so
`import cookbook` costs next to nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

__version__ = "0.1.0"
_LOWER = {
    "annotation",
    "answers",
    "cascades",
    "commands",
    "decisions",
    "formats",
    "keyword_baselines",
    "keyphrases",
    "label_cells",
    "lessons",
    "marks",
    "minhash",
    "models",
    "openai_servers",
    "opinions",
    "places",
    "review_page",
    "promises",
    "runtimes",
    "sentence_encoders",
    "servers",
    "surface",
    "task_commands",
    "task_file",
    "task_model",
    "task_texts",
}  # halves of others
__all__ = sorted({module.name for module in iter_modules(__path__)} - _LOWER)


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Import optional packages within; name the extra of this package that brings them.

    Raises:
        ModuleNotFoundError: One isn't installed; says the command that installs it.

    Example:
        >>> with extra("deploy"):
        ...     import onnxruntime
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'{error.name} is missing. Run: pip install "small-model-cookbook[{name}]"'
        ) from error
