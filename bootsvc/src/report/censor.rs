//! Texts without secrets: what is known to be one goes wherever it stands, and so does what looks like one. It takes away too
//! much rather than too little, as whoever gets the text needs none of it.

use serde_json::Value;
use std::collections::BTreeSet;

/// What stands in the place of a secret.
pub(crate) const REMOVED: &str = "[removed]";

/// Shorter values are words that stand everywhere.
const KNOWN_CHARS_MIN: usize = 4;

/// Nor are these secrets, which values of parameters are.
const PLAIN_VALUES: [&str; 10] = [
    "true", "false", "none", "auto", "force", "enabled", "disabled", "default", "root", "bootlace",
];

/// A run of letters and digits of this length is no word: 32 random bytes have 43 of them, a UUID's parts 12.
const RANDOM_CHARS_MIN: usize = 20;

/// Words in the name of what is secret.
const SECRET_WORDS: [&str; 17] = [
    "password",
    "passwd",
    "passphrase",
    "rootpw",
    "pwd",
    "secret",
    "token",
    "apikey",
    "api_key",
    "api-key",
    "credential",
    "authorization",
    "cookie",
    "session",
    "psk",
    "private",
    "hash",
];

/// Such names as a whole, or behind `_`, `-` or `.`: inside of others they are parts of words.
const SECRET_NAMES: [&str; 4] = ["key", "pass", "pw", "auth"];

/// Behind these the rest of the line is secret.
const SECRET_LINES: [&str; 3] = ["authorization", "cookie", "environment"];

/// Parameters of kernels that are no secret, or begin with what is none.
const PLAIN_ARGUMENTS: [&str; 26] = [
    "acpi",
    "amdgpu.",
    "biosdevname",
    "console",
    "earlycon",
    "earlyprintk",
    "i915.",
    "intel_iommu",
    "iommu",
    "ip",
    "loglevel",
    "maxcpus",
    "mem",
    "mitigations",
    "net.ifnames",
    "nouveau.",
    "nvme_core.",
    "panic",
    "pci",
    "pcie_aspm",
    "rd.debug",
    "rootdelay",
    "splash",
    "systemd.log_level",
    "systemd.unit",
    "video",
];

/// Takes secrets out of texts.
#[derive(Default)]
pub(crate) struct Censor {
    known: BTreeSet<String>,
}

/// Whether what has this name is secret.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let is_part = |word: &str| {
        name.strip_suffix(word).is_some_and(|rest| {
            rest.chars().next_back().is_none_or(|it| !it.is_ascii_alphanumeric())
        })
    };
    SECRET_WORDS.iter().any(|word| name.contains(word))
        || SECRET_NAMES.iter().any(|word| is_part(word))
}

impl Censor {
    /// From now on this is nowhere.
    pub(crate) fn learn(&mut self, secret: &str) {
        // Each line of it, too: keys have many.
        for part in secret.lines().chain([secret]).map(str::trim) {
            // The frame of a key is in each.
            let is_plain = part.starts_with("-----") || PLAIN_VALUES.contains(&part);
            if part.chars().count() >= KNOWN_CHARS_MIN && !is_plain {
                self.known.insert(part.to_owned());
            }
        }
    }

