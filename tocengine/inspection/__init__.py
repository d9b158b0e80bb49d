"""Answers an operator's questions from the tables the stages write: where is it, what became of it, is it stuck."""
