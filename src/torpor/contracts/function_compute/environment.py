"""What processes inside are given: their variables (1.7)."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from torpor.contracts.function_compute import runtimes
from torpor.contracts.function_compute.names import function_of, shown_version
from torpor.model.function import FunctionVersion
from torpor.model.server import INITIALIZE, Hook

RESERVED_PREFIX = "FC_"
RESERVED_CLASSIC = frozenset({"accessKeyID", "accessKeySecret", "securityToken", "topic"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What functions with a role sign their own calls with. They open nothing on this platform."""

    access_key: str = ""
    secret_key: str = ""
    security_token: str = ""


NO_CREDENTIALS = Credentials()


def credentials_of(version: FunctionVersion, credentials: Credentials) -> Credentials:
    """Those of the function's role; empty ones if it has none."""
    return credentials if version.role else NO_CREDENTIALS


def variables(
    version: FunctionVersion,
    *,
    image: Mapping[str, str],
    paths: Mapping[str, str],
    instance: str,
    api_address: str,
    port: int,
    credentials: Credentials,
) -> dict[str, str]:
    """The server's variables: the image's, then the customer's, then the platform's.

    `paths` tells where the code (`task`) and the layers (`opt`) stand, `port` where the server has to listen.
    """
    code, layers = paths["task"], paths.get("opt", "/opt")
    own_libraries = image.get("LD_LIBRARY_PATH", "")
    places = (code, f"{code}/lib", "/usr/local/lib", f"{layers}/lib", own_libraries)
    libraries = os.pathsep.join(place for place in places if place)
    own = {"TZ": "UTC", **image, "LD_LIBRARY_PATH": libraries, **version.environment}
    return own | _platform(version, code, instance, api_address, port) | _signing(version, credentials)


def _platform(version: FunctionVersion, code: str, instance: str, api_address: str, port: int) -> dict[str, str]:
    number = shown_version(version.version)
    given = {
        "FC_FUNC_CODE_PATH": code,
        "FC_ACCOUNT_ID": version.account,
        "FC_REGION": version.region,
        "FC_FUNCTION_NAME": function_of(version.function),
        "FC_FUNCTION_HANDLER": version.handler,
        "FC_FUNCTION_MEMORY_SIZE": str(version.memory_mb),
        "FC_INSTANCE_ID": instance,
        runtimes.version_variable(version.runtime): number,
    }
    if port:
        given["FC_CUSTOM_LISTEN_PORT"] = given["FC_SERVER_PORT"] = str(port)
    if not runtimes.is_custom(version.runtime):
        given |= _for_guests(version, api_address)
    return given


def _for_guests(version: FunctionVersion, api_address: str) -> dict[str, str]:
    """What the guests of built-in runtimes are told beside what servers are."""
    hook = version.server.hooks.get(INITIALIZE) if version.server is not None else None
    hook = hook or Hook(timeout_s=0)
    given = {
        "FC_RUNTIME": version.runtime,
        "FC_HANDLER": version.handler,
        "FC_TIMEOUT": str(int(version.timeout_s)),
        "FC_MEMORY_SIZE": str(version.memory_mb),
        "FC_INITIALIZER_HANDLER": hook.handler,
        "FC_INITIALIZATION_TIMEOUT": str(int(hook.timeout_s)),
    }
    return given | ({"FC_RUNTIME_API": api_address} if api_address else {})


def _signing(version: FunctionVersion, credentials: Credentials) -> dict[str, str]:
    told = credentials_of(version, credentials)
    if not told.access_key:
        return {}
    return {
        "ALIBABA_CLOUD_ACCESS_KEY_ID": told.access_key,
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": told.secret_key,
        "ALIBABA_CLOUD_SECURITY_TOKEN": told.security_token,
    }
