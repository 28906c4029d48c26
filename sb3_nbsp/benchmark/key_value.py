"""Options of the form key:value on the command line."""

import argparse
import ast
from typing import Any


def key_value(text: str) -> tuple[str, Any]:
    """
    :param text: "key:value", the value a Python literal or a bare word
    :return: the two
    :raises argparse.ArgumentTypeError: if there is no key
    """
    key, colon, value = text.partition(":")
    if not key or not colon:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form key:value")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value