    /// The same for what stands under secret names, and parameters of kernels.
    pub(crate) fn learn_from(&mut self, value: &Value) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value {
                        Value::String(text) if name == "kernel_args" => drop(self.arguments(text)),
                        Value::String(text) if is_secret(name) => self.learn(text),
                        _ => self.learn_from(value),
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| self.learn_from(value)),
            _ => {}
        }
    }

    /// Parameters of a kernel without the values of all that are not known to be harmless, which are learned.
    pub(crate) fn arguments(&mut self, text: &str) -> String {
        let mut plain = Vec::new();
        for argument in split_arguments(text) {
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (argument.as_str(), None),
            };
            let is_flag = |it: char| it.is_ascii_lowercase() || "._-".contains(it);
            let is_known = PLAIN_ARGUMENTS.iter().any(|known| {
                if known.ends_with('.') { name.starts_with(known) } else { name == *known }
            });
            plain.push(match value {
                Some(_) if is_known => argument.clone(),
                None if name.chars().all(is_flag) && !is_secret(name) => argument.clone(),
                Some(value) => {
                    self.learn(value.trim_matches('"'));
                    let is_name = |it: char| it.is_ascii_alphanumeric() || "._-".contains(it);
                    let name = if name.chars().all(is_name) { name } else { REMOVED };
                    format!("{name}={REMOVED}")
                }
                None => {
                    self.learn(name.trim_matches('"'));
                    REMOVED.to_owned()
                }
            });
        }
        plain.join(" ")
    }

    /// A text without secrets.
    pub(crate) fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        // The longest first: others may be parts of them.
        let mut known: Vec<&String> = self.known.iter().collect();
        known.sort_by_key(|it| std::cmp::Reverse(it.len()));
        for secret in known {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), REMOVED);
            }
        }
        let mut in_key = false;
        let mut lines = Vec::new();
        for line in text.lines() {
            // Keys may stand in the middle of a line, where a log has put them.
            let begins = line.contains("-----BEGIN") && line.contains("PRIVATE");
            let ends = line.contains("-----END");
            if begins || in_key {
                if begins {
                    lines.push(format!("{REMOVED} (a private key)"));
                }
                in_key = !ends;
                continue;
            }
            lines.push(plain_line(line));
        }
        let mut plain = lines.join("\n");
        if text.ends_with('\n') {
            plain.push('\n');
        }
        plain
    }

    /// The same of JSON, in which each text is on its own.
    pub(crate) fn json(&mut self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(&text)),
            Value::Array(values) => {
                Value::Array(values.into_iter().map(|value| self.json(value)).collect())
            }
            Value::Object(fields) => {
                let fields = fields.into_iter().map(|(name, value)| {
                    let value = match value {
                        Value::String(text) if name == "kernel_args" => {
                            Value::String(self.arguments(&text))
                        }
                        Value::String(_) | Value::Array(_) if is_secret(&name) => REMOVED.into(),
                        value => self.json(value),
                    };
                    (name, value)
                });
                Value::Object(fields.collect())
            }
            value => value,
        }
    }
}

/// As the kernel does it: quotes hold words together.
fn split_arguments(text: &str) -> Vec<String> {
    let (mut arguments, mut current, mut is_quoted) = (Vec::new(), String::new(), false);
    for character in text.chars() {
        is_quoted ^= character == '"';
        match character.is_whitespace() && !is_quoted {
            true if current.is_empty() => {}
            true => arguments.push(std::mem::take(&mut current)),
            false => current.push(character),
        }
    }
    arguments.extend(Some(current).filter(|it| !it.is_empty()));
    arguments
}

/// What is done with the word that comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Show,
    /// It is secret if it is `=` or `:`, or begins so: then the next one is.
    AfterSign,
    /// A name of something secret stood alone: it is if it is no word of a sentence.
    IfStrange,
    Remove,
    /// It is in quotes that have begun.
    RemoveUntil(char),
}

fn plain_line(line: &str) -> String {
    // A line of the configuration, as errors quote it.
    if let Some((number, quoted)) = line.split_once(" | ")
        && number.trim().parse::<u32>().is_ok()
    {
        let key = quoted.split('=').next().unwrap_or_default();
        return format!("{number} | {}= {REMOVED}", plain_words(key));
    }
    let lower = line.to_ascii_lowercase();
    let rest = SECRET_LINES.iter().filter_map(|word| {
        let end = lower.find(word)? + word.len();
        let sign = line.get(end..)?.find(['=', ':']).filter(|at| *at <= 2)?;
        Some(end + sign + 1)
    });
    match rest.min() {
        Some(at) if line.is_char_boundary(at) => format!("{} {REMOVED}", plain_words(&line[..at])),
        _ => plain_words(line),
    }
}

fn plain_words(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut next = Next::Show;
    let mut rest = line;
    while !rest.is_empty() {
        let start = rest.find(|it: char| !it.is_whitespace()).unwrap_or(rest.len());
        plain.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let word = &rest[..end];
        rest = &rest[end..];
        if !word.is_empty() {
            let shown;
            (shown, next) = plain_word(word, next);
            plain.push_str(&shown);
        }
    }
    plain
}

