//! The page of the configuration, made from the doc comments of its structures and compared with what is read.

use super::Config;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use syn::{Attribute, Expr, Field, Item, Lit, LitStr, Meta};

/// The structures, and where their keys are.
const SECTIONS: [(&str, &str); 11] = [
    ("NetworkConfig", "network"),
    ("BootSettings", "boot"),
    ("WebConfig", "web"),
    ("StorageConfig", "storage"),
    ("NbdTls", "nbd_tls"),
    ("ServiceConfig", "service"),
    ("LdapConfig", "ldap"),
    ("LdapGroup", "group"),
    ("AlertsConfig", "alerts"),
    ("MailConfig", "mail"),
    ("WebhookConfig", "webhook"),
];

/// Replaces what the page says before the first section.
const INTRODUCTION: &str = "\
# Configuration

<!-- Made from bootsvc/src/config.rs. To make it again: UPDATE_GOLDEN=1 cargo test -p bootsvc reference -->

The servers read `/etc/bootlace/bootlace.toml`, a file in [TOML](https://toml.io), when they start; a change needs a
restart, except where it is said otherwise. `bootlace check` says whether the file is right. Two lines are enough:

```toml
[network]
interface = \"enp3s0\"
pool = \"10.0.5.100-10.0.5.199\"
```

A key that does not exist is an error, and the message names the nearest one that does. What belongs to one machine,
such as its image, is not set here but on its page or with `bootlace machine set`.
";

/// A key of a section.
struct Key {
    name: String,
    /// Its doc comment, as Markdown.
    text: String,
}

impl Key {
    /// What the comment's list says of the key.
    fn item(&self, what: &str) -> Option<&str> {
        let lines = self.text.lines();
        lines.filter_map(|line| line.strip_prefix("- ")?.strip_prefix(what)).next()
    }

    /// A line of TOML in that item.
    fn toml(&self, what: &str) -> Option<&str> {
        let quoted = self.item(what)?.strip_prefix(": `")?.split('`').next()?;
        quoted.starts_with(&format!("{} = ", self.name)).then_some(quoted)
    }
}

#[test]
fn the_page_of_the_configuration_is_up_to_date() {
    let page = root().join("docs/configuration.md");
    let mut wanted = INTRODUCTION.to_owned();
    for (structure, section) in SECTIONS {
        let title = match parent(section) {
            Some(parent) => format!("`{section}` in `[{parent}]`"),
            None => format!("`[{section}]`"),
        };
        let _ = write!(wanted, "\n## {title}\n\n{}\n", about(section));
        for key in keys(structure) {
            let _ = write!(wanted, "\n### {}\n\n{}\n", key.name, key.text);
        }
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        return std::fs::write(&page, wanted).expect("the page can be written");
    }
    let found = std::fs::read_to_string(&page).unwrap_or_default();
    assert!(
        found == wanted,
        "docs/configuration.md is out of date: UPDATE_GOLDEN=1 cargo test -p bootsvc reference"
    );
}

#[test]
fn the_reference_names_every_key_that_is_read_and_no_other() {
    let sections: Vec<&str> = SECTIONS
        .iter()
        .map(|(_, section)| *section)
        .filter(|name| parent(name).is_none())
        .collect();
    assert_eq!(read_keys("none = 1"), sections);
    for (structure, section) in SECTIONS {
        let named: Vec<String> = keys(structure).into_iter().map(|key| key.name).collect();
        assert_eq!(read_keys(&within(section, "none = 1")), named, "{section}");
    }
}

#[test]
fn examples_are_read_and_defaults_change_nothing() {
    for (structure, section) in SECTIONS {
        for key in keys(structure) {
            let example = key.toml("Example").unwrap_or_else(|| panic!("{} has none", key.name));
            let read = |line: &str| {
                let text = config(section, &key.name, line);
                let parsed = Config::parse(Path::new("bootlace.toml"), &text);
                format!("{:?}", parsed.unwrap_or_else(|error| panic!("{error}\n\n{text}")))
            };
            let is_required = key.text.lines().any(|line| line == "- Required");
            assert_ne!(is_required, key.item("Default").is_some(), "{}", key.name);
            assert!(key.item("Value").is_some(), "{} says nothing of its value", key.name);
            if is_required {
                read(example);
                continue;
            }
            assert_ne!(read(example), read(""), "the example is the default: {example}");
            if let Some(default) = key.toml("Default") {
                assert_eq!(read(default), read(""), "this is not the default: {default}");
            }
        }
    }
}

/// A bound that the page names is one: what lies on it is read, what lies beyond is refused.
#[test]
fn bounds_are_where_the_reference_says() {
    let check = |section: &str, good: &[&str], bad: &[&str]| {
        let is_read = |line: &str| {
            let name = line.split(' ').next().unwrap_or_default();
            Config::parse(Path::new("bootlace.toml"), &config(section, name, line)).is_ok()
        };
        good.iter().for_each(|line| assert!(is_read(line), "{line} must be read"));
        bad.iter().for_each(|line| assert!(!is_read(line), "{line} must be refused"));
    };
    check("network", &["mtu = 1280", "mtu = 9000"], &["mtu = 1279", "mtu = 9001"]);
    check("network", &["vlan = 1", "vlan = 4094"], &["vlan = 0", "vlan = 4095"]);
    check(
        "network",
        &["lease = \"1m\"", "lease = \"365d\""],
        &["lease = \"59s\"", "lease = \"366d\""],
    );
    let arguments = |n: usize| format!("kernel_args = \"{}\"", "x".repeat(n));
    check("boot", &[&arguments(1024)], &[&arguments(1025)]);
    check("boot", &["ram = \"1%\"", "ram = \"90%\"", "ram = \"16M\""], &["ram = \"0%\""]);
    check("boot", &[], &["ram = \"91%\"", "ram = \"15M\""]);
    let addresses = |n: usize| format!("nbd_addresses = [{}]", "\"10.0.5.1\", ".repeat(n));
    check("storage", &[&addresses(1), &addresses(8)], &[&addresses(0), &addresses(9)]);
    check("storage", &["snapshots_kept = 0", "snapshots_kept = 30"], &["snapshots_kept = 31"]);
    check("storage", &["layer_max = \"64M\"", "layer_max = \"2T\""], &["layer_max = \"1M\""]);
    check(
        "alerts",
        &["messages_per_hour = 1", "messages_per_hour = 60"],
        &["messages_per_hour = 0"],
    );
    check("alerts", &[], &["messages_per_hour = 61", "level = \"all\""]);
    let people = |n: usize| format!("to = [{}]", "\"me@lab.example\", ".repeat(n));
    check("mail", &[&people(1), &people(20)], &[&people(0), &people(21), "to = [\"me\"]"]);
    check("mail", &["host = \"10.0.5.2\""], &["host = \"mail server\""]);
    check(
        "webhook",
        &["url = \"http://10.0.5.2:8065/x\""],
        &["url = \"ftp://x/\"", "url = \"/x\""],
    );
    check("webhook", &[], &["url = \"https://me:secret@lab.example/\""]);
    let groups =
        |n: usize| format!("group = [{}]", "{ dn = \"cn=it\", role = \"admin\" }, ".repeat(n));
    check("ldap", &[&groups(1), &groups(32)], &[&groups(0), &groups(33)]);
    check("storage", &["aoe_mac = \"02:00:00:00:00:01\""], &["aoe_mac = \"00:00:00:00:00:01\""]);
}

/// A whole configuration with this line in that section, in place of the same key.
fn config(section: &str, key: &str, line: &str) -> String {
    let needed = [
        ("network", "interface", "interface = \"br0\""),
        ("network", "pool", "pool = \"10.77.0.100-10.77.0.199\""),
        ("nbd_tls", "certificate", "certificate = \"c.pem\""),
        ("nbd_tls", "key", "key = \"k.pem\""),
        // Without it machines could not attach their roots.
        ("nbd_tls", "machine_ca", if key == "require" { "machine_ca = \"a.pem\"" } else { "" }),
        ("mail", "host", "host = \"mail.example\""),
        ("mail", "from", "from = \"bootlace@lab.example\""),
        ("mail", "to", "to = [\"me@lab.example\"]"),
        (
            "mail",
            "user",
            if key == "password_file" && !line.is_empty() { "user = \"me\"" } else { "" },
        ),
        (
            "mail",
            "password_file",
            if key == "user" && !line.is_empty() { "password_file = \"p\"" } else { "" },
        ),
        ("webhook", "url", "url = \"https://lab.example/\""),
        (
            "ldap",
            "url",
            if key == "starttls" { "url = \"ldap://127.0.0.1\"" } else { "url = \"ldaps://x\"" },
        ),
        // Of these there is one.
        ("ldap", "base", if key == "user_dn" && !line.is_empty() { "" } else { "base = \"dc=x\"" }),
        (
            "ldap",
            "user_dn",
            if key == "base" && line.is_empty() { "user_dn = \"uid={name}\"" } else { "" },
        ),
        (
            "ldap",
            "bind_dn",
            if key == "password_file" && !line.is_empty() { "bind_dn = \"cn=b\"" } else { "" },
        ),
        (
            "ldap",
            "password_file",
            if key == "bind_dn" && !line.is_empty() { "password_file = \"p\"" } else { "" },
        ),
        (
            "ldap",
            "group",
            if section == "group" { "" } else { "group = [{ dn = \"cn=it\", role = \"admin\" }]" },
        ),
        ("group", "dn", "dn = \"cn=it\""),
        ("group", "role", "role = \"teacher\""),
    ];
    let lines = |of: &str| {
        let is_other = |name: &str| of != section || name != key;
        let mut lines: Vec<&str> = needed
            .iter()
            .filter(|(section, name, _)| *section == of && is_other(name))
            .map(|(_, _, line)| *line)
            .collect();
        lines.extend((of == section).then_some(line));
        lines.join("\n")
    };
    let mut text = format!("[network]\n{}\n", lines("network"));
    if section == "group" {
        text += &within("ldap", &lines("ldap"));
    }
    if section != "network" {
        text += &within(section, &lines(section));
    }
    text
}

fn within(section: &str, lines: &str) -> String {
    match parent(section) {
        Some(parent) if section == "group" => format!("[[{parent}.{section}]]\n{lines}\n"),
        Some(parent) => format!("[{parent}.{section}]\n{lines}\n"),
        None => format!("[{section}]\n{lines}\n"),
    }
}

/// In which section it is, if it is within one.
fn parent(section: &str) -> Option<&'static str> {
    match section {
        "nbd_tls" => Some("storage"),
        "mail" | "webhook" => Some("alerts"),
        "group" => Some("ldap"),
        _ => None,
    }
}

