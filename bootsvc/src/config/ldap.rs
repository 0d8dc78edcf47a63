//! `[ldap]`.

use super::alerts::is_here;
use hyper::Uri;
use ldap::{DnPattern, Filter, NAME};
use model::{Role, RoomName, Rooms};
use serde::de::Error as _;
use std::fmt;
use std::path::PathBuf;

/// Each costs a search at each login.
const GROUPS_MAX: usize = 32;

/// Longest distinguished name, in bytes.
const DN_BYTES_MAX: usize = 1024;

/// `[ldap]`.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(try_from = "LdapText")]
pub(crate) struct LdapConfig {
    /// The directory's server. With `ldaps://` the connection is encrypted from the first byte, with `ldap://` by StartTLS, without
    /// which nothing is asked.
    ///
    /// - Value: `ldaps://NAME` or `ldap://NAME`, with `:PORT` behind it if that is not 636 or 389
    /// - Required
    /// - Example: `url = "ldaps://ldap.school.example"`
    pub(crate) url: LdapUrl,
    /// Whether a connection by `ldap://` is encrypted. Passwords would go over it in clear text otherwise.
    ///
    /// - Value: `true`, or `false` for a directory on this host
    /// - Default: `true` with `ldap://`
    /// - Example: `starttls = false`
    pub(crate) starttls: bool,
    /// Authorities whose certificates are accepted beside those that this host trusts.
    ///
    /// - Value: the path of a PEM file
    /// - Default: none
    /// - Example: `ca = "/etc/bootlace/school-ca.pem"`
    pub(crate) ca: Option<PathBuf>,
    /// The entry of who logs in, if it follows from his name. Give this, or `base`.
    ///
    /// - Value: a distinguished name with `{name}` in it
    /// - Default: none; the entry is searched for below `base`
    /// - Example: `user_dn = "uid={name},ou=people,dc=school,dc=example"`
    pub(crate) user_dn: Option<DnPattern>,
    /// Below what the entry of who logs in is searched for. Give this, or `user_dn`.
    ///
    /// - Value: a distinguished name
    /// - Default: none; the entry is `user_dn`
    /// - Example: `base = "ou=people,dc=school,dc=example"`
    pub(crate) base: Option<String>,
    /// What the entry is known by. It must be something that only the directory's administrators change: who can give his own
    /// entry another's name here logs in as him. If there are several such entries, nobody is let in.
    ///
    /// - Value: a filter (RFC 4515) with `{name}` in it
    /// - Default: `filter = "(uid={name})"`
    /// - Example: `filter = "(&(objectClass=user)(sAMAccountName={name}))"`
    pub(crate) filter: Filter,
    /// Who searches for the entry and its groups. It needs the right to read these, and no other.
    ///
    /// - Value: the distinguished name of an account of the directory, with `password_file`
    /// - Default: none; the entry is searched for by nobody, and its groups by who logs in
    /// - Example: `bind_dn = "cn=bootlace,ou=services,dc=school,dc=example"`
    pub(crate) bind_dn: Option<String>,
    /// A file with the password of `bind_dn` in its first line, which the servers' user can read, and others should not. It is
    /// read for each login.
    ///
    /// - Value: the path of a file
    /// - Default: none
    /// - Example: `password_file = "/etc/bootlace/ldap-password"`
    pub(crate) password_file: Option<PathBuf>,
    /// The groups whose members are let in. Who is in several has the best role of them; who is in none stays outside.
    ///
    /// - Value: a list of 1 to 32 tables with the keys below, or that many sections `[[ldap.group]]`
    /// - Required
    /// - Example: `group = [{ dn = "cn=it,ou=groups,dc=school,dc=example", role = "admin" }]`
    pub(crate) group: Vec<LdapGroup>,
}

/// `group` in `[ldap]`.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(try_from = "LdapGroupText")]
pub(crate) struct LdapGroup {
    /// The group's entry. Its members are the values of `member`, `uniqueMember` or `memberUid`. Groups within groups do not
    /// count.
    ///
    /// - Value: a distinguished name
    /// - Required
    /// - Example: `dn = "cn=it,ou=groups,dc=school,dc=example"`
    pub(crate) dn: String,
    /// What its members may do: see [roles](how-to/accounts.md#roles).
    ///
    /// - Value: `viewer`, `teacher` or `admin`
    /// - Required
    /// - Example: `role = "teacher"`
    pub(crate) role: Role,
    /// The rooms with whose machines its members work, as teachers. Who is in several groups of teachers has the rooms of all.
    ///
    /// - Value: a list of names of rooms
    /// - Default: none; they work with all machines
    /// - Example: `rooms = ["r101", "r102"]`
    pub(crate) rooms: Rooms,
}

