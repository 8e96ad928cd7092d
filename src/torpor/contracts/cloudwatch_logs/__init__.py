"""The CloudWatch Logs API: translation, without sockets."""
