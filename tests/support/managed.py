"""Functions on managed instances, deployed and used as their owner would."""

import json
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError
from tests.support.functions import Package
from tests.support.server import ROLE, Function, TorporServer, eventually

VPC = {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
MEMORY_MB = 2048


@dataclass(frozen=True, kw_only=True)
class Called:
    """What came of one call. `error` is a function error's kind or the name of an API error; times in seconds."""

    payload: Any
    error: str
    elapsed: float


class ManagedFunction(Function):
    """One published version."""

    def __init__(self, server: TorporServer, name: str, version: str) -> None:
        super().__init__(server, name)
        self.version = version

    def call(self, event: Any = None) -> Called:
        """Run it once; refusals are results."""
        sent = time.time()
        try:
            answer = self.server.client.invoke(
                FunctionName=self.name, Qualifier=self.version, Payload=json.dumps({} if event is None else event)
            )
        except ClientError as error:
            return Called(payload=None, error=error.response["Error"]["Code"], elapsed=time.time() - sent)
        payload = json.loads(answer["Payload"].read())
        return Called(payload=payload, error=answer.get("FunctionError", ""), elapsed=time.time() - sent)

    def begin(self, event: Any = None) -> Future[Called]:
        """Run it once while the test goes on."""
        return self.server.submit(lambda: self.call(event))

    def together(self, *events: Any) -> list[Called]:
        """Run these at once."""
        return [running.result() for running in [self.begin(event) for event in events]]

    def scale(self, minimum: int, maximum: int) -> None:
        bounds = {"MinExecutionEnvironments": minimum, "MaxExecutionEnvironments": maximum}
        self.server.client.put_function_scaling_config(
            FunctionName=self.name, Qualifier=self.version, FunctionScalingConfig=bounds
        )

    def state(self) -> str:
        shown = self.server.client.get_function_configuration(FunctionName=self.name, Qualifier=self.version)
        return str(shown["State"])


def provider(server: TorporServer, name: str = "host") -> str:
    """The ARN of a capacity provider that stands for this host."""
    client = server.client
    try:
        made = client.create_capacity_provider(
            CapacityProviderName=name,
            VpcConfig=VPC,
            PermissionsConfig={"CapacityProviderOperatorRoleArn": ROLE},
        )
    except client.exceptions.ResourceConflictException:
        made = client.get_capacity_provider(CapacityProviderName=name)
    return str(made["CapacityProvider"]["CapacityProviderArn"])


@contextmanager
def managed(
    server: TorporServer,
    package: Package,
    *,
    concurrency: int = 4,
    minimum: int = 1,
    maximum: int = 1,
    wait: bool = True,
    **configuration: Any,
) -> Iterator[ManagedFunction]:
    """A published version with so many environments; deleted at the end."""
    name = f"managed-{uuid.uuid4().hex[:12]}"
    instances = {"CapacityProviderArn": provider(server), "PerExecutionEnvironmentMaxConcurrency": concurrency}
    server.client.create_function(
        FunctionName=name,
        Role=ROLE,
        Runtime=package.runtime,
        Handler=package.handler,
        Code={"ZipFile": package.archive},
        CapacityProviderConfig={"LambdaManagedInstancesCapacityProviderConfig": instances},
        **{"Timeout": 20, "MemorySize": MEMORY_MB, **configuration},
    )
    try:
        published = server.client.publish_version(FunctionName=name)
        function = ManagedFunction(server, name, published["Version"])
        function.scale(minimum, maximum)
        if wait:
            eventually(lambda: function.state() == "Active", within=60.0, what=f"{name} becoming active")
            eventually(lambda: len(function.environments()) <= maximum, what=f"{name} shrinking to its maximum")
        yield function
    finally:
        server.client.delete_function(FunctionName=name)
