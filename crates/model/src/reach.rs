//! With which machines somebody may work, and when.

use crate::RoomName;
use crate::as_text::as_text;
use alloc::collections::BTreeSet;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;
use serde::de::{SeqAccess, Visitor};

/// How far somebody's right to work with machines reaches.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Reach {
    /// The rooms in which the machines are.
    pub rooms: Rooms,
    /// The hours in which he works with them; `None`: at any time.
    pub hours: Option<Hours>,
}

impl Reach {
    /// All machines, at any time.
    pub const EVERYWHERE: Self = Self { rooms: Rooms::All, hours: None };
}

/// Rooms in which somebody works with machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rooms {
    /// All, and machines that are in none.
    All,
    /// These alone; without any it is no machine at all.
    These(BTreeSet<RoomName>),
}

impl Rooms {
    /// What stands for all rooms in the API.
    const ALL: &str = "all";

    /// Whether what is in this room, or in none, is among what is in them.
    pub fn have(&self, room: Option<&RoomName>) -> bool {
        match (self, room) {
            (Self::All, _) => true,
            (Self::These(rooms), Some(room)) => rooms.contains(room),
            (Self::These(_), None) => false,
        }
    }

    /// Those that are among both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::All, rooms) | (rooms, Self::All) => rooms.clone(),
            (Self::These(ours), Self::These(theirs)) => Self::These(ours & theirs),
        }
    }
}

impl fmt::Display for Rooms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.pad("all rooms"),
            Self::These(rooms) if rooms.is_empty() => f.pad("no room"),
            Self::These(rooms) => {
                let names: Vec<&str> = rooms.iter().map(RoomName::as_str).collect();
                f.pad(&names.join(", "))
            }
        }
    }
}

impl FromIterator<RoomName> for Rooms {
    fn from_iter<I: IntoIterator<Item = RoomName>>(rooms: I) -> Self {
        Self::These(rooms.into_iter().collect())
    }
}

impl serde::Serialize for Rooms {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str(Self::ALL),
            Self::These(rooms) => serializer.collect_seq(rooms),
        }
    }
}

impl<'de> serde::Deserialize<'de> for Rooms {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;

        impl<'de> Visitor<'de> for Names {
            type Value = Rooms;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"all\", or a list of names of rooms")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Rooms, E> {
                match text {
                    Rooms::ALL => Ok(Rooms::All),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Rooms, A::Error> {
                let mut rooms = BTreeSet::new();
                while let Some(name) = names.next_element()? {
                    rooms.insert(name);
                }
                Ok(Rooms::These(rooms))
            }
        }

        deserializer.deserialize_any(Names)
    }
}

/// Hours of the week, by the clock on the wall: the same after it is set for summer. Displayed as `mon-fri 7:00-18:00, sat 8:00-12:00`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hours(Vec<Span>);

/// From one time of the day to another one, on some days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    first_day: usize,
    last_day: usize,
    /// Minutes since midnight.
    from: u16,
    /// The first minute that is not in it.
    until: u16,
}

/// A minute of the week, as the clock on the wall shows it. Displayed as `mon 7:05`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeekTime {
    day: usize,
    minute: u16,
}

/// The week begins on Monday (ISO 8601).
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

const DAY_MINUTES: u16 = 24 * 60;

/// A text does not say which hours are meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} can't be hours: {why}")]
pub struct BadHours {
    text: String,
    why: &'static str,
}

const FORM: &str = "use days and times like mon-fri 7:00-18:00, several with commas between";
const DAY: &str =
    "days are mon, tue, wed, thu, fri, sat and sun, one like sat, or several like mon-fri";
const TIME: &str = "times are from 0:00 to 24:00, with minutes, like 7:30";
const MIDNIGHT: &str = "the end must be later than the beginning; what goes on after midnight is two, like fri 20:00-24:00, sat 0:00-2:00";
const TOO_MANY: &str = "they are more than 14 parts";

impl Hours {
    /// Parts at most: two a day.
    const SPANS_MAX: usize = 14;

    /// Whether this minute is among them.
    pub fn have(&self, time: WeekTime) -> bool {
        self.0.iter().any(|span| span.has(time))
    }
}

impl Span {
    fn has(&self, time: WeekTime) -> bool {
        let is_day = match self.first_day <= self.last_day {
            true => (self.first_day..=self.last_day).contains(&time.day),
            // Around the end of the week.
            false => time.day >= self.first_day || time.day <= self.last_day,
        };
        is_day && (self.from..self.until).contains(&time.minute)
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let mut words = text.split_ascii_whitespace();
        let (Some(days), Some(times), None) = (words.next(), words.next(), words.next()) else {
            return Err(FORM);
        };
        let (first_day, last_day) = days.split_once('-').unwrap_or((days, days));
        let (from, until) = times.split_once('-').ok_or(FORM)?;
        let (first_day, last_day) = (day(first_day)?, day(last_day)?);
        let (from, until) = (minute(from)?, minute(until)?);
        if from >= until {
            return Err(MIDNIGHT);
        }
        Ok(Self { first_day, last_day, from, until })
    }
}

fn day(text: &str) -> Result<usize, &'static str> {
    DAYS.iter().position(|day| day.eq_ignore_ascii_case(text)).ok_or(DAY)
}

fn minute(text: &str) -> Result<u16, &'static str> {
    let number = |digits: &str| -> Option<u16> {
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let parts =
        text.split_once(':').filter(|(hours, minutes)| hours.len() <= 2 && minutes.len() == 2);
    let parts = parts.and_then(|(hours, minutes)| Some((number(hours)?, number(minutes)?)));
    let (hours, minutes) = parts.ok_or(TIME)?;
    let all = hours * 60 + minutes;
    if minutes < 60 && all <= DAY_MINUTES { Ok(all) } else { Err(TIME) }
}

