"""batchrun: run a large batch of multimodal model calls, lose none of them, and know what it cost."""

from importlib.metadata import version

__version__ = version("batchrun")
