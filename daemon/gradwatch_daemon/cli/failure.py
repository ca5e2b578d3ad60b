"""How a verb ends when it cannot do its work: what happened, why, what to do next, and the exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradwatch_contracts.errors import GradwatchError

EXIT_BUG = 1
EXIT_USAGE = 2
EXIT_NOT_FOUND = 3
EXIT_UNREACHABLE = 4
EXIT_REFUSED = 5
EXIT_FINDINGS = 10
"""Something at or above the gate was found. Not 1: a script must tell a finding from a broken tool."""
EXIT_INCONCLUSIVE = 11
"""Nothing was found, by detectors that could not all see. Must not look like success."""
EXIT_INTERRUPTED = 130
EXIT_PIPE_CLOSED = 141
"""128 + signal number, as a shell reports them."""


class CommandError(Exception):
    """Ends the command. `code` is the slug of the error table, '' for a mistake on the command line itself."""

    def __init__(
        self,
        what: str,
        *,
        why: str = "",
        next_step: str = "",
        exit_code: int = EXIT_BUG,
        code: str = "",
        did_you_mean: str = "",
    ) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.next_step = next_step
        self.exit_code = exit_code
        self.code = code
        self.did_you_mean = did_you_mean

    @classmethod
    def of(cls, error: GradwatchError) -> CommandError:
        """The same refusal, as a command ends with it."""
        code = error.code
        return cls(code.title, why=error.detail, next_step=error.next_step, exit_code=code.exit, code=code.slug)

    def document(self) -> dict[str, Any]:
        """What a program reads instead of `lines`, with `--json`: texts that are not known are null."""
        return {
            "code": self.code or ("usage" if self.exit_code == EXIT_USAGE else "failed"),
            "what": self.what,
            "why": self.why or None,
            "next": self.next_step or None,
            "did_you_mean": self.did_you_mean or None,
            "exit_code": self.exit_code,
        }

    def lines(self) -> list[str]:
        """One line each for what, why, and what next; empty ones are left out."""
        hint = f"Did you mean {self.did_you_mean}?" if self.did_you_mean else ""
        next_step = self.next_step if not hint or hint in self.next_step else f"{hint} {self.next_step}".strip()
        return [f"gradwatch: {self.what}", *(f"  {text}" for text in (self.why, next_step) if text)]