/// The keys beside the wrong one in this text, from the message about it.
fn read_keys(text: &str) -> Vec<String> {
    let message = toml::from_str::<Config>(text).unwrap_err().message().to_owned();
    assert!(message.starts_with("unknown field `none`"), "{message}");
    message.split('`').skip(3).step_by(2).map(str::to_owned).collect()
}

/// What the configuration's structure says of a section.
fn about(section: &str) -> String {
    let all = keys("Config").into_iter().find(|key| key.name == section);
    all.map_or_else(
        || match section {
            "mail" => "The mail server that takes alerts.".into(),
            "group" => "A group of the directory, and what its members are here.".into(),
            "webhook" => {
                "The server that takes alerts as JSON. [What is sent](how-to/alerts.md#by-webhook)."
                    .into()
            }
            _ => "Files in PEM format. [How to make them](how-to/tls.md).".into(),
        },
        |it| it.text,
    )
}

fn keys(structure: &str) -> Vec<Key> {
    let texts = [
        include_str!("../config.rs"),
        include_str!("alerts.rs"),
        include_str!("ldap.rs"),
        include_str!("nbd_tls.rs"),
        include_str!("storage_server.rs"),
    ];
    let files = texts.map(|text| syn::parse_file(text).expect("it is Rust"));
    let found = files.into_iter().flat_map(|file| file.items).find_map(|item| match item {
        Item::Struct(found) if found.ident == structure => Some(found),
        _ => None,
    });
    let found = found.unwrap_or_else(|| panic!("config.rs has no {structure}"));
    found.fields.iter().map(|field| Key { name: name(field), text: doc(&field.attrs) }).collect()
}

/// As it is written in the file.
fn name(field: &Field) -> String {
    let mut name = field.ident.as_ref().expect("keys have names").to_string();
    for attribute in field.attrs.iter().filter(|attribute| attribute.path().is_ident("serde")) {
        let parsed = attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("rename") {
                name = meta.value()?.parse::<LitStr>()?.value();
            } else if meta.input.peek(syn::Token![=]) {
                meta.value()?.parse::<LitStr>()?;
            }
            Ok(())
        });
        parsed.expect("attributes of serde are `key` or `key = \"value\"`");
    }
    name
}

fn doc(attributes: &[Attribute]) -> String {
    let line = |attribute: &Attribute| match &attribute.meta {
        Meta::NameValue(meta) if meta.path.is_ident("doc") => match &meta.value {
            Expr::Lit(text) => match &text.lit {
                Lit::Str(text) => Some(text.value().trim().to_owned()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    };
    attributes.iter().filter_map(line).collect::<Vec<_>>().join("\n")
}

/// Top of the source tree.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
