"""When rules with schedules go off: expressions against the calendar, and against a plain search by the day."""

from calendar import monthrange
from datetime import UTC, date, datetime, timedelta
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torpor.contracts.api_failure import ApiFailure
from torpor.contracts.eventbridge.schedule import check_expression, next_fire

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def planned(expression: str, after: str, count: int) -> list[str]:
    """The next times, to the minute; fewer if there are no more."""
    following, moment, found = next_fire(expression), at(after), list[str]()
    while len(found) < count and (later := following(moment)) is not None:
        assert later % MINUTE == 0
        found.append(datetime.fromtimestamp(later, UTC).strftime("%Y-%m-%d %H:%M"))
        moment = later
    return found


def days(expression: str, after: str, count: int) -> list[str]:
    return [moment.removesuffix(" 00:00") for moment in planned(f"cron(0 0 {expression})", after, count)]


def refused(expression: str) -> bool:
    with pytest.raises(ApiFailure) as error:
        next_fire(expression)
    return (error.value.code, str(error.value)) == ("ValidationException", "Parameter ScheduleExpression is not valid.")


@pytest.mark.parametrize(
    ("expression", "period"),
    [
        ("rate(1 minute)", MINUTE),
        ("rate(5 minutes)", 5 * MINUTE),
        ("rate(1 hour)", HOUR),
        ("rate(12 hours)", 12 * HOUR),
        ("rate(1 day)", DAY),
        ("rate(7 days)", 7 * DAY),
    ],
)
def test_a_rate_comes_one_period_later(expression: str, period: float) -> None:
    assert next_fire(expression)(1000.5) == 1000.5 + period


def test_a_rate_that_counts_from_a_moment_keeps_to_whole_periods_of_it() -> None:
    following = next_fire("rate(5 minutes)", 1000.5)

    assert [following(moment) for moment in (1000.5, 1200.0, 1300.4, 1300.5)] == [1300.5, 1300.5, 1300.5, 1600.5]
    assert following(1000.5 + 10 * DAY + 1.0) == 1300.5 + 10 * DAY


@pytest.mark.parametrize(
    "expression",
    [
        "rate(1 minutes)", "rate(1 hours)", "rate(1 days)", "rate(5 minute)", "rate(2 hour)", "rate(2 day)",
        "rate(0 minutes)", "rate(0 minute)", "rate(-5 minutes)", "rate(1.5 hours)", "rate(10 seconds)",
        "rate(10 years)", "rate()", "rate(10)", "rate(five minutes)", "rate(10 MINUTES)", "rate( 10 minutes )",
        " rate(10 minutes)", "rate(10 minutes) ", "rate(10minutes)", "rate(9999999999 minutes)", "rate(١ minute)",
        "Rate(1 minute)", "5 minutes", "", "every day", "at(2030-01-01T00:00:00)",
    ],
)  # fmt: skip
def test_what_is_no_rate_is_refused(expression: str) -> None:
    assert refused(expression)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("cron(0 10 * * ? *)", ["2024-05-01 10:00", "2024-05-02 10:00"]),
        ("cron(15 12 * * ? *)", ["2024-05-01 12:15", "2024-05-02 12:15"]),
        ("cron(0 18 ? * MON-FRI *)", ["2024-05-01 18:00", "2024-05-02 18:00", "2024-05-03 18:00", "2024-05-06 18:00"]),
        ("cron(0 8 1 * ? *)", ["2024-05-01 08:00", "2024-06-01 08:00"]),
        ("cron(0/15 * * * ? *)", ["2024-05-01 00:15", "2024-05-01 00:30"]),
        ("cron(50/5 9 * * ? *)", ["2024-05-01 09:50", "2024-05-01 09:55", "2024-05-02 09:50"]),
        ("cron(0 8-17/4 ? * 2-6 *)", ["2024-05-01 08:00", "2024-05-01 12:00", "2024-05-01 16:00"]),
        ("cron(0 0,6,18-19 * * ? *)", ["2024-05-01 06:00", "2024-05-01 18:00", "2024-05-01 19:00", "2024-05-02 00:00"]),
        ("cron( 05   09  * *  ?  * )", ["2024-05-01 09:05"]),
        ("cron(0 0 1 jan,Jul ? *)", ["2024-07-01 00:00", "2025-01-01 00:00"]),
        ("cron(0 0 1 */5 ? *)", ["2024-06-01 00:00", "2024-11-01 00:00", "2025-01-01 00:00"]),
    ],
)
def test_minutes_hours_and_months_come_true_in_utc(expression: str, expected: list[str]) -> None:
    assert planned(expression, "2024-05-01T00:00:00", len(expected)) == expected


