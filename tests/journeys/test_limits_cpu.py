"""CPU time: the server's own goes before that of functions."""

import os

from tests.journeys.conftest import Deploy
from tests.support.functions import python
from tests.support.server import TorporServer, needs_root

CODE = """
import os

def handler(event, context):
    return [os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)]
"""


@needs_root
def test_functions_do_not_inherit_the_preference_of_the_server(server: TorporServer, deploy: Deploy) -> None:
    assert os.getpriority(os.PRIO_PROCESS, server.process.pid) == -10
    assert deploy(python(CODE)).invoke().payload == [0, os.SCHED_OTHER]
