"""The vendor's own command line tool."""

import subprocess
import sys
from pathlib import Path


def logs_tool(url: str, *arguments: str, access_key: str = "test", secret_key: str = "test") -> subprocess.Popen[str]:
    """Start the official command line tool. It puts no name before the host: none such would be found."""
    command = [str(Path(sys.executable).with_name("aws")), "logs", *arguments, "--endpoint-url", url]
    environment = {
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_DISABLE_HOST_PREFIX_INJECTION": "true",
        "PATH": "/usr/bin:/bin",
        "PYTHONUNBUFFERED": "1",
    }
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
