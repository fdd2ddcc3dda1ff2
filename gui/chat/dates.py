"""Short dates for lists and bubbles."""

from __future__ import annotations

from datetime import UTC, datetime

from PySide6.QtCore import QCoreApplication, QDateTime, QLocale

from gui.translation import fill


def short_date(seconds: float, now: datetime | None = None) -> str:
    """Return a time as a person would write it: only the time today, only the day long ago."""
    if not seconds:
        return ""
    then = datetime.fromtimestamp(seconds, UTC).astimezone()
    now = now or datetime.now(UTC).astimezone()
    locale = _locale()
    moment = QDateTime.fromSecsSinceEpoch(int(seconds))
    time = locale.toString(moment.time(), QLocale.FormatType.ShortFormat)
    days = (now.date() - then.date()).days
    if days == 0:
        return time
    if days == 1:
        return fill(QCoreApplication.translate("Dates", "Yesterday {time}"), time=time)
    chinese = locale.language() is QLocale.Language.Chinese
    if then.year == now.year:
        return locale.toString(moment.date(), "M月d日" if chinese else "d MMM")
    return locale.toString(moment.date(), "yyyy年M月d日" if chinese else "d MMM yyyy")


def long_date(seconds: float) -> str:
    """Return date and time."""
    moment = QDateTime.fromSecsSinceEpoch(int(seconds))
    return _locale().toString(moment, QLocale.FormatType.ShortFormat) if seconds else ""


def _locale() -> QLocale:
    """Return the locale of the window's language; the system's locale if that is the same."""
    system = QLocale.system()
    language = QCoreApplication.translate("Dates", "en", "the code of this language, for dates")
    named = QLocale(language)
    return system if system.language() is named.language() else named