/// What is shown of a word, and what is done with the one behind it.
fn plain_word(word: &str, next: Next) -> (String, Next) {
    let removed = || REMOVED.to_owned();
    match next {
        Next::RemoveUntil(quote) => {
            let next = if word.contains(quote) { Next::Show } else { next };
            return (String::new(), next);
        }
        Next::Remove => {
            // `Authorization: Bearer …`
            let is_scheme = ["bearer", "basic"].contains(&word.to_ascii_lowercase().as_str());
            return (removed(), if is_scheme { Next::Remove } else { after(word) });
        }
        Next::AfterSign if word == "=" || word == ":" || word == "=>" => {
            return (word.to_owned(), Next::Remove);
        }
        Next::AfterSign if word.starts_with('=') => {
            return (format!("={REMOVED}"), after(&word[1..]));
        }
        Next::AfterSign | Next::IfStrange if word == "is" => {
            return (word.to_owned(), Next::IfStrange);
        }
        Next::AfterSign | Next::IfStrange if is_strange(word) => return (removed(), after(word)),
        _ => {}
    }
    let lower = word.to_ascii_lowercase();
    if ["bearer", "basic"].contains(&lower.trim_matches(|it: char| !it.is_alphanumeric())) {
        return (word.to_owned(), Next::IfStrange);
    }
    if word.contains("://") {
        return (random_removed(&plain_url(word)), Next::Show);
    }
    // Of several pairs in one word the first that is secret hides the others.
    let mut from = 0;
    while let Some(at) = word[from..].find(['=', ':']).map(|at| from + at) {
        let name = word[from..at].trim_matches(|it: char| !it.is_alphanumeric());
        // Behind the name of a file a colon is one of a sentence.
        let is_file = name.contains('/') && word[at..].starts_with(':');
        if is_secret(name) && !is_file {
            let shown = format!("{}{}", random_removed(&word[..at]), &word[at..=at]);
            let value = &word[at + 1..];
            return match value.trim_matches(['"', '\'']).is_empty() && !value.starts_with("\"\"") {
                true => (shown, Next::Remove),
                false => (format!("{shown}{REMOVED}"), after(value)),
            };
        }
        from = at + 1;
    }
    let name = word.trim_matches(|it: char| !it.is_alphanumeric());
    let next = if is_secret(name) && !word.contains('/') { Next::AfterSign } else { Next::Show };
    (random_removed(word), next)
}

/// Whether quotes begin with this value that end in a later word.
fn after(value: &str) -> Next {
    let quote = value.chars().next().filter(|it| matches!(it, '"' | '\''));
    match quote {
        Some(quote) if !value[1..].contains(quote) => Next::RemoveUntil(quote),
        _ => Next::Show,
    }
}

/// Words of sentences have small letters, and perhaps a sign behind them.
fn is_strange(word: &str) -> bool {
    let word = word.trim_end_matches([',', '.', ';', ':', '?', '!', ')']);
    !word.chars().all(|it| it.is_ascii_lowercase() || "'-".contains(it))
}

/// Without whoever logs in there, and without what is asked.
fn plain_url(word: &str) -> String {
    let Some((scheme, rest)) = word.split_once("://") else { return word.to_owned() };
    let end = rest.find(['/', '?', '#', '"', '\'', ')', '>', ',']).unwrap_or(rest.len());
    let (place, path) = rest.split_at(end);
    let place = match place.rsplit_once('@') {
        Some((_, host)) => format!("{REMOVED}@{host}"),
        None => place.to_owned(),
    };
    let path = match path.split_once('?') {
        Some((path, _)) => format!("{path}?{REMOVED}"),
        None => path.to_owned(),
    };
    // A password may hold a slash, and then an `@` comes behind it.
    match path.rsplit_once('@') {
        Some((_, rest)) => format!("{scheme}://{REMOVED}@{rest}"),
        None => format!("{scheme}://{place}{path}"),
    }
}

