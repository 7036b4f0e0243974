"""Values that nobody may read, and what the runner writes without them. A courtesy towards those
who read logs: code that wants to tell a value can spell it differently."""
MASK = "********"
# Shorter values are found everywhere by chance.
MIN_CHARS = 4
# A line of a longer value, such as a key in PEM.
MIN_LINE_CHARS = 16

_texts = []
_bytes = []


def remember(values):
    known = {value for value in values if len(value) >= MIN_CHARS}
    lines = {line.strip() for value in values for line in value.splitlines()}
    known.update(line for line in lines if len(line) >= MIN_LINE_CHARS)
    _texts[:] = sorted(known, key=len, reverse=True)  # one may be part of another
    _bytes[:] = [text.encode("utf-8", "surrogatepass") for text in _texts]


def hide(text):
    """Text without the values."""
    for value in _texts:
        if value in text:
            text = text.replace(value, MASK)
    return text


def hide_bytes(data):
    """What is written to a stream, without the values."""
    if not _bytes:
        return data
    clean = bytes(data)
    for value in _bytes:
        if value in clean:
            clean = clean.replace(value, MASK.encode())
    return clean
