//! Values of `bootlace.toml` that are checked as they are read.

use hyper::Uri;
use initcfg::{MTU_RANGE, NBD_SERVERS_MAX, RamSize, VLAN_RANGE, ZramPercent};
use lettre::message::Mailbox;
use model::binary_size;
use serde::Deserialize as _;
use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;
use wire::{Mac, Route};

/// A range of addresses, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pool {
    /// First address.
    pub(crate) first: Ipv4Addr,
    /// Last address.
    pub(crate) last: Ipv4Addr,
}

impl<'de> serde::Deserialize<'de> for Pool {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl FromStr for Pool {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ends = text.split_once('-').and_then(|(first, last)| {
            Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
        });
        match ends {
            Some((first, last)) if first <= last => Ok(Self { first, last }),
            Some((first, last)) => Err(format!(
                "the pool's first address {first} comes after its last, {last}: write \"{last}-{first}\""
            )),
            None => Err(format!(
                "{text:?} is not a pool: write FIRST-LAST, like \"10.0.5.100-10.0.5.199\""
            )),
        }
    }
}

impl Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// A network, by its address and the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subnet {
    /// Its first address.
    pub(crate) address: Ipv4Addr,
    /// 8 to 30.
    pub(crate) prefix: u8,
}

/// Shorter ones are no site's; in longer ones is no room for PCs.
const PREFIXES: RangeInclusive<u8> = 8..=30;

impl Subnet {
    /// That of an address.
    pub(crate) fn of(address: Ipv4Addr, prefix: u8) -> Self {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
        Self { address: Ipv4Addr::from_bits(address.to_bits() & mask), prefix }
    }

    pub(crate) fn holds(self, address: Ipv4Addr) -> bool {
        Self::of(address, self.prefix) == self
    }

    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.holds(other.address) || other.holds(self.address)
    }

    pub(crate) fn broadcast(self) -> Ipv4Addr {
        let host = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
        Ipv4Addr::from_bits(self.address.to_bits() | host)
    }
}

impl<'de> serde::Deserialize<'de> for Subnet {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.trim().split_once('/').and_then(|(address, prefix)| {
            Some((address.parse::<Ipv4Addr>().ok()?, prefix.parse::<u8>().ok()?))
        });
        let Some((address, prefix)) = parts.filter(|(_, prefix)| PREFIXES.contains(prefix)) else {
            return Err(format!(
                "{text:?} is not a network: write ADDRESS/LENGTH with a length of {} to {}, like \"10.20.0.0/16\"",
                PREFIXES.start(),
                PREFIXES.end()
            ));
        };
        let subnet = Self::of(address, prefix);
        match subnet.address == address {
            true => Ok(subnet),
            false => Err(format!("{text:?} is an address in a network: write \"{subnet}\"")),
        }
    }
}

impl Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Addresses of network cards, each of which is there once, however it is written.
pub(super) fn reserved<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<Mac, Ipv4Addr>, D::Error> {
    let written = BTreeMap::<String, Ipv4Addr>::deserialize(deserializer)?;
    let mut reserved = BTreeMap::new();
    for (text, address) in written {
        let mac: Mac = text
            .parse()
            .map_err(|error| serde::de::Error::custom(format!("{text:?} is {error}")))?;
        if let Some(other) = reserved.insert(mac, address) {
            return Err(serde::de::Error::custom(format!(
                "{mac} has two addresses, {other} and {address}: leave one of them out"
            )));
        }
    }
    Ok(reserved)
}

/// One of a few words.
pub(super) fn choice<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

/// One of a few words for each of some NICs.
pub(super) fn by_mac<'de, D, T>(deserializer: D) -> Result<BTreeMap<Mac, T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    let mut all = BTreeMap::new();
    for (text, word) in BTreeMap::<String, String>::deserialize(deserializer)? {
        let wrong = |why: String| serde::de::Error::custom(why);
        let mac: Mac = text.parse().map_err(|error| wrong(format!("{text:?} is {error}")))?;
        let word = word.parse().map_err(|error: T::Err| wrong(error.to_string()))?;
        if all.insert(mac, word).is_some() {
            return Err(wrong(format!("{mac} is there twice: leave one of them out")));
        }
    }
    Ok(all)
}

pub(super) fn yes() -> bool {
    true
}

pub(super) fn default_lease() -> Duration {
    Duration::from_secs(12 * 3600)
}

pub(super) fn mtu<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u16>, D::Error> {
    number_in(deserializer, &MTU_RANGE, "MTU")
}

pub(super) fn vlan<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u16>, D::Error> {
    number_in(deserializer, &VLAN_RANGE, "VLAN number")
}

fn number_in<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
    range: &RangeInclusive<u16>,
    what: &str,
) -> Result<Option<u16>, D::Error> {
    let number = i64::deserialize(deserializer)?;
    match u16::try_from(number) {
        Ok(number) if range.contains(&number) => Ok(Some(number)),
        _ => Err(serde::de::Error::custom(format!(
            "{number} is not a valid {what}: write {} to {}, or leave the key out",
            range.start(),
            range.end()
        ))),
    }
}

