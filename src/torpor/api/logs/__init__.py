"""The CloudWatch Logs API over the journal."""

from torpor.api.logs.face import LogsFace, LogsSettings, claims

__all__ = ["LogsFace", "LogsSettings", "claims"]
