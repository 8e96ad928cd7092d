"""Queues of a service that speaks as SQS does, as the tests of asynchronous results use them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from tests.support.objects import PLAIN
from tests.support.server import eventually


class ResultQueue:
    """One queue; what is read from it is gone."""

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._url = client.create_queue(QueueName=name)["QueueUrl"]
        attributes = client.get_queue_attributes(QueueUrl=self._url, AttributeNames=["QueueArn"])["Attributes"]
        self.arn: str = attributes["QueueArn"]

    def messages(self, number: int = 1) -> list[str]:
        """What it has got, once there is so much."""
        found: list[str] = []

        def received() -> list[str]:
            for message in self._client.receive_message(QueueUrl=self._url, MaxNumberOfMessages=10).get("Messages", ()):
                found.append(message["Body"])
                self._client.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
            return found if len(found) >= number else []

        return eventually(received, within=20, what=f"{number} messages of {self.arn}")

    def records(self, number: int = 1) -> list[Any]:
        """The same, as the JSON that they are."""
        return [json.loads(message) for message in self.messages(number)]


@contextmanager
def result_queue(endpoint: str, name: str) -> Iterator[ResultQueue]:
    """A new queue of the service at this address."""
    client = boto3.client("sqs", endpoint_url=endpoint, **PLAIN)
    try:
        yield ResultQueue(client, name)
    finally:
        client.close()
