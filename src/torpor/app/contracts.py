"""The contracts and the pool's bounds out of the settings."""

import os
import secrets
from urllib.parse import urlsplit

from torpor.contracts.function_compute.contract import FunctionComputeContract
from torpor.contracts.function_compute.environment import Credentials as RoleCredentials
from torpor.contracts.lambda_.contract import LambdaContract
from torpor.contracts.lambda_.environment import Credentials
from torpor.contracts.lambda_.managed import ManagedContract
from torpor.contracts.lambda_.platform_log import Billing, LogStyle, PlatformLog
from torpor.contracts.web.contract import WebContract
from torpor.engine.contract import Contract
from torpor.engine.pool import PoolLimits
from torpor.sandbox.linux.destinations import HOST_ADDRESS
from torpor.sandbox.port import Isolation
from torpor.settings import Settings, local_port

_MIB = 1024 * 1024
_MEMORY_SHARE = 0.8


def contracts(settings: Settings, isolation: Isolation, key: bytes) -> dict[str, Contract]:
    """Every contract that functions can be served under, by its name in the model. `key` makes tokens."""
    standard = _lambda_contract(settings, isolation, key)
    return {
        "lambda": standard,
        "lambda_managed": ManagedContract(standard=standard),
        "function_compute": FunctionComputeContract(
            credentials=_role_credentials(settings),
            start_limit=settings.fc_start_limit,
            instances=settings.fc_instances,
            idle_timeout=settings.fc_idle_timeout,
        ),
        "web": WebContract(start_limit=settings.web_start_limit),
    }


def _lambda_contract(settings: Settings, isolation: Isolation, key: bytes) -> LambdaContract:
    return LambdaContract(
        credentials=_credentials(settings),
        init_limit=settings.init_limit,
        restore_limit=settings.restore_limit,
        long_init_limit=settings.long_init_limit,
        proactive_init=settings.proactive_init,
        single_use=settings.single_use,
        clone=settings.clone,
        log=PlatformLog(style=LogStyle(settings.log_style), billing=Billing(settings.billing)),
        endpoint_url=_endpoint_inside(settings.aws_endpoint_url, isolation) if settings.pass_endpoint_url else "",
        token_key=key,
    )


def _endpoint_inside(url: str, isolation: Isolation) -> str:
    """The AWS endpoint as functions reach it: in a network of their own, this host's loopback has another address."""
    port = local_port(url)
    if port is None or isolation is Isolation.PROCESS:
        return url
    # An address rather than a name: SDKs put a bucket's name before a name, where nothing would resolve it.
    return urlsplit(url)._replace(netloc=f"{HOST_ADDRESS}:{port}").geturl()


def _credentials(settings: Settings) -> Credentials:
    """Functions sign with a key that opens nothing by itself; the server's own keys are never given to them."""
    return Credentials(
        access_key="ASIA" + settings.account + "TORP",
        secret_key=secrets.token_urlsafe(30),
        session_token=secrets.token_urlsafe(60),
    )


def _role_credentials(settings: Settings) -> RoleCredentials:
    """As `_credentials`, for functions that have a role."""
    return RoleCredentials(
        access_key="STS.TORPOR" + settings.account,
        secret_key=secrets.token_urlsafe(30),
        security_token=secrets.token_urlsafe(60),
    )


def pool_limits(settings: Settings) -> PoolLimits:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _MIB
    return PoolLimits(
        account_concurrency=settings.account_concurrency,
        memory_budget_mb=settings.memory_budget_mb or int(total * _MEMORY_SHARE),
        memory_wait=settings.memory_wait,
        idle_timeout=settings.idle_timeout,
        max_age=settings.max_age,
    )