/// Without what is too random to be a word.
fn random_removed(word: &str) -> String {
    if let Some(at) = word.find("bl_") {
        return format!("{}{REMOVED}", &word[..at]);
    }
    // As crypt(3) writes hashes.
    if word.trim_start_matches(['"', '\'', '=']).starts_with('$') && word.matches('$').count() >= 3
    {
        return REMOVED.to_owned();
    }
    let mut plain = String::with_capacity(word.len());
    let mut run = String::new();
    let is_of_run = |it: char| it.is_ascii_alphanumeric() || "+_=".contains(it);
    let end = |run: &mut String, plain: &mut String| {
        let is_random = run.len() >= RANDOM_CHARS_MIN
            && run.contains(|it: char| it.is_ascii_digit())
            && run.contains(|it: char| it.is_ascii_alphabetic());
        plain.push_str(if is_random { REMOVED } else { run });
        run.clear();
    };
    for character in word.chars() {
        if is_of_run(character) {
            run.push(character);
        } else {
            end(&mut run, &mut plain);
            plain.push(character);
        }
    }
    end(&mut run, &mut plain);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A secret that looks like none.
    const WORD: &str = "Sesame7";

    fn gone(text: &str) -> String {
        let plain = Censor::default().text(text);
        assert!(!plain.contains(WORD), "{text}\nbecomes\n{plain}");
        plain
    }

    #[test]
    fn what_has_a_secret_name_goes_in_each_form() {
        for text in [
            "password=Sesame7",
            "password = \"Sesame7\"",
            "password: Sesame7",
            "PASSWORD=Sesame7 next",
            "BOOT_PASSWORD='Sesame7'",
            "password=\"open Sesame7 now\" end",
            "password = 'open Sesame7'",
            "the password is Sesame7",
            "token Sesame7",
            "\"token\": \"Sesame7\"",
            "{\"password\":\"Sesame7\",\"x\":1}",
            "api_key=Sesame7",
            "wifi_key: Sesame7",
            "key=Sesame7",
            "Authorization: Bearer Sesame7",
            "Authorization: Basic Sesame7 and more Sesame7",
            "Cookie: a=1; b=Sesame7",
            "Environment=FOO=Sesame7 BAR=Sesame7",
            "header \"Bearer Sesame7\"",
            "luks.passphrase=Sesame7",
            "rootpw=Sesame7",
            "ftp://tom:Sesame7@host/x",
            "nbd://tom:Ses/Sesame7@host/x",
            "https://host/login?code=Sesame7&x=y",
            "bl_Sesame7",
            "  3 | pasword = \"Sesame7\"",
            "12 | mail = { pin = \"Sesame7\" }",
            "$6$salt$Sesame7",
            "$argon2id$v=19$m=1$Sesame7",
            "-----BEGIN PRIVATE KEY-----\nSesame7\n-----END PRIVATE KEY-----",
        ] {
            gone(text);
        }
        assert!(gone("password=\"open Sesame7 now\" end of it").ends_with("end of it"));
        assert_eq!(gone("ftp://tom:Sesame7@host/x"), "ftp://[removed]@host/x");
    }

    #[test]
    fn random_bytes_go_and_what_helps_stays() {
        for text in ["0123456789abcdef0123456789abcdef", "QUJDREVGR0hJSktMTU5PUFFSU1RVVld4eXo0"] {
            assert_eq!(
                Censor::default().text(&format!("it is {text}.")),
                format!("it is {REMOVED}.")
            );
        }
        for text in [
            "boot server: it answers, and is of version 0.4.0, as installed",
            "reached a stage machine=\"lab-07\" mac=52:54:00:12:34:56 boot=12",
            "nothing can be stored in /var/lib/bootlace/images: the disk is full",
            "can't read /etc/bootlace/mail-password: Permission denied (os error 13)",
            "the token file can't be read",
            "8f14e45f-ceea-467f-a0a4-6f3b1c2d3e4f 10.0.5.100-10.0.5.199 fe80::5054:ff:fe12:3456",
            "root=/dev/nbd0 linux-image-6.1.0-56-amd64",
        ] {
            assert_eq!(Censor::default().text(text), text);
        }
    }

    #[test]
    fn what_is_known_goes_wherever_it_is() {
        let mut censor = Censor::default();
        censor.learn("open-sesame\n");
        censor.learn_from(
            &serde_json::json!([{ "rescue": { "password": "blue-horse" }, "name": "lab-07" }]),
        );
        let plain = censor.text("the lab opens by open-sesame and blue-horse, at lab-07");
        assert_eq!(plain, format!("the lab opens by {REMOVED} and {REMOVED}, at lab-07"));
        let json =
            serde_json::json!({ "cause": "open-sesame", "token": "x", "has_key": true, "n": 3 });
        let plain = censor.json(json);
        assert_eq!(
            plain,
            serde_json::json!({ "cause": REMOVED, "token": REMOVED, "has_key": true, "n": 3 })
        );
    }

    #[test]
    fn of_kernel_parameters_only_harmless_values_stay() {
        let mut censor = Censor::default();
        let text = "quiet console=ttyS0,115200 ds=nocloud;Sesame7 x.y=Sesame7 pin=\"open wide Sesame7\" Sesame7 nomodeset";
        let plain = censor.arguments(text);
        let left = "quiet console=ttyS0,115200 ds=[removed] x.y=[removed] pin=[removed] [removed] nomodeset";
        assert_eq!(plain, left);
        assert_eq!(censor.text("a log has Sesame7"), "a log has [removed]");
    }
}