/// Where a directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LdapUrl {
    /// A name or an address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Whether the connection is encrypted from the first byte.
    pub(crate) is_tls: bool,
}

impl fmt::Display for LdapUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "ldaps" } else { "ldap" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

impl<'de> serde::Deserialize<'de> for LdapUrl {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parsed: Option<Uri> = text.parse().ok();
        let read = parsed.and_then(|uri| {
            let is_tls = match uri.scheme_str() {
                Some("ldaps") => true,
                Some("ldap") => false,
                _ => return None,
            };
            let authority = uri.authority()?.as_str();
            let has_more = authority.contains('@') || uri.query().is_some();
            if has_more || !matches!(uri.path(), "" | "/") {
                return None;
            }
            let host = uri.host()?.trim_matches(['[', ']']).to_owned();
            let usual = if is_tls { 636 } else { 389 };
            (!host.is_empty()).then(|| Self { host, port: uri.port_u16().unwrap_or(usual), is_tls })
        });
        read.ok_or_else(|| {
            D::Error::custom(format!(
                "{text:?} is not the address of a directory: write one like \"ldaps://ldap.school.example\""
            ))
        })
    }
}

impl LdapConfig {
    /// Files that are read to ask it.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.password_file, &self.ca].into_iter().flatten()
    }

    /// What the groups may do, for the site.
    pub(crate) fn groups(&self) -> Vec<service::DirectoryGroup> {
        let group = |LdapGroup { dn, role, rooms }: &LdapGroup| service::DirectoryGroup {
            name: dn.clone(),
            role: *role,
            rooms: rooms.clone(),
        };
        self.group.iter().map(group).collect()
    }
}

/// As it is written.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct LdapText {
    url: LdapUrl,
    starttls: Option<bool>,
    ca: Option<PathBuf>,
    user_dn: Option<String>,
    base: Option<String>,
    filter: Option<String>,
    bind_dn: Option<String>,
    password_file: Option<PathBuf>,
    group: Vec<LdapGroup>,
}

impl TryFrom<LdapText> for LdapConfig {
    type Error = String;

    fn try_from(text: LdapText) -> Result<Self, String> {
        let LdapText { url, starttls, ca, user_dn, base, filter, bind_dn, password_file, group } =
            text;
        let is_plain = !url.is_tls && starttls == Some(false);
        if url.is_tls && starttls.is_some() {
            return Err(
                "ldaps:// is encrypted from the first byte: leave `starttls` out".to_owned()
            );
        }
        if is_plain && !is_here(&url.host) {
            return Err("passwords would go over the network in clear text: leave `starttls` out, or write an url that \
                        begins with ldaps://"
                .to_owned());
        }
        match (&user_dn, &base) {
            (Some(_), Some(_)) | (None, None) => {
                return Err("give either `user_dn` or `base`".to_owned());
            }
            (Some(_), None) if filter.is_some() || bind_dn.is_some() => {
                return Err(
                    "`filter` and `bind_dn` are for a search, which needs `base` in place of `user_dn`"
                        .to_owned(),
                );
            }
            _ => {}
        }
        if bind_dn.is_some() != password_file.is_some() {
            return Err("give both `bind_dn` and `password_file`, or leave both out".to_owned());
        }
        let user_dn = user_dn.map(|text| {
            let pattern = DnPattern::new(&text).filter(|_| is_dn(&text));
            pattern.ok_or_else(|| {
                format!("user_dn: write a distinguished name with {NAME} in it, once: \"uid={NAME},ou=people,dc=example\"")
            })
        });
        for (key, dn) in [("base", &base), ("bind_dn", &bind_dn)] {
            if let Some(dn) = dn.as_ref().filter(|dn| !is_dn(dn)) {
                return Err(format!("{key}: {dn:?} is not a distinguished name"));
            }
        }
        let filter = filter.unwrap_or_else(|| format!("(uid={NAME})"));
        let filter = Filter::parse(&filter).map_err(|error| format!("filter: {error}"))?;
        if !filter.has_name() {
            return Err(format!("filter: {NAME} is missing, the name of who logs in"));
        }
        if !(1..=GROUPS_MAX).contains(&group.len()) {
            return Err(format!("there are {} groups: write 1 to {GROUPS_MAX}", group.len()));
        }
        let starttls = !url.is_tls && !is_plain;
        let user_dn = user_dn.transpose()?;
        Ok(Self { url, starttls, ca, user_dn, base, filter, bind_dn, password_file, group })
    }
}

