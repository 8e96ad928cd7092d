"""A small event function."""


def handler(event, context):
    return event
