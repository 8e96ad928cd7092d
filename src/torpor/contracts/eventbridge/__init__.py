"""The part of EventBridge's API that schedules need: translation, without sockets."""
