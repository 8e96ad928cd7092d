"""The `process` rung: plain processes of the server's own user, without any isolation.

What it gives up, so that nobody is surprised:

- Code inside can read and write whatever the server's user can, sees every process and shares the host's network. The
  API socket listens on loopback, where any local user can reach it.
- There is no root of its own and nothing is read-only. `paths` gives host folders; the fixed paths in program,
  arguments, working folder and the variables that programs are searched by are translated, nothing else is (a script
  that names `/opt` itself looks at the host's `/opt`).
- CPU share, process count and the size of `/tmp` are not limited. Memory is looked at often, and what uses too much is
  ended; the open-file limit is set just after the program has started.
- Freezing sends SIGSTOP to the process groups and to all their living descendants. A process that has cut itself loose
  (own session, parent gone) runs on.
- Ending finds processes by group, by session, by descent and by the private TMPDIR in their first environment. A
  process that has left its session *and* started with an environment without that TMPDIR escapes.
- The server's death is noticed by a small guard process, which ends everything at once. If the guard dies as well, the
  next `open` on the same state folder does it.
"""

from torpor.sandbox.plain.provider import PlainProvider
from torpor.sandbox.plain.sandbox import PlainSandbox

__all__ = ["PlainProvider", "PlainSandbox"]
