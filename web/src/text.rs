//! Sizes, times and states as people read them.

use jiff::{Timestamp, Zoned, tz::TimeZone};
use model::{Firmware, Size};
use service::{Now, StateWord};

/// A size in the unit that fits: `1.4 GB`.
pub(crate) fn bytes(n_bytes: u64) -> String {
    Size(n_bytes).to_string()
}

/// A duration: `0.4 s`, `23 s`, `4 min 10 s`.
pub(crate) fn duration_ms(ms: u64) -> String {
    match ms {
        0..=99 => format!("{ms} ms"),
        100..=9_949 => format!("{}.{} s", (ms + 50) / 1000, (ms + 50) % 1000 / 100),
        9_950..=99_499 => format!("{} s", (ms + 500) / 1000),
        _ => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000),
    }
}

/// A short duration: `64 µs`, `2 ms`, `1.1 s`.
pub(crate) fn duration_us(us: u64) -> String {
    if us < 1000 { format!("{us} µs") } else { duration_ms((us + 500) / 1000) }
}

/// How long ago: `just now`, `8 min ago`.
pub(crate) fn ago(unix_ms: u64, now: Now) -> String {
    let seconds = now.unix_ms.saturating_sub(unix_ms) / 1000;
    match seconds {
        0..=4 => "just now".to_owned(),
        5..=89 => format!("{seconds} s ago"),
        90..=5_399 => format!("{} min ago", (seconds + 30) / 60),
        5_400..=129_599 => format!("{} h ago", (seconds + 1800) / 3600),
        _ => format!("{} days ago", (seconds + 43_200) / 86_400),
    }
}

/// The moment, exactly, in the server's time zone.
pub(crate) fn exact(unix_ms: u64) -> String {
    match zoned(unix_ms) {
        Some(time) => time.strftime("%Y-%m-%d %H:%M:%S %Z").to_string(),
        None => "unknown".to_owned(),
    }
}

/// The clock: `08:02:11`.
pub(crate) fn clock(unix_ms: u64) -> String {
    zoned(unix_ms).map_or_else(String::new, |time| time.strftime("%H:%M:%S").to_string())
}

fn zoned(unix_ms: u64) -> Option<Zoned> {
    let time = Timestamp::from_millisecond(i64::try_from(unix_ms).ok()?).ok()?;
    Some(time.to_zoned(TimeZone::system()))
}

/// The sign of a state: never color alone.
pub(crate) const fn glyph(word: StateWord) -> &'static str {
    match word {
        StateWord::Up => "●",
        StateWord::Loading | StateWord::Starting => "◐",
        StateWord::Waiting | StateWord::Stuck => "▲",
        StateWord::Failed => "✕",
        StateWord::Local | StateWord::Off => "○",
    }
}

/// The style class of a state.
pub(crate) const fn class(word: StateWord) -> &'static str {
    match word {
        StateWord::Up => "ok",
        StateWord::Loading | StateWord::Starting => "busy",
        StateWord::Waiting | StateWord::Stuck => "warn",
        StateWord::Failed => "fail",
        StateWord::Local | StateWord::Off => "off",
    }
}

pub(crate) fn firmware(firmware: Option<Firmware>) -> String {
    firmware.map_or_else(|| "not known yet".to_owned(), |firmware| firmware.to_string())
}

/// `1 machine`, `2 machines`.
pub(crate) fn count(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::Moment;

    #[test]
    fn times_are_short() {
        let times = [40, 400, 9_940, 23_400, 250_000].map(duration_ms);
        assert_eq!(times, ["40 ms", "0.4 s", "9.9 s", "23 s", "4 min 10 s"]);
        let now = Now { unix_ms: 500_000, moment: Moment::default() };
        assert_eq!(ago(20_000, now), "8 min ago");
        assert_eq!(ago(u64::MAX, now), "just now");
        assert_eq!(exact(u64::MAX), "unknown");
    }
}
