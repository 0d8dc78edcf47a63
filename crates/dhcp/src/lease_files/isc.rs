//! `dhcpd.leases` (dhcpd.leases(5)): a log of declarations. The last one of an address counts.

use super::{BadLeaseFile, Entries, Entry, address, leased, number, shown};
use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::iter::Peekable;
use core::str::Chars;

/// How such a file begins, below its remark.
pub(super) const BEGINNINGS: [&str; 6] =
    ["lease", "authoring-byte-order", "server-duid", "failover", "host", "group"];

/// Blocks in blocks of what is not looked at. dhcpd itself writes two.
const DEPTH_MAX: usize = 16;

/// Words of one statement that are kept; those that matter have five.
const WORDS_MAX: usize = 16;

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Open,
    Close,
    End,
}

/// The file's tokens, each with its line.
struct Tokens<'a> {
    rest: Peekable<Chars<'a>>,
    line: usize,
}

impl Iterator for Tokens<'_> {
    type Item = Result<(usize, Token), BadLeaseFile>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let next = self.step()?;
            let line = self.line;
            return Some(Ok((
                line,
                match next {
                    '#' => {
                        while self.rest.peek().is_some_and(|it| *it != '\n') {
                            self.step();
                        }
                        continue;
                    }
                    '{' => Token::Open,
                    '}' => Token::Close,
                    ';' => Token::End,
                    '"' => match self.quoted() {
                        Some(text) => Token::Word(text),
                        None => return Some(Err(cut_off(line))),
                    },
                    it if it.is_whitespace() => continue,
                    it => Token::Word(self.word(it)),
                },
            )));
        }
    }
}

impl Tokens<'_> {
    fn step(&mut self) -> Option<char> {
        let next = self.rest.next()?;
        if next == '\n' {
            self.line += 1;
        }
        Some(next)
    }

    fn word(&mut self, first: char) -> String {
        let mut word = String::from(first);
        let ends = |it: char| it.is_whitespace() || "{};#\"".contains(it);
        while let Some(next) = self.rest.next_if(|it| !ends(*it)) {
            word.push(next);
        }
        word
    }

    /// The rest of a quoted text, in which bytes stand as octal numbers; `None`: it does not end.
    fn quoted(&mut self) -> Option<String> {
        let mut text = String::new();
        loop {
            match self.step()? {
                '"' => return Some(text),
                '\\' => match self.step()? {
                    it @ '0'..='7' => {
                        let mut value = it.to_digit(8).unwrap_or_default();
                        for _ in 0..2 {
                            let Some(digit) = self.rest.next_if(|it| it.is_digit(8)) else { break };
                            value = value * 8 + digit.to_digit(8).unwrap_or_default();
                        }
                        text.push(char::from_u32(value & 0xff).unwrap_or('?'));
                    }
                    it => text.push(it),
                },
                it => text.push(it),
            }
        }
    }
}

fn cut_off(line: usize) -> BadLeaseFile {
    BadLeaseFile::at(
        line,
        "the file ends in the middle of the entry that begins here: copy it again once dhcpd is stopped",
    )
}

pub(super) fn entries(text: &str) -> Result<Entries, BadLeaseFile> {
    let mut entries = Entries::default();
    let mut tokens = Tokens { rest: text.chars().peekable(), line: 1 };
    while let Some((line, words, end)) = statement(&mut tokens)? {
        match end {
            Token::End => {}
            Token::Close => {
                let what =
                    "a } here closes nothing: this is no dhcpd.leases, or it was changed by hand";
                return Err(BadLeaseFile::at(line, what));
            }
            _ => match words.first().map(String::as_str) {
                Some("lease") => {
                    let of = words.get(1).map(String::as_str).unwrap_or_default();
                    let of = address(of, line)?;
                    let entry = lease(&mut tokens, line)?;
                    entries.put(line, of, entry);
                }
                kind => {
                    match kind {
                        Some("host") => entries.leave_out(
                            line,
                            "a host that dhcpd was told of while it ran: if it has a fixed address, give it that with bootlace lease fix",
                        ),
                        Some("ia-na" | "ia-ta" | "ia-pd") => {
                            entries.leave_out(line, "a lease of DHCPv6");
                        }
                        _ => {}
                    }
                    skip_block(&mut tokens, line)?;
                }
            },
        }
    }
    Ok(entries)
}

