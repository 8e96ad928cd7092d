"""Small parts: how long functions and files may be."""

from statistics import median, quantiles

from tests.architecture.sources import sources

FUNCTION_MEDIAN = 10
FUNCTION_P90 = 35
FUNCTION_MAX = 80
FILE_USUAL = 400
FILE_MAX = 600
LONG_FILES_MAX = 0.05
"""Share of files that may be longer than usual."""


def _function_lengths() -> dict[str, int]:
    return {
        f"{source.name}:{function.lineno} {function.name}": (function.end_lineno or 0) - function.lineno + 1
        for source in sources()
        for function in source.functions()
    }


def _file_lengths() -> dict[str, int]:
    return {source.name: len(source.text.splitlines()) for source in sources()}


def test_functions_are_short_as_a_rule() -> None:
    lengths = list(_function_lengths().values())

    assert median(lengths) <= FUNCTION_MEDIAN
    assert quantiles(lengths, n=10)[-1] <= FUNCTION_P90


def test_no_function_is_too_long() -> None:
    assert {name: length for name, length in _function_lengths().items() if length > FUNCTION_MAX} == {}


def test_no_file_is_too_long() -> None:
    assert {name: length for name, length in _file_lengths().items() if length > FILE_MAX} == {}


def test_files_longer_than_usual_are_rare() -> None:
    lengths = _file_lengths()
    long = {name: length for name, length in lengths.items() if length > FILE_USUAL}

    assert len(long) <= LONG_FILES_MAX * len(lengths), long