/// As it is written.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct LdapGroupText {
    dn: String,
    role: Role,
    rooms: Option<Vec<String>>,
}

impl TryFrom<LdapGroupText> for LdapGroup {
    type Error = String;

    fn try_from(text: LdapGroupText) -> Result<Self, String> {
        let LdapGroupText { dn, role, rooms } = text;
        if !is_dn(&dn) {
            return Err(format!("dn: {dn:?} is not a distinguished name"));
        }
        let rooms = match rooms {
            None => Rooms::All,
            Some(_) if role != Role::Teacher => {
                return Err(format!("`rooms` are limits of teachers, and {dn} is to be {role}"));
            }
            Some(names) => {
                let names: Result<Vec<RoomName>, _> =
                    names.iter().map(|name| name.parse()).collect();
                names.map_err(|error| error.to_string())?.into_iter().collect()
            }
        };
        Ok(Self { dn, role, rooms })
    }
}

/// Whether it can be one, as far as it matters here: the directory knows what is in it.
fn is_dn(text: &str) -> bool {
    text.len() <= DN_BYTES_MAX && text.contains('=') && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use std::path::Path;

    fn read(ldap: &str) -> Result<Config, String> {
        let network = "[network]\ninterface = \"br0\"\npool = \"10.77.0.100-10.77.0.199\"\n";
        let group = "[[ldap.group]]\ndn = \"cn=it\"\nrole = \"admin\"\n";
        let text = format!("{network}[ldap]\n{ldap}\n{group}");
        Config::parse(Path::new("bootlace.toml"), &text).map_err(|error| error.to_string())
    }

    #[test]
    fn what_would_send_passwords_in_clear_text_or_ask_nobody_is_refused() {
        for (ldap, why) in [
            ("url = \"ldap://lab.example\"\nstarttls = false\nbase = \"dc=x\"", "in clear text"),
            (
                "url = \"ldaps://lab.example\"\nstarttls = true\nbase = \"dc=x\"",
                "leave `starttls` out",
            ),
            ("url = \"https://lab.example\"\nbase = \"dc=x\"", "not the address of a directory"),
            (
                "url = \"ldaps://a:b@lab.example\"\nbase = \"dc=x\"",
                "not the address of a directory",
            ),
            (
                "url = \"ldaps://lab.example/dc=x\"\nbase = \"dc=x\"",
                "not the address of a directory",
            ),
            ("url = \"ldaps://x\"", "either `user_dn` or `base`"),
            ("url = \"ldaps://x\"\nbase = \"dc=x\"\nuser_dn = \"uid={name},dc=x\"", "either"),
            ("url = \"ldaps://x\"\nuser_dn = \"uid=name,dc=x\"", "with {name} in it"),
            (
                "url = \"ldaps://x\"\nuser_dn = \"uid={name}\"\nfilter = \"(uid={name})\"",
                "for a search",
            ),
            ("url = \"ldaps://x\"\nbase = \"dc=x\"\nfilter = \"(uid=anna)\"", "{name} is missing"),
            ("url = \"ldaps://x\"\nbase = \"dc=x\"\nfilter = \"uid={name}\"", "bracket"),
            ("url = \"ldaps://x\"\nbase = \"dc=x\"\nbind_dn = \"cn=b\"", "both `bind_dn`"),
            ("url = \"ldaps://x\"\nbase = \"people\"", "not a distinguished name"),
        ] {
            let error = read(ldap).unwrap_err();
            assert!(error.contains(why), "{ldap}: {error}");
        }
        for (ldap, url) in [
            (
                "url = \"ldap://127.0.0.1:1389\"\nstarttls = false\nbase = \"dc=x\"",
                "ldap://127.0.0.1:1389",
            ),
            (
                "url = \"ldap://localhost\"\nstarttls = false\nbase = \"dc=x\"",
                "ldap://localhost:389",
            ),
            ("url = \"ldaps://[2001:db8::1]/\"\nbase = \"dc=x\"", "ldaps://[2001:db8::1]:636"),
        ] {
            let ldap = read(ldap).unwrap().ldap.unwrap();
            assert_eq!((ldap.url.to_string().as_str(), ldap.starttls), (url, false));
        }
        assert!(
            read("url = \"ldap://lab.example\"\nbase = \"dc=x\"").unwrap().ldap.unwrap().starttls
        );
    }
}
