//! `[network]`, or a `[[network]]` for each of several.

use super::NetworkConfig;
use serde::Deserialize as _;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::ops::Deref;

/// Keys that hold for the whole site.
const OF_THE_SITE: [&str; 5] =
    ["mode", "address_by", "beside_others", "serve_everyone", "answer_router_solicitations"];

/// More are no site's, and each has its own memory of leases.
const NETWORKS_MAX: usize = 64;

/// All networks. What holds for the whole site is the first one's, which it dereferences to.
#[derive(Clone, Debug)]
pub(crate) struct NetworkConfigs {
    first: NetworkConfig,
    more: Vec<NetworkConfig>,
}

impl Deref for NetworkConfigs {
    type Target = NetworkConfig;

    fn deref(&self) -> &NetworkConfig {
        &self.first
    }
}

impl NetworkConfigs {
    /// All of them, the first one first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &NetworkConfig> {
        std::iter::once(&self.first).chain(&self.more)
    }

    /// What is missing in one of them, or stands where it says nothing, and where in the text that is.
    pub(super) fn misplaced(&self, text: &str) -> Option<(usize, String)> {
        let sections = sections(text);
        let start = |index: usize| sections.get(index).map_or(0, |(at, _)| *at);
        let n_without_pool = |it: &NetworkConfig| it.pool.is_none();
        if self.mode.leases()
            && let Some(index) = self.all().position(n_without_pool)
        {
            return Some((start(index), "missing field `pool`".to_owned()));
        }
        let later = sections.iter().skip(1);
        later.flat_map(|(at, lines)| keys(*at, lines)).find_map(|(at, key)| {
            OF_THE_SITE.contains(&key).then(|| {
                (at, format!("`{key}` holds for the whole site: write it in the first [[network]]"))
            })
        })
    }
}

/// Where each section of a network begins, and its text.
fn sections(text: &str) -> Vec<(usize, &str)> {
    let mut at = 0;
    let mut found: Vec<(usize, usize)> = Vec::new();
    let mut is_in = false;
    for line in text.split_inclusive('\n') {
        let header: String =
            line.chars().take_while(|&c| c != '#').filter(|c| !c.is_whitespace()).collect();
        if header.starts_with('[') {
            is_in = header == "[network]" || header == "[[network]]";
            found.extend(is_in.then_some((at, at)));
        }
        at += line.len();
        if is_in && let Some(last) = found.last_mut() {
            last.1 = at;
        }
    }
    found.into_iter().map(|(start, end)| (start, &text[start..end])).collect()
}

/// The keys of a section, and where they are.
fn keys(at: usize, section: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut next = at;
    section.split_inclusive('\n').filter_map(move |line| {
        let at = next;
        next += line.len();
        line.split_once('=').map(|(key, _)| (at, key.trim().trim_matches('"')))
    })
}

impl<'de> serde::Deserialize<'de> for NetworkConfigs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrSeveral)
    }
}

struct OneOrSeveral;

impl<'de> Visitor<'de> for OneOrSeveral {
    type Value = NetworkConfigs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("struct NetworkConfig")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<NetworkConfigs, A::Error> {
        let first = NetworkConfig::deserialize(MapAccessDeserializer::new(map))?;
        Ok(NetworkConfigs { first, more: Vec::new() })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<NetworkConfigs, A::Error> {
        let Some(first) = all.next_element()? else {
            return Err(A::Error::custom("the section [network] is missing"));
        };
        let mut more = Vec::new();
        while let Some(network) = all.next_element()? {
            if more.len() + 1 >= NETWORKS_MAX {
                return Err(A::Error::custom(format!(
                    "there are more than {NETWORKS_MAX} networks"
                )));
            }
            more.push(network);
        }
        Ok(NetworkConfigs { first, more })
    }
}
