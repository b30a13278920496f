"""Answers in words, `Ann is a zorp.`: compared as text."""

from __future__ import annotations

from latentplan.problems.answers.answer_kind import AnswerKind


class Text(AnswerKind):
    """Any text; equal are texts that differ only in case, white space, and quotes or punctuation around."""

    name = "text"
