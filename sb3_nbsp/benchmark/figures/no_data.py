"""What a figure says when there is nothing to draw."""


class NoDataError(ValueError):
    """The results hold nothing that a figure could show; the message says what is missing."""
