"""Helpers for fine-tuning small models on synthetic data and measuring them honestly.

One small module per step, in the order in which data flows: `synthesis`, `data`, `quality`,
`labels`, `features`, `training`, `metrics`, `inference`, `baselines`, `economics`, `hub`, `demo`,
`plots`; `offline` brings a model that pip carries. Modules load on first use, so `import cookbook`
costs next to nothing.
"""

from importlib import import_module
from types import ModuleType

__version__ = "0.1.0"
__all__ = [
    "baselines",
    "data",
    "demo",
    "economics",
    "features",
    "hub",
    "inference",
    "labels",
    "metrics",
    "offline",
    "plots",
    "quality",
    "synthesis",
    "training",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
