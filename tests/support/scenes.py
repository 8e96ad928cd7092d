"""Scenes in which a runtime and its extensions make every call of their APIs, in and out of turn.

A scene is short where it can be: whatever ends an environment has one of its own.
"""

from collections.abc import Mapping

from tests.support.scripted import Scene, script

SERVES = """
    while True:
        respond(ask())
"""
LISTENS = """
    while (told := event_next(me)).status == 200 and "SHUTDOWN" not in told.body:
        pass
"""
WATCHES = script("me = register()\n", LISTENS)
QUIET = """me = register(body='{"events":[],"more":1}', Lambda_Extension_Accept_Feature="other")\n"""
TYPE = "Lambda_Extension_Function_Error_Type='Extension.Own'"
OWN = """'{"errorMessage":"own words","errorType":"Own"}'"""
UNKNOWN = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"

_RUNTIME = {
    "paths and methods": Scene(
        runtime="""
            get("ping", "/2018-06-01/ping")
            get("ping without a version", "/ping")
            get("no such path", RUNTIME + "nothing")
            get("no such version", "/2017-06-01/runtime/invocation/next")
            get("no such extension path", EXTENSION + "nothing")
            get("restore/next without snapshots", RUNTIME + "restore/next")
            post("restore/error without snapshots", RUNTIME + "restore/error")
            get("credentials without snapshots", "/2021-04-23/credentials")
            post("next by POST", RUNTIME + "invocation/next", "{}")
            get("response by GET", RUNTIME + "invocation/some/response")
            call("error by PUT", "PUT", RUNTIME + "invocation/some/error", "{}", {})
            get("init/error by GET", RUNTIME + "init/error")
            get("register by GET", EXTENSION + "register")
            post("event/next by POST", EXTENSION + "event/next")
            respond(ask())
            ask()
        """
    ),
    "answers in and out of turn": Scene(
        invocations=2,
        runtime="""
            respond(Answer(), what="response before any event")
            fail(Answer(), what="error before any event")
            event = ask()
            ask("next while running")
            respond(Answer(), what="response with a wrong id")
            fail(Answer(), what="error with a wrong id")
            respond(Answer(headers={"lambda-runtime-aws-request-id": ""}), what="response without an id")
            post("init/error while running", RUNTIME + "init/error", "{}")
            respond(event, '{"a":1}')
            respond(event, what="response twice")
            fail(event, what="error after the response")
            post("init/error after the response", RUNTIME + "init/error", "{}")
            before, event = event, ask()
            respond(before, what="response to the last event")
            fail(event, OWN)
            fail(event, what="error twice")
            respond(event, what="response after the error")
            ask()
        """.replace("OWN", OWN),
    ),
    "forms of answers": Scene(
        invocations=7,
        runtime="""
            TYPE = "Lambda_Runtime_Function_Error_Type"
            fail(ask(), OWN, "error with a type", **{TYPE: "Function.Own"})
            fail(ask(), "plain words", "error with a bad type", **{TYPE: "own"})
            fail(ask(), "", "error without words", Lambda_Runtime_Function_XRay_Error_Cause="no JSON")
            respond(ask(), '"text"', Content_Type="application/unknown")
            respond(ask(), "")
            stream(ask(), ["in ", "pieces"])
            stream(ask(), [], what="streaming nothing")
            ask()
        """.replace("OWN", OWN),
    ),
    "too large an answer": Scene(
        runtime="""
            event = ask()
            respond(event, "x" * 6291557)
            respond(event, what="response after it")
            ask()
        """,
    ),
    "unknown response mode": Scene(
        timeout=1,
        runtime="""
            event = ask()
            respond(event, Lambda_Runtime_Function_Response_Mode="buffered")
            respond(event, what="response after it")
            fail(event, what="error after it")
            ask("next after it")
        """,
    ),
    "streamed error": Scene(
        runtime="""
            behind = {"Type": "Function.Own", "Body": "eyJlcnJvclR5cGUiOiJPd24ifQ=="}
            lines = [f"Lambda-Runtime-Function-Error-{name}: {value}\\r\\n" for name, value in behind.items()]
            announced = "Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body"
            stream(ask(), ["half"], "0\\r\\n" + "".join(lines) + "\\r\\n", Trailer=announced)
            ask()
        """,
    ),
    "streamed answer broken off": Scene(
        timeout=1,
        runtime="""
            stream(ask(), ["half"], None)
            time.sleep(0.2)
            ask("next after it")
        """,
    ),
    "answer shorter than announced": Scene(
        timeout=1,
        runtime="""
            event = ask()
            path = f"{RUNTIME}invocation/{event.id}/response"
            api = sent("POST", path, {"Content-Length": 100}, "half")
            api.shutdown(_socket.SHUT_WR)
            try:
                tell("response", received(api))
            except OSError:
                tell("response", Answer(body="broken off"))
            respond(event, what="response after it")
            ask("next after it")
        """,
    ),
    "two requests for work": Scene(
        invocations=2,
        runtime="""
            import queue
            events = queue.SimpleQueue()
            for _ in range(2):
                beside(lambda: events.put(ask()))
            time.sleep(0.1)
            signal_that("asked")
            respond(events.get())
            beside(lambda: events.put(ask()))
            respond(events.get())
            ask()
        """,
        extensions={"slow": script('me = register(body="{}")\nwait_until("asked")\n', LISTENS)},
    ),
    "calls while work is awaited": Scene(
        runtime="""
            def calls():
                time.sleep(0.1)
                respond(Answer(), what="response while it waits")
                fail(Answer(), what="error while it waits")
                post("init/error while it waits", RUNTIME + "init/error")
                signal_that("called")
            others = beside(calls)
            event = ask()
            others.join()
            respond(event)
            ask()
        """,
        extensions={"slow": script('me = register(body="{}")\nwait_until("called")\n', LISTENS)},
    ),
    "init/error": Scene(
        runtime="""
            TYPE = "Lambda_Runtime_Function_Error_Type"
            post("init/error", RUNTIME + "init/error", OWN, **{TYPE: "Function.Own"})
            post("init/error twice", RUNTIME + "init/error")
            ask("next after it")
            respond(Answer(), what="response after it")
            sys.exit(1)
        """.replace("OWN", OWN),
    ),
    "init/error without words": Scene(runtime='post("init/error", RUNTIME + "init/error")\nsys.exit(1)'),
    "good end in Init": Scene(runtime="sys.exit(0)"),
    "bad end in Init": Scene(runtime="sys.exit(3)"),
    "good end": Scene(runtime="ask()\nsys.exit(0)", invocations=2),
    "bad end": Scene(runtime="ask()\nsys.exit(3)"),
    "killed": Scene(runtime="ask()\nos.kill(os.getpid(), 9)"),
    "end after the response": Scene(runtime="respond(ask())\nsys.exit(3)", invocations=2),
    "time-out": Scene(runtime="ask()\ntime.sleep(9)", timeout=1),
    "no bootstrap": Scene(runtime=""),
    "bootstrap without its interpreter": Scene(runtime="#!/var/none\n"),
}
_EXTENSIONS = {
    "registrations": Scene(
        runtime=SERVES,
        extensions={
            "watcher": script(
                """
                register("without a name", None)
                register("with an empty name", "")
                register("bad JSON", body="{")
                register("no body", body="")
                register("no object", body="[]")
                register("no list", body='{"events":"INVOKE"}')
                register("no such event", body='{"events":["OTHER"]}')
                register("old keys", body='{"events":[],"configurationKeys":["key"]}')
                me = register(Lambda_Extension_Accept_Feature="accountId, other")
                register("twice")
                event_next(me)
                register("late")
                register("late, under another name", "other", "{}")
                register("late, with an event that it cannot have", "other")
                """,
                LISTENS,
            ),
            "quiet": script(QUIET, LISTENS),
            "last": script("""me = register(body='{"events":["SHUTDOWN"]}')\n""", LISTENS),
        },
    ),
    "identifiers": Scene(
        runtime=SERVES,
        extensions={
            "watcher": script(
                f"""
                for name, one in (("no", None), ("a bad", "no-uuid"), ("an unknown", "{UNKNOWN}")):
                    event_next(one, f"next with {{name}} identifier")
                    for kind in ("init", "exit"):
                        error(one, kind, f"{{kind}}/error with {{name}} identifier", {TYPE})
                        error(one, kind, f"{{kind}}/error with {{name}} identifier and no type")
                event_next("{UNKNOWN.replace("-", "")}", "next with an identifier without dashes")
                me = register()
                error(me, "init", "init/error without a type")
                error(me, "exit", "exit/error without a type")
                event_next(me.identifier.upper(), "next with the identifier in capitals")
                error(me, "init", "init/error after Init", {TYPE})
                """,
                LISTENS,
            )
        },
    ),
    "two requests for events": Scene(
        runtime=script('wait_until("asked")\n', SERVES),
        extensions={
            "watcher": script(
                """
                me = register()
                first = beside(event_next, me)
                time.sleep(0.2)
                event_next(me, "event beside")
                signal_that("asked")
                first.join()
                """,
                LISTENS,
            )
        },
    ),
    "internal extensions": Scene(
        runtime="""
            register("with an event that it cannot have", "inner")
            INVOKE = '{"events":["INVOKE"]}'
            me = register("register", "inner", INVOKE, Lambda_Extension_Accept_Feature="accountId")
            register("twice", "inner", INVOKE)
            others = [register(name, name, "{}") for name in map("inner {}".format, range(1, 11))]
            for other in others[:9]:
                beside(event_next, other)
            told = beside(event_next, me, "event")
            event = ask()
            told.join()
            register("late", "later", "{}")
            register("late and twice", "inner", INVOKE)
            respond(event)
            beside(event_next, me, "event")
            ask()
        """,
    ),
    "init/error of an extension": Scene(
        runtime=SERVES,
        extensions={
            "watcher": f"""
                me = register()
                error(me, "init", "init/error", {OWN}, {TYPE})
                event_next(me, "next after it")
                error(me, "init", "init/error twice", "", {TYPE})
                error(me, "exit", "exit/error after it", "", {TYPE})
                sys.exit(1)
            """
        },
    ),
    "exit/error of an extension": Scene(
        runtime="ask()\nsignal_that('asked')\ntime.sleep(9)",
        extensions={
            "watcher": f"""
                me = register()
                event_next(me)
                wait_until("asked")
                error(me, "exit", "exit/error", {OWN}, {TYPE})
                event_next(me, "next after it")
                error(me, "init", "init/error after it", "", {TYPE})
                error(me, "exit", "exit/error twice", "", {TYPE})
                sys.exit(1)
            """
        },
    ),
    "end of an extension in Init": Scene(runtime=SERVES, extensions={"watcher": "register()\nsys.exit(1)"}),
    "bad end of an extension": Scene(
        runtime="ask()\nsignal_that('asked')\ntime.sleep(9)",
        extensions={"watcher": "event_next(register())\nwait_until('asked')\nsys.exit(2)"},
    ),
    "good end of an extension": Scene(
        runtime="ask()\nsignal_that('asked')\ntime.sleep(9)",
        extensions={"watcher": "event_next(register())\nwait_until('asked')\nsys.exit(0)"},
    ),
    "extension without its interpreter": Scene(runtime=SERVES, extensions={"watcher": "#!/var/none\n"}),
    "events of a time-out": Scene(runtime="ask()\ntime.sleep(9)", timeout=1, extensions={"watcher": WATCHES}),
    "events of a crash": Scene(runtime="ask()\ntime.sleep(0.2)\nsys.exit(1)", extensions={"watcher": WATCHES}),
}
_MANAGED = {
    "managed: answers in and out of turn": Scene(
        workers=4,
        invocations=5,
        runtime="""
            respond(Answer(), what="response before any event")
            fail(Answer(), what="error before any event")
            event = ask()
            respond(Answer(), what="response with a wrong id")
            fail(Answer(), what="error with a wrong id")
            post("init/error while running", RUNTIME + "init/error", "{}")
            respond(event)
            respond(event, what="response twice")
            fail(event, what="error after the response")
            event = ask()
            fail(event, OWN)
            fail(event, what="error twice")
            respond(event, what="response after the error")
            event = ask()
            respond(event, Lambda_Runtime_Function_Response_Mode="buffered", what="response of an unknown mode")
            respond(event, what="response after that")
            event = ask()
            respond(event, "x" * 6291557, what="too large a response")
            respond(event, what="response after that")
            stream(ask(), ["in ", "pieces"])
            ask()
        """.replace("OWN", OWN),
    ),
    "managed: paths and methods": Scene(
        workers=4,
        runtime="""
            get("ping", "/2018-06-01/ping")
            get("no such path", RUNTIME + "nothing")
            get("restore/next", RUNTIME + "restore/next")
            post("next by POST", RUNTIME + "invocation/next")
            get("response by GET", RUNTIME + "invocation/some/response")
            get("register by GET", EXTENSION + "register")
            respond(ask())
            ask()
        """,
    ),
    "managed: late answer": Scene(
        workers=4,
        timeout=1,
        runtime="""
            event = ask()
            time.sleep(1.3)
            respond(event, what="late response")
            respond(event, what="late response again")
            ask()
        """,
    ),
    "managed: extensions": Scene(
        workers=4,
        runtime="""
            register("inner with an event", "inner", '{"events":["SHUTDOWN"]}')
            inner = register("inner", "inner", "{}")
            beside(event_next, inner)
            event = ask()
            register("late", "later", "{}")
            respond(event)
            ask()
        """,
        extensions={
            "watcher": script(
                """
                register("with INVOKE")
                register("with an unknown event", body='{"events":["OTHER"]}')
                register("bad JSON", body="{")
                me = register(body='{"events":["SHUTDOWN"]}', Lambda_Extension_Accept_Feature="accountId")
                register("twice", body='{"events":["SHUTDOWN"]}')
                """,
                LISTENS,
            )
        },
    ),
    "managed: bad end": Scene(workers=4, runtime="ask()\nsys.exit(3)"),
}
SCENES: Mapping[str, Scene] = _RUNTIME | _EXTENSIONS | _MANAGED