def test_the_moment_itself_is_not_the_next_one() -> None:
    following = next_fire("cron(* * * * ? *)")

    assert following(at("2024-05-01T00:00:00")) == at("2024-05-01T00:01:00")
    assert following(at("2024-05-01T00:00:00") - 0.001) == at("2024-05-01T00:00:00")
    assert following(at("2024-05-01T00:00:59") + 0.999) == at("2024-05-01T00:01:00")


@pytest.mark.parametrize(("number", "name"), [*enumerate(("SUN", *WEEKDAYS[:6]), 1)])
def test_days_of_the_week_count_from_one_for_sunday(number: int, name: str) -> None:
    (day,) = days(f"? * {number} *", "2024-05-01T12:00:00", 1)

    assert WEEKDAYS[date.fromisoformat(day).weekday()] == name
    assert days(f"? * {name} *", "2024-05-01T12:00:00", 1) == [day]


def test_steps_over_days_of_the_week_start_at_their_day_and_end_with_the_week() -> None:
    assert days("? * 2/2 *", "2024-05-04T12:00:00", 4) == ["2024-05-06", "2024-05-08", "2024-05-10", "2024-05-13"]
    assert days("? * */3 *", "2024-05-04T12:00:00", 4) == ["2024-05-05", "2024-05-08", "2024-05-11", "2024-05-12"]


def test_months_without_the_day_are_passed_over() -> None:
    assert days("31 * ? *", "2024-01-01T00:00:00", 3) == ["2024-01-31", "2024-03-31", "2024-05-31"]
    assert days("29 2 ? *", "2094-01-01T00:00:00", 3) == ["2096-02-29", "2104-02-29", "2108-02-29"]
    assert days("29-31 2,4 ? *", "2023-01-01T00:00:00", 3) == ["2023-04-29", "2023-04-30", "2024-02-29"]


def test_the_last_day_of_a_month_is_its_own_in_leap_years_too() -> None:
    assert days("L * ? *", "2024-01-15T00:00:00", 3) == ["2024-01-31", "2024-02-29", "2024-03-31"]
    assert days("L 2 ? *", "2024-03-01T00:00:00", 2) == ["2025-02-28", "2026-02-28"]


def test_the_last_weekday_of_a_month_is_no_weekend() -> None:
    assert days("LW * ? *", "2024-03-01T00:00:00", 3) == ["2024-03-29", "2024-04-30", "2024-05-31"]
    assert days("LW * ? *", "2024-06-01T00:00:00", 1) == ["2024-06-28"]


def test_the_nearest_weekday_stays_within_its_month() -> None:
    assert days("15W * ? 2024", "2024-05-16T00:00:00", 3) == ["2024-06-14", "2024-07-15", "2024-08-15"]
    assert days("16W 6 ? *", "2024-01-01T00:00:00", 1) == ["2024-06-17"]
    assert days("1W 6,9 ? 2024", "2024-01-01T00:00:00", 2) == ["2024-06-03", "2024-09-02"]
    assert days("31W * ? 2024", "2024-01-01T00:00:00", 4) == ["2024-01-31", "2024-03-29", "2024-05-31", "2024-07-31"]
    assert days("29W 2 ? *", "2024-03-01T00:00:00", 2) == ["2028-02-29", "2032-02-27"]


def test_the_last_of_a_day_of_the_week_and_the_week_itself() -> None:
    assert days("? * 6L *", "2024-05-01T00:00:00", 2) == ["2024-05-31", "2024-06-28"]
    assert days("? * FRIL *", "2024-05-01T00:00:00", 2) == ["2024-05-31", "2024-06-28"]
    assert days("? * L *", "2024-05-01T00:00:00", 2) == ["2024-05-04", "2024-05-11"]


