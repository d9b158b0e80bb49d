"""Owns the report on a sender's messages: what the standard says of them, and what the engine needs of them."""

from tocengine.conformance.findings import Finding, Report, Severity
from tocengine.conformance.report import check_file, check_message

__all__ = ["Finding", "Report", "Severity", "check_file", "check_message"]
