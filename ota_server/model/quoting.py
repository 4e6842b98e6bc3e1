"""What a client sent, as people read it. Pure."""

_MOST_CHARACTERS = 40


def quoted(content: bytes) -> str:
    """Return bytes in quotes, cut short, with escapes for all that is not printable ASCII."""
    cut = " ..." if len(content) > _MOST_CHARACTERS else ""
    return ascii(content[:_MOST_CHARACTERS].decode("latin-1")) + cut