def test_the_nth_of_a_day_of_the_week() -> None:
    assert days("? * 3#2 *", "2024-05-01T00:00:00", 2) == ["2024-05-14", "2024-06-11"]
    assert days("? * sun#5 *", "2024-05-01T00:00:00", 2) == ["2024-06-30", "2024-09-29"]
    assert days("? 2 2#5 *", "2024-01-01T00:00:00", 2) == ["2044-02-29", "2072-02-29"]


def test_years_bound_what_comes_and_are_stepped_over() -> None:
    assert days("1 1 ? 2030", "2024-01-01T00:00:00", 2) == ["2030-01-01"]
    assert days("1 1 ? 2024-2199/100", "2024-01-01T00:00:00", 3) == ["2124-01-01"]
    assert days("29 2 ? 2025-2030", "2024-03-01T00:00:00", 2) == ["2028-02-29"]
    assert planned("cron(59 23 31 12 ? *)", "2198-01-01T00:00:00", 3) == ["2198-12-31 23:59", "2199-12-31 23:59"]
    assert planned("cron(* * * * ? 2199)", "2024-01-01T00:00:00", 1) == ["2199-01-01 00:00"]


def test_moments_before_and_behind_all_years_have_an_answer() -> None:
    following = next_fire("cron(0 0 * * ? *)")

    assert following(-(10.0**12)) == following(-0.5) == 0.0
    assert following(10.0**15) is None
    assert following(at("2199-12-31T00:00:00")) is None


@pytest.mark.parametrize(
    "fields",
    [
        "0 12 * * * *", "0 12 ? * ? *", "0 12 1 * MON *", "0 12 1 * * *", "0 12 * * ?", "0 12 * * ? * *", "",
        "60 * * * ? *", "* 24 * * ? *", "* * 0 * ? *", "* * 32 * ? *", "* * * 0 ? *", "* * * 13 ? *",
        "* * ? * 0 *", "* * ? * 8 *", "* * * * ? 1969", "* * * * ? 2200", "* * * * ? 20300",
        "? * * * ? *", "* ? * * ? *", "* * * ? ? *", "* * * * ? ?", "*/0 * * * ? *", "5-1 * * * ? *",
        "0 22-2 * * ? *", "*-5 * * * ? *", "1,,2 * * * ? *", ", * * * ? *", "1- * * * ? *", "-1 * * * ? *",
        "1/ * * * ? *", "/5 * * * ? *", "x * * * ? *", "* * * FOO ? *", "* * ? * FOO *", "* * MON * ? *",
        "L * * * ? *", "* * L-3 * ? *", "* * 1,L * ? *", "* * W * ? *", "* * 0W * ? *", "* * 32W * ? *",
        "* * 1,15W * ? *", "* * 1-5W * ? *", "* * ? * 2W *", "* * ? * 3#0 *", "* * ? * 3#6 *", "* * ? * 8#1 *",
        "* * ? * 3#1,6#3 *", "* * ? * 3#1#1 *", "* * ? * 0L *", "* * ? * 2L,3L *", "* * 1#1 * ? *", "* * * L ? *",
        "٣ * * * ? *",
    ],
)  # fmt: skip
def test_what_is_no_cron_expression_is_refused(fields: str) -> None:
    assert refused(f"cron({fields})")


@pytest.mark.parametrize(
    "fields", ["0 0 30 2 ? *", "0 0 31 4,6 ? *", "0 0 30W 2 ? *", "0 0 29 2 ? 2023", "0 0 29W 2 ? 2100"]
)
def test_an_expression_that_never_comes_true_is_refused(fields: str) -> None:
    assert refused(f"cron({fields})")


def test_an_expression_that_does_not_come_true_any_more_is_refused_from_then_on() -> None:
    check_expression("cron(0 0 1 1 ? 2024)", at("2023-12-31T23:59:59"))
    check_expression("rate(1 minute)", at("2024-01-01T00:00:00"))

    with pytest.raises(ApiFailure, match="Parameter ScheduleExpression is not valid"):
        check_expression("cron(0 0 1 1 ? 2024)", at("2024-01-01T00:00:00"))


