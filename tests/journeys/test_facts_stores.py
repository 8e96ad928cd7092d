"""Required facts about what outlives an environment: state that functions fetch from, and leave in, durable stores."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import boto3
import pytest
from tests.journeys.conftest import Deploy, MakeServer
from tests.support.functions import BOOT
from tests.support.objects import PLAIN, object_store, with_boto3
from tests.support.server import Function, TorporServer

Client = Callable[[str], Any]
CARTS, RESULTS, ORDERS = "carts", "results", "orders"

READS = (
    BOOT
    + """
import boto3
carts = boto3.resource("dynamodb").Table(os.environ["CARTS"])

def read():
    return carts.get_item(Key={"owner": "ada"})["Item"]["contents"]

LOADED = read()

def handler(event, context):
    return {"boot": BOOT, "endpoint": os.environ["AWS_ENDPOINT_URL"], "loaded": LOADED, "read": read()}
"""
)
WRITES = (
    BOOT
    + """
import boto3
s3, sqs, dynamodb = map(boto3.client, ("s3", "sqs", "dynamodb"))
queue = sqs.get_queue_url(QueueName="orders")["QueueUrl"]

def handler(event, context):
    if event.get("write"):
        s3.put_object(Bucket="results", Key="receipt", Body=BOOT)
        dynamodb.put_item(TableName="carts", Item={"owner": {"S": "grace"}, "contents": {"S": BOOT}})
        sqs.send_message(QueueUrl=queue, MessageBody=BOOT)
        return {"boot": BOOT}
    item = dynamodb.get_item(TableName="carts", Key={"owner": {"S": "grace"}})["Item"]
    return {
        "boot": BOOT,
        "object": s3.get_object(Bucket="results", Key="receipt")["Body"].read().decode(),
        "item": item["contents"]["S"],
        "messages": [message["Body"] for message in sqs.receive_message(QueueUrl=queue)["Messages"]],
    }
"""
)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with object_store() as address:
        yield address


@pytest.fixture(scope="module")
def stores(make_server: MakeServer, endpoint: str) -> TorporServer:
    """A server whose functions are told where the stores are; they have a table, a bucket and a queue."""
    with closing(_client(endpoint, "dynamodb")) as dynamodb:
        dynamodb.create_table(
            TableName=CARTS,
            KeySchema=[{"AttributeName": "owner", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "owner", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
    with closing(_client(endpoint, "s3")) as s3:
        s3.create_bucket(Bucket=RESULTS)
    with closing(_client(endpoint, "sqs")) as sqs:
        sqs.create_queue(QueueName=ORDERS)
    return make_server(aws_endpoint_url=endpoint, pass_endpoint_url=True)


def _client(endpoint: str, service: str) -> Any:
    return boto3.client(service, endpoint_url=endpoint, **PLAIN)


def _fill_cart(endpoint: str, contents: str) -> None:
    with closing(_client(endpoint, "dynamodb")) as dynamodb:
        dynamodb.put_item(TableName=CARTS, Item={"owner": {"S": "ada"}, "contents": {"S": contents}})


def _answer(function: Function, event: dict[str, Any] | None = None) -> dict[str, Any]:
    reply = function.invoke(event)
    assert not reply.error, reply.payload
    payload: dict[str, Any] = reply.payload
    return payload


@pytest.mark.fact("L-086")
def test_state_is_fetched_from_a_table_when_the_module_is_loaded_and_in_the_handler(
    deploy: Deploy, stores: TorporServer, endpoint: str
) -> None:
    _fill_cart(endpoint, "one book")
    package = with_boto3(READS, "dynamodb")
    function = deploy(package, on=stores, MemorySize=512, Environment={"Variables": {"CARTS": CARTS}})

    cold = _answer(function)
    _fill_cart(endpoint, "two books")
    warm = _answer(function)
    function.recycle()
    cold_again = _answer(function)

    assert (cold["loaded"], cold["read"]) == ("one book", "one book")
    assert (warm["boot"], warm["loaded"], warm["read"]) == (cold["boot"], "one book", "two books")
    assert cold_again["boot"] != cold["boot"]
    assert (cold_again["loaded"], cold_again["read"]) == ("two books", "two books")


@pytest.mark.fact("L-087")
def test_what_was_put_into_durable_stores_is_there_after_the_environment_has_ended(
    deploy: Deploy, stores: TorporServer, endpoint: str
) -> None:
    function = deploy(with_boto3(WRITES, "s3", "sqs", "dynamodb"), on=stores, MemorySize=512)

    written = _answer(function, {"write": True})["boot"]
    function.recycle()
    read = _answer(function)

    assert read.pop("boot") != written
    assert read == {"object": written, "item": written, "messages": [written]}
    with closing(_client(endpoint, "s3")) as s3, closing(_client(endpoint, "dynamodb")) as dynamodb:
        assert s3.get_object(Bucket=RESULTS, Key="receipt")["Body"].read().decode() == written
        item = dynamodb.get_item(TableName=CARTS, Key={"owner": {"S": "grace"}})["Item"]
    assert item["contents"]["S"] == written
