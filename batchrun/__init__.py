"""batchrun: run a large batch of multimodal model calls, lose none of them, and know what it cost."""


def __getattr__(name: str) -> str:
    """`__version__`, looked up when it is asked for: reading the metadata would cost every start 50 ms."""
    if name == "__version__":
        from importlib.metadata import version

        return version("batchrun")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
