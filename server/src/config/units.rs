//! Durations and sizes as people write them: "50ms", "1.5s", "24h"; "64MiB".

use std::{fmt, marker::PhantomData, time::Duration};

use serde::{Deserialize, Deserializer, de};

/// A [`Duration`] written as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

/// A number of bytes written as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) u64);

/// Splits "1.5s" into thousandths of the number and the unit.
fn split(text: &str) -> Option<(u64, &str)> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(unit_at);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if fraction.is_empty() || fraction.len() > 3 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let thousandths = format!("{fraction:0<3}").parse::<u64>().ok()?;
    Some((whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(thousandths)?, unit.trim_start()))
}

pub(super) trait FromText: Sized {
    const EXPECTED: &'static str;
    fn from_text(text: &str) -> Option<Self>;
}

impl FromText for Span {
    const EXPECTED: &'static str = "a duration with its unit (ms, s, m, h), such as \"50ms\" or \"1.5s\"";

    fn from_text(text: &str) -> Option<Self> {
        let (thousandths, unit) = split(text.trim())?;
        let unit_us = match unit {
            "ms" => 1_u64,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        Some(Self(Duration::from_micros(thousandths.checked_mul(unit_us)?)))
    }
}

impl FromText for Bytes {
    const EXPECTED: &'static str = "a size with its unit (B, KiB, MiB, GiB), such as \"64MiB\"";

    fn from_text(text: &str) -> Option<Self> {
        let (thousandths, unit) = split(text.trim())?;
        let unit = match unit {
            "B" => 1_u64,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return None,
        };
        Some(Self(thousandths.checked_mul(unit)? / 1000))
    }
}

struct Text<T>(PhantomData<T>);

impl<T: FromText> de::Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        T::from_text(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        let ms = |text| Span::from_text(text).map(|span| span.0.as_millis());
        assert_eq!(ms("50ms"), Some(50));
        assert_eq!(ms("1.5s"), Some(1500));
        assert_eq!(ms("2m"), Some(120_000));
        assert_eq!(ms("24h"), Some(86_400_000));
        assert_eq!(ms("1 s"), Some(1000));
        for wrong in ["", "50", "ms", "-1s", "1.s", "1..2s", "1.2345s", "5 weeks", "99999999999999999999s", "18446744073709551615h"] {
            assert_eq!(ms(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn sizes_read_as_people_write_them() {
        assert_eq!(Bytes::from_text("64MiB"), Some(Bytes(64 << 20)));
        assert_eq!(Bytes::from_text("1.5KiB"), Some(Bytes(1536)));
        assert_eq!(Bytes::from_text("64MB"), None);
    }
}
