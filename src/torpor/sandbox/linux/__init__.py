"""The real sandbox: namespaces, a private root, control groups and a system call filter, built by the launcher."""

from torpor.sandbox.linux.provider import LinuxProvider

__all__ = ["LinuxProvider"]
