"""What can go wrong. All of these can be pickled, so that engines carry them to the driver."""

from __future__ import annotations


class SiglipError(Exception):
    """The base of all errors of this package."""


class InputError(SiglipError, ValueError):
    """The table does not have the column that is to be embedded, or has one of the names that are added."""


class WorkerError(SiglipError, RuntimeError):
    """The `siglip worker` could not be started, has ended, or writes what is not an answer.

    `exit_code` is the child's (negative: the signal that killed it), or None where there was none.
    """

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        super().__init__(message, exit_code)
        self.exit_code = exit_code

    def __str__(self) -> str:
        return str(self.args[0])


class ServiceError(SiglipError, RuntimeError):
    """The service refused a request, or could not be reached for too long. `status` is HTTP's, if there was an answer."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message, status)
        self.status = status

    def __str__(self) -> str:
        return str(self.args[0])


class FingerprintError(SiglipError, RuntimeError):
    """The model gives vectors of another embedding space than those that are wanted."""