pub(super) fn ram_size<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<RamSize, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|error| serde::de::Error::custom(format!("{text:?} is {error}")))
}

/// Percent; 0 is none.
pub(super) fn zram<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<ZramPercent>, D::Error> {
    match u8::deserialize(deserializer)? {
        0 => Ok(None),
        percent => percent.try_into().map(Some).map_err(serde::de::Error::custom),
    }
}

/// A line of `grub-mkpasswd-pbkdf2`: `grub.pbkdf2.sha512.ROUNDS.SALT.HASH`, the last two in hexadecimal digits.
pub(super) fn menu_password<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let parts = text.strip_prefix("grub.pbkdf2.sha512.").map(|rest| rest.split('.'));
    let is_hash = parts.is_some_and(|mut parts| {
        let rounds = parts.next().and_then(|rounds| rounds.parse::<u32>().ok());
        let mut is_hex = || {
            parts.next().is_some_and(|part| {
                !part.is_empty()
                    && part.len() % 2 == 0
                    && part.bytes().all(|byte| byte.is_ascii_hexdigit())
            })
        };
        rounds.is_some_and(|rounds| rounds > 0) && is_hex() && is_hex() && parts.next().is_none()
    });
    match is_hash {
        true => Ok(Some(text)),
        // Not the text itself: it may be the password.
        false => Err(serde::de::Error::custom(
            "this is no line of grub-mkpasswd-pbkdf2: run that command, and write down here what begins with \
             grub.pbkdf2.sha512.",
        )),
    }
}

pub(super) fn nbd_addresses<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Ipv4Addr>, D::Error> {
    let addresses = Vec::deserialize(deserializer)?;
    match addresses.len() {
        1..=NBD_SERVERS_MAX => Ok(addresses),
        n => Err(serde::de::Error::custom(format!(
            "there are {n} addresses: write 1 to {NBD_SERVERS_MAX}, or leave the key out"
        ))),
    }
}

pub(super) fn local_mac<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Mac>, D::Error> {
    check_local(Mac::deserialize(deserializer)?).map(Some).map_err(serde::de::Error::custom)
}

/// The address, if no card was made with it and it is no group's.
pub(crate) fn check_local(mac: Mac) -> Result<Mac, String> {
    match mac.0[0] & 0x03 {
        0x02 => Ok(mac),
        _ => Err(format!(
            "{mac} belongs to a network card or a group: use one that begins with 02, such as \
             02:00:00:00:01:00"
        )),
    }
}

/// Least room for what a machine writes: one that starts writes half of it.
const LAYER_MAX_MIN: u64 = 64 << 20;

pub(super) fn size<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    match binary_size(&text) {
        Some(bytes) if bytes >= LAYER_MAX_MIN => Ok(Some(bytes)),
        _ => Err(serde::de::Error::custom(format!(
            "{text:?} is not such a size: write 64M or more, like \"20G\", or leave the key out"
        ))),
    }
}

/// Each snapshot more costs each read of its machine a look.
const SNAPSHOTS_KEPT_MAX: u32 = 30;

pub(super) fn nights<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let n_nights = u32::deserialize(deserializer)?;
    match n_nights <= SNAPSHOTS_KEPT_MAX {
        true => Ok(n_nights),
        false => Err(serde::de::Error::custom(format!(
            "{n_nights} are too many: snapshots of {SNAPSHOTS_KEPT_MAX} nights can be kept"
        ))),
    }
}

pub(super) fn duration<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    match lease_time(&text) {
        Some(duration) if (60..=31_536_000).contains(&duration.as_secs()) => Ok(duration),
        _ => Err(serde::de::Error::custom(format!(
            "{text:?} is not a lease time: write 1m to 365d, like \"12h\""
        ))),
    }
}

/// A DNS name, as it may stand in resolv.conf.
pub(super) fn domain<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    dns_name(String::deserialize(deserializer)?).map(Some).map_err(serde::de::Error::custom)
}

/// More do not fit the option.
const ROUTES_MAX: usize = 20;

/// Routes to other networks, by those.
pub(super) fn routes<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Route>, D::Error> {
    let table = BTreeMap::<String, Ipv4Addr>::deserialize(deserializer)?;
    if table.len() > ROUTES_MAX {
        let n = table.len();
        return Err(serde::de::Error::custom(format!(
            "there are {n} routes, and {ROUTES_MAX} fit"
        )));
    }
    let route = |(network, via): (String, Ipv4Addr)| {
        let wrong = || {
            format!(
                "{network:?} is not a network: write ADDRESS/LENGTH with a length of 1 to 32, like \"10.9.0.0/16\"; for all \
                 others there is `router`"
            )
        };
        let (to, prefix) = network.trim().split_once('/').ok_or_else(wrong)?;
        let (to, prefix) = (to.parse().map_err(|_| wrong())?, prefix.parse().map_err(|_| wrong())?);
        let route = Route::new(to, prefix, via).filter(|_| prefix > 0).ok_or_else(wrong)?;
        match route.to == to {
            true => Ok(route),
            false => Err(format!(
                "{network:?} is an address in a network: write \"{}/{prefix}\"",
                route.to
            )),
        }
    };
    table.into_iter().map(route).collect::<Result<_, _>>().map_err(serde::de::Error::custom)
}