numbers = st.integers(1, 28)
minutes = st.sampled_from(["*", "0", "59", "0/7", "*/20", "5-10", "1,2,40-50/5"])
hours = st.sampled_from(["*", "0", "23", "8-17", "1/5", "0,12"])
month_days = st.one_of(
    st.sampled_from(["*", "L", "LW", "1W", "30W", "31W", "31", "29-31", "*/9"]),
    numbers.map("{}W".format),
    st.lists(numbers, min_size=1, max_size=3).map(lambda found: ",".join(map(str, found))),
)
week_days = st.one_of(
    st.sampled_from(["*", "L", "MON-FRI", "1,7", "3/2", "SAT"]),
    st.integers(1, 7).map("{}L".format),
    st.builds("{}#{}".format, st.integers(1, 7), st.integers(1, 5)),
)
months = st.sampled_from(["*", "1,3,5", "JAN-JUL", "4/3", "12", "2,3"])
years = st.sampled_from(["*", "2020-2199", "2020/3", "2024,2027,2031,2040", "2000/4"])
day_fields = st.one_of(month_days.map(lambda days: (days, "?")), week_days.map(lambda days: ("?", days)))
crons = st.builds(
    lambda minute, hour, day, month, year: f"cron({minute} {hour} {day[0]} {month} {day[1]} {year})",
    minutes, hours, day_fields, months, years,
)  # fmt: skip
rates = st.sampled_from(["rate(1 minute)", "rate(5 minutes)", "rate(1 hour)", "rate(36 hours)", "rate(1 day)"])
moments = st.one_of(st.floats(at("1960-01-01"), at("2210-01-01")), st.integers(0, 2**32).map(float))


@settings(max_examples=400)
@given(st.one_of(crons, rates), st.one_of(st.none(), moments), moments, moments)
def test_the_next_time_is_strictly_later_and_never_earlier_for_a_later_moment(
    expression: str, since: float | None, one: float, other: float
) -> None:
    following = next_fire(expression, since)
    earlier, later = sorted((one, other))
    first, second = following(earlier), following(later)

    assert first is None or first > earlier
    assert second is None or (second > later and first is not None and first <= second)
    if first is not None and first > later:
        assert first == second or (since is None and "rate" in expression), "both wait for the same"


@settings(max_examples=150)
@given(day_fields, months, st.dates(date(2019, 12, 1), date(2035, 1, 1)))
def test_days_are_those_that_a_search_by_the_calendar_finds(day: tuple[str, str], month: str, start: date) -> None:
    found = days(f"{day[0]} {month} {day[1]} *", f"{start}T00:00:00", 4)

    calendar = (start + timedelta(days=later) for later in range(1, 12_000))
    wanted = (each for each in calendar if _in_month(each, month) and _is_meant(each, *day))
    assert found == [each.isoformat() for each in islice(wanted, 4)]


def _in_month(day: date, field: str) -> bool:
    meant = {"*": range(1, 13), "1,3,5": (1, 3, 5), "JAN-JUL": range(1, 8), "4/3": (4, 7, 10), "12": (12,)}
    return day.month in meant.get(field, (2, 3))


def _is_meant(day: date, of_month: str, of_week: str) -> bool:
    if of_week == "?":
        return _is_day_of_month(day, of_month)
    number, last = day.isoweekday() % 7 + 1, monthrange(day.year, day.month)[1]
    named = {"*": range(1, 8), "L": (7,), "MON-FRI": range(2, 7), "1,7": (1, 7), "3/2": (3, 5, 7), "SAT": (7,)}
    if of_week in named:
        return number in named[of_week]
    if of_week.endswith("L"):
        return number == int(of_week[0]) and day.day + 7 > last
    return number == int(of_week[0]) and (day.day - 1) // 7 + 1 == int(of_week[2])


def _is_day_of_month(day: date, field: str) -> bool:
    last = monthrange(day.year, day.month)[1]
    if field == "L":
        return day.day == last
    if field == "LW":
        return day.day == max(each for each in range(1, last + 1) if day.replace(day=each).weekday() < 5)
    if field.endswith("W"):
        wanted = int(field[:-1])
        weekdays = [each for each in range(1, last + 1) if day.replace(day=each).weekday() < 5]
        # Of a Saturday the day before is nearer, of a Sunday the day after: never are both equally near.
        return wanted <= last and day.day == min(weekdays, key=lambda each: abs(each - wanted))
    listed = {"*": range(1, 32), "29-31": range(29, 32), "*/9": range(1, 32, 9)}
    return day.day in (listed[field] if field in listed else map(int, field.split(",")))
