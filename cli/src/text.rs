//! Durations, ages, times and pairs, to and from what people type and read.

use std::{borrow::Cow, time::Duration};

use jiff::{SpanRound, Timestamp, Unit};

/// `15s`, `500ms`, `1m30s`, `1.5h`, `2d`. A bare number is refused: seconds and milliseconds are confused too easily.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration: write 15s, 500ms, 1m30s, 2h or 1d");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut rest, mut total) = (text.trim(), 0.0_f64);
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(|| format!("{text:?} has no unit: write {text}s or {text}ms"))?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(&rest[digits..], |end| &rest[digits..digits + end]);
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => return Err(wrong()),
        };
        total += number * seconds;
        rest = &rest[digits + unit.len()..];
    }
    // Whole milliseconds are all the cluster keeps; this also takes the binary fraction out of 0.1s.
    Duration::try_from_secs_f64((total * 1_000.0).round() / 1_000.0).map_err(|_| wrong())
}

/// `key=value`, as `--label` takes it.
pub(crate) fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not KEY=VALUE")),
    }
}

/// As `acquire` prints it.
pub(crate) fn parse_token(text: &str) -> Result<u64, String> {
    text.parse().ok().filter(|token| *token > 0).ok_or_else(|| format!("{text:?} is no token: it is the number that acquire printed"))
}

/// `500ms`, `12.3s`, `5m12s`, `3h5m`, `2d4h`: enough to act on.
pub(crate) fn short(duration: Duration) -> String {
    let ms = duration.as_millis();
    let seconds = ms / 1_000;
    let pair = |big: u128, unit: &str, small: u128, sub: &str| if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{sub}") };
    match seconds {
        0 => format!("{ms}ms"),
        1..60 if ms % 1_000 < 100 => format!("{seconds}s"),
        1..60 => format!("{seconds}.{}s", ms % 1_000 / 100),
        60..3_600 => pair(seconds / 60, "m", seconds % 60, "s"),
        3_600..86_400 => pair(seconds / 3_600, "h", seconds / 60 % 60, "m"),
        _ => pair(seconds / 86_400, "d", seconds / 3_600 % 24, "h"),
    }
}

/// As kubectl's AGE column: one or two units, coarser with age.
pub(crate) fn age(from: Timestamp, now: Timestamp) -> String {
    let seconds = u64::try_from(now.as_second() - from.as_second()).unwrap_or(0);
    let pair = |big: u64, unit: &str, small: u64, sub: &str| if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{sub}") };
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => pair(minutes, "m", seconds % 60, "s"),
        _ if hours < 3 => format!("{minutes}m"),
        _ if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if days < 8 => pair(days, "d", hours % 24, "h"),
        _ if days < 730 => format!("{days}d"),
        _ => pair(days / 365, "y", days % 365, "d"),
    }
}

/// Of the wire. Nothing that a server sends makes this fail: what is no time is `None`.
pub(crate) fn timestamp(wire: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
    wire.and_then(|t| Timestamp::new(t.seconds, t.nanos).ok())
}

/// RFC 3339, to the second.
pub(crate) fn to_the_second(time: Timestamp) -> String {
    time.round(Unit::Second).unwrap_or(time).to_string()
}

/// Of the wire. Negative ones, and what is no duration, are none.
pub(crate) fn duration(wire: Option<&prost_types::Duration>) -> Option<Duration> {
    let nanos = |d: &prost_types::Duration| u32::try_from(d.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    wire.and_then(|d| Some(Duration::new(u64::try_from(d.seconds).ok()?, nanos(d)?)))
}

/// For the wire. What does not fit is as good as for ever.
pub(crate) fn wire(duration: Duration) -> prost_types::Duration {
    duration.try_into().unwrap_or(prost_types::Duration { seconds: i64::from(u32::MAX), nanos: 0 })
}

/// As proto3 JSON writes it: seconds, with as many decimals as there are.
pub(crate) fn json_duration(duration: Duration) -> String {
    let text = format!("{}.{:09}", duration.as_secs(), duration.subsec_nanos());
    format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
}

/// What may be sent to a terminal for a text that somebody else chose: control characters and those that turn the direction of writing are shown, not
/// sent. Holders, data and messages can have any.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    if !text.chars().any(steers) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if steers(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Does what [`shown`] does, line by line, and keeps the line breaks.
pub(crate) fn shown_lines(text: &str) -> String {
    text.split('\n').map(shown).collect::<Vec<_>>().join("\n")
}

/// C0, C1, line and paragraph separators, and Unicode's explicit directional formatting.
fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Between two times, for the HELD-FOR column.
pub(crate) fn between(from: Timestamp, to: Timestamp) -> String {
    let rounded = (to - from).round(SpanRound::new().largest(Unit::Second).smallest(Unit::Millisecond));
    let ms = rounded.ok().and_then(|span| span.total(Unit::Millisecond).ok()).unwrap_or(0.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what fits")]
    short(Duration::from_millis(ms.clamp(0.0, 1e15) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_and_not_sent() {
        assert_eq!(shown("plain é 😀"), "plain é 😀");
        assert_eq!(shown("a\u{1b}[2Kb\r\n\t\u{9b}\u{202e}\u{7}"), "a\\u{1b}[2Kb\\r\\n\\t\\u{9b}\\u{202e}\\u{7}");
        assert_eq!(shown_lines("a\u{1b}\nb"), "a\\u{1b}\nb");
    }

    #[test]
    fn durations_are_read_with_their_units() {
        let read = |text: &str| parse_duration(text).map(|d| d.as_millis());
        for (text, ms) in [("15s", 15_000), ("500ms", 500), ("1m30s", 90_000), ("1.5h", 5_400_000), ("0.1s", 100), ("2d", 172_800_000), ("0", 0)] {
            assert_eq!(read(text), Ok(ms), "{text}");
        }
        assert_eq!(read("15"), Err("\"15\" has no unit: write 15s or 15ms".into()));
        for text in ["", "s", "-1s", "1x", "1.2.3s", "1s ms", "99999999999999999999d", "1µs", "s15"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_written_short() {
        let write = |ms: u64| short(Duration::from_millis(ms));
        let all = [0, 999, 1_000, 12_345, 60_000, 312_000, 3_600_000, 11_100_000, 187_200_000].map(write);
        assert_eq!(all, ["0ms", "999ms", "1s", "12.3s", "1m", "5m12s", "1h", "3h5m", "2d4h"]);
        assert_eq!(json_duration(Duration::from_millis(1_500)), "1.5s");
        assert_eq!(json_duration(Duration::from_secs(100)), "100s");
    }

    #[test]
    fn ages_look_like_kubectls() {
        let now = Timestamp::from_second(2_000_000_000).unwrap();
        let write = |seconds: i64| age(Timestamp::from_second(2_000_000_000 - seconds).unwrap(), now);
        let all = [45, 119, 125, 900, 10_000, 11_100, 90_000, 200_000, 5 * 86_400, 40 * 86_400, 800 * 86_400, -5].map(write);
        assert_eq!(all, ["45s", "119s", "2m5s", "15m", "166m", "3h5m", "25h", "2d7h", "5d", "40d", "2y70d", "0s"]);
    }
}