/// The next statement: its line, its first words, and what it ends with. `None`: the file ends.
fn statement(tokens: &mut Tokens<'_>) -> Result<Option<(usize, Vec<String>, Token)>, BadLeaseFile> {
    let mut begins = None;
    let mut words = Vec::new();
    for token in tokens.by_ref() {
        let (line, token) = token?;
        let begin = *begins.get_or_insert(line);
        match token {
            Token::Word(word) if words.len() < WORDS_MAX => words.push(word),
            Token::Word(_) => {}
            Token::Close if !words.is_empty() => {
                let what = format!("{} does not end with ;", shown(&words.join(" ")));
                return Err(BadLeaseFile::at(begin, what));
            }
            end => return Ok(Some((begin, words, end))),
        }
    }
    match begins {
        Some(line) => Err(cut_off(line)),
        None => Ok(None),
    }
}

/// Passes by what is in the block that begins on this line.
fn skip_block(tokens: &mut Tokens<'_>, line: usize) -> Result<(), BadLeaseFile> {
    let mut depth = 1;
    for token in tokens.by_ref() {
        match token?.1 {
            Token::Open if depth == DEPTH_MAX => {
                let what = "more blocks in blocks than dhcpd writes: this is no dhcpd.leases";
                return Err(BadLeaseFile::at(line, what));
            }
            Token::Open => depth += 1,
            Token::Close if depth == 1 => return Ok(()),
            Token::Close => depth -= 1,
            Token::Word(_) | Token::End => {}
        }
    }
    Err(cut_off(line))
}

/// The declaration of a lease, which begins on this line.
fn lease(tokens: &mut Tokens<'_>, begins: usize) -> Result<Entry, BadLeaseFile> {
    // Old ones do not name it.
    let mut state = "active".to_owned();
    let (mut ends_unix, mut mac, mut name) = (None, None, String::new());
    loop {
        let Some((line, words, end)) = statement(tokens).map_err(|error| match error {
            // Where it begins says more than where it ends.
            BadLeaseFile::Line { ref what, .. } if what.starts_with("the file ends") => {
                cut_off(begins)
            }
            other => other,
        })?
        else {
            return Err(cut_off(begins));
        };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match end {
            Token::Open => {
                skip_block(tokens, line)?;
                continue;
            }
            Token::Close => break,
            Token::End | Token::Word(_) => {}
        }
        match words.as_slice() {
            ["ends", time @ ..] => ends_unix = moment(time, line)?,
            ["binding", "state", word] => (*word).clone_into(&mut state),
            ["abandoned"] => words[0].clone_into(&mut state),
            ["hardware", "ethernet", address] => mac = Some(((*address).to_owned(), line)),
            ["client-hostname", text] => (*text).clone_into(&mut name),
            _ => {}
        }
    }
    match state.as_str() {
        "active" | "bootp" => {}
        "abandoned" => {
            return Ok(Entry::None(
                "dhcpd has found that somebody uses it without a lease".to_owned(),
            ));
        }
        _ => return Ok(Entry::Ended),
    }
    let Some((mac, line)) = mac else {
        return Ok(Entry::None("its client has no Ethernet address".to_owned()));
    };
    leased(&mac, ends_unix, &name).map_err(|why| {
        BadLeaseFile::at(line, format!("{} {why}: correct it, or take the entry out", shown(&mac)))
    })
}

/// `never`, `epoch 1796000000`, or `0 2026/11/29 07:35:36`, in UTC, with the day of the week before. `None` is never.
fn moment(words: &[&str], line: usize) -> Result<Option<u64>, BadLeaseFile> {
    match words {
        ["never"] => Ok(None),
        ["epoch", seconds] => number(seconds, "time in seconds since 1970", line).map(Some),
        [_, date, time, ..] => match unix(date, time) {
            Some(unix) => Ok(Some(unix)),
            None => {
                let what = format!("{} is no time", shown(&format!("{date} {time}")));
                Err(BadLeaseFile::at(line, what))
            }
        },
        _ => Err(BadLeaseFile::at(line, format!("{} is no time", shown(&words.join(" "))))),
    }
}

/// `2026/11/29` and `07:35:36`, as seconds since 1970.
pub(super) fn unix(date: &str, time: &str) -> Option<u64> {
    let [year, month, day] = three(date, '/')?;
    let [hour, minute, second] = three(time, ':')?;
    let is_one = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !is_one {
        return None;
    }
    // Days since 1970 of a year that begins in March, so that the day of leap years is its last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    Some((days - 719_468) * 86_400 + hour * 3600 + minute * 60 + second)
}

fn three(text: &str, between: char) -> Option<[u64; 3]> {
    let mut parts = text.split(between);
    let mut next = || {
        let part = parts.next()?;
        (part.len() <= 4).then(|| part.parse().ok()).flatten()
    };
    let three = [next()?, next()?, next()?];
    parts.next().is_none().then_some(three)
}