impl FromStr for Hours {
    type Err = BadHours;

    fn from_str(text: &str) -> Result<Self, BadHours> {
        let refused = |why| BadHours { text: text.chars().take(64).collect(), why };
        if text.split(',').count() > Self::SPANS_MAX {
            return Err(refused(TOO_MANY));
        }
        text.split(',').map(Span::parse).collect::<Result<_, _>>().map(Self).map_err(refused)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(DAYS[self.first_day])?;
        if self.first_day != self.last_day {
            write!(f, "-{}", DAYS[self.last_day])?;
        }
        write!(f, " {}-{}", Clock(self.from), Clock(self.until))
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spans: Vec<String> = self.0.iter().map(Span::to_string).collect();
        f.pad(&spans.join(", "))
    }
}

as_text!(Hours);

/// Minutes since midnight, as a clock shows them.
struct Clock(u16);

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl WeekTime {
    /// Days since Monday, and minutes since midnight; `None`: no clock shows that.
    pub fn new(days: u8, minutes: u16) -> Option<Self> {
        let day = usize::from(days);
        (day < DAYS.len() && minutes < DAY_MINUTES).then_some(Self { day, minute: minutes })
    }
}

impl fmt::Display for WeekTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", DAYS[self.day], Clock(self.minute))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(text: &str) -> Hours {
        text.parse().unwrap()
    }

    fn at(text: &str) -> WeekTime {
        let (day_, time) = text.split_once(' ').unwrap();
        WeekTime::new(day(day_).unwrap() as u8, minute(time).unwrap()).unwrap()
    }

    #[test]
    fn hours_begin_with_their_first_minute_and_end_before_their_last() {
        let school = hours("mon-fri 7:00-18:00, sat 08:00-12:30");
        assert_eq!(school.to_string(), "mon-fri 7:00-18:00, sat 8:00-12:30");
        for (time, is_in) in [
            ("mon 6:59", false),
            ("mon 7:00", true),
            ("fri 17:59", true),
            ("fri 18:00", false),
            ("sat 12:29", true),
            ("sat 12:30", false),
            ("sun 9:00", false),
        ] {
            assert_eq!(school.have(at(time)), is_in, "{time}");
        }
        // Around the end of the week, and to the end of the day.
        let weekend = hours("FRI-Mon 20:00-24:00");
        for (time, is_in) in [
            ("fri 23:59", true),
            ("sun 20:00", true),
            ("mon 20:00", true),
            ("tue 20:00", false),
            ("thu 23:00", false),
        ] {
            assert_eq!(weekend.have(at(time)), is_in, "{time}");
        }
        let all = hours("mon-sun 0:00-24:00");
        assert!((0..7).all(|day| all.have(WeekTime::new(day, 1439).unwrap())));
        assert!(WeekTime::new(7, 0).is_none() && WeekTime::new(0, 1440).is_none());
    }

    #[test]
    fn what_are_no_hours_is_refused_with_what_to_write() {
        for (text, why) in [
            ("", FORM),
            ("7:00-18:00", FORM),
            ("mon-fri", FORM),
            ("mon-fri 7:00", FORM),
            ("mon-fri 7:00-18:00,", FORM),
            ("mon fri 7:00-18:00", FORM),
            ("weekdays 7:00-18:00", DAY),
            ("mon- 7:00-18:00", DAY),
            ("mo-fr 7:00-18:00", DAY),
            ("mon 7-18", TIME),
            ("mon 7:0-18:00", TIME),
            ("mon 7:60-18:00", TIME),
            ("mon 7:00-24:01", TIME),
            ("mon +7:00-18:00", TIME),
            ("mon 7:00-99:00", TIME),
            ("mon -1:00-18:00", TIME),
            ("mon 18:00-7:00", MIDNIGHT),
            ("mon 7:00-7:00", MIDNIGHT),
        ] {
            let error = text.parse::<Hours>().unwrap_err();
            assert_eq!(error.why, why, "{text}");
            assert!(error.to_string().ends_with(why));
        }
        let many = ["mon 7:00-8:00"; 15].join(",");
        assert_eq!(many.parse::<Hours>().unwrap_err().why, TOO_MANY);
        assert!(many.rsplit_once(',').unwrap().0.parse::<Hours>().is_ok());
    }

    #[test]
    fn no_room_is_none_and_what_two_allow_is_what_both_do() {
        let room = |name: &str| name.parse::<RoomName>().unwrap();
        let these = |names: &[&str]| names.iter().map(|name| room(name)).collect::<Rooms>();
        let none = these(&[]);
        assert_eq!(
            (none.to_string().as_str(), Rooms::All.to_string().as_str()),
            ("no room", "all rooms")
        );
        for name in [None, Some(&room("r101"))] {
            assert!(!none.have(name) && Rooms::All.have(name));
        }
        let two = these(&["r102", "r101"]);
        assert_eq!(two.to_string(), "r101, r102");
        assert!(two.have(Some(&room("r101"))));
        assert!(!two.have(Some(&room("r103"))) && !two.have(None));
        assert_eq!(two.and(&Rooms::All), two);
        assert_eq!(Rooms::All.and(&two), two);
        assert_eq!(two.and(&these(&["r102", "r103"])), these(&["r102"]));
        assert_eq!(two.and(&these(&["r103"])), none);
    }
}
