"""Exit codes: fixed, and the same for every command."""

from enum import IntEnum


class Exit(IntEnum):
    """What a script may rely on."""

    OK = 0
    ERROR = 1
    USAGE = 2
    FAILED = 3  # the deployment failed or was aborted
    PAUSED = 4  # it was paused by its failure threshold
    TIMEOUT = 5


class Leave(Exception):
    """End the command with this code; the sentence goes to stderr."""

    def __init__(self, code: Exit, sentence: str = "") -> None:
        super().__init__(sentence)
        self.code = code