/// Names by which browsers call the server, as they send them.
pub(super) fn web_names<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    let names = names.into_iter().map(|name| dns_name(name.to_ascii_lowercase()));
    names.collect::<Result<_, _>>().map_err(serde::de::Error::custom)
}

fn dns_name(mut text: String) -> Result<String, String> {
    // The root, which such names end with in zone files.
    if text.ends_with('.') {
        text.pop();
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    match text.len() <= 253 && text.split('.').all(is_label) {
        true => Ok(text),
        false => Err(format!(
            "{text:?} is not a domain name: write letters, digits and hyphens with dots between them, like \
             \"lab.example\""
        )),
    }
}

pub(super) fn port<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    match u16::deserialize(deserializer)? {
        0 => {
            Err(serde::de::Error::custom("0 is not a port: write 1 to 65535, or leave the key out"))
        }
        port => Ok(port),
    }
}

pub(super) fn port_or_usual<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u16>, D::Error> {
    port(deserializer).map(Some)
}

/// A name or an address of a server.
pub(super) fn host<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(address.to_string()),
        Err(_) => dns_name(text).map_err(serde::de::Error::custom),
    }
}

/// People to whom one message goes.
const RECIPIENTS_MAX: usize = 20;

pub(super) fn mailbox<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Mailbox, D::Error> {
    parse_mailbox(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

pub(super) fn mailboxes<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Mailbox>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    match texts.len() {
        1..=RECIPIENTS_MAX => {
            let boxes = texts.iter().map(|text| parse_mailbox(text));
            boxes.collect::<Result<_, _>>().map_err(serde::de::Error::custom)
        }
        n => Err(serde::de::Error::custom(format!(
            "there are {n} mail addresses: write 1 to {RECIPIENTS_MAX}"
        ))),
    }
}

fn parse_mailbox(text: &str) -> Result<Mailbox, String> {
    let is_plain = !text.chars().any(char::is_control);
    text.parse().ok().filter(|_| is_plain).ok_or_else(|| {
        format!("{text:?} is not a mail address: write one like \"admin@school.example\"")
    })
}

/// A message in each minute is more than anybody reads.
const MESSAGES_PER_HOUR: RangeInclusive<u32> = 1..=60;

pub(super) fn messages_per_hour<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<u32, D::Error> {
    let number = u32::deserialize(deserializer)?;
    match MESSAGES_PER_HOUR.contains(&number) {
        true => Ok(number),
        false => Err(serde::de::Error::custom(format!(
            "{number} is not a number of messages: write {} to {}",
            MESSAGES_PER_HOUR.start(),
            MESSAGES_PER_HOUR.end()
        ))),
    }
}

/// An address of a server that is talked to by HTTP.
pub(super) fn url<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Uri, D::Error> {
    let text = String::deserialize(deserializer)?;
    let parsed: Option<Uri> = text.parse().ok();
    let is_right = |uri: &Uri| {
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        is_http && !authority.is_empty() && !authority.contains('@')
    };
    parsed.filter(is_right).ok_or_else(|| {
        serde::de::Error::custom(format!(
            "{text:?} is not an address for alerts: write one like \"https://chat.school.example/hooks/bootlace\", \
             without an account in it"
        ))
    })
}

/// `12h`, `90 s`, `1 day 6 hours`. A month has 31 days here, a year 365.
fn lease_time(text: &str) -> Option<Duration> {
    let span: jiff::Span = text.trim().parse().ok()?;
    span.to_duration(jiff::civil::date(2025, 1, 1)).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lease_times_are_read_as_people_write_them() {
        let hours = |hours: u64| Some(Duration::from_secs(hours * 3600));
        for text in ["12h", "12 h", " 12hours ", "11h 60min", "11h59m60s", "720 minutes", "43200s"]
        {
            assert_eq!(lease_time(text), hours(12), "{text}");
        }
        let days = [("1day 6hours", 30), ("2weeks", 336), ("1month", 744), ("1 year", 8760)];
        for (text, expected) in days {
            assert_eq!(lease_time(text), hours(expected), "{text}");
        }
        for text in ["", "12", "-12h", "12h ago", "12 parsecs", "99999999999999999999h"] {
            assert_eq!(lease_time(text), None, "{text}");
        }
    }
}
