//! `[alerts]`.

use super::values::{host, mailbox, mailboxes, messages_per_hour, port_or_usual, url};
use hyper::Uri;
use lettre::message::Mailbox;
use model::Level;
use service::{AlertOptions, Channel};
use std::net::IpAddr;
use std::path::PathBuf;

/// `[alerts]`.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AlertsConfig {
    /// Which [findings](findings.md) are told: those of this level, and all that are worse.
    ///
    /// - Value: `alarm`, `warning` or `notice`
    /// - Default: `level = "warning"`
    /// - Example: `level = "alarm"`
    pub(crate) level: AlertLevel,
    /// How many messages are sent in an hour at most, by mail and by webhook each. The last one is kept for alarms; what
    /// has no place is in the next message.
    ///
    /// - Value: 1 to 60
    /// - Default: `messages_per_hour = 10`
    /// - Example: `messages_per_hour = 4`
    #[serde(deserialize_with = "messages_per_hour")]
    pub(crate) messages_per_hour: u32,
    /// Sends alerts by mail.
    ///
    /// - Value: a table with the keys below
    /// - Default: none; nothing is sent by mail
    /// - Example: `mail = { host = "mail.school.example", from = "bootlace@school.example", to = ["admin@school.example"] }`
    pub(crate) mail: Option<MailConfig>,
    /// Sends alerts as JSON to a server of yours, or of a chat.
    ///
    /// - Value: a table with the keys below
    /// - Default: none; nothing is sent
    /// - Example: `webhook = { url = "https://chat.school.example/hooks/bootlace" }`
    pub(crate) webhook: Option<WebhookConfig>,
}

impl Default for AlertsConfig {
    fn default() -> Self {
        let AlertOptions { per_hour, .. } = AlertOptions::default();
        Self { level: AlertLevel::Warning, messages_per_hour: per_hour, mail: None, webhook: None }
    }
}

impl AlertsConfig {
    /// What is sent of.
    pub(crate) fn options(&self) -> AlertOptions {
        let mail = self.mail.is_some().then_some(Channel::Mail);
        let webhook = self.webhook.is_some().then_some(Channel::Webhook);
        let least = match self.level {
            AlertLevel::Alarm => Level::Alarm,
            AlertLevel::Warning => Level::Warning,
            AlertLevel::Notice => Level::Notice,
        };
        let channels = mail.into_iter().chain(webhook).collect();
        AlertOptions { least, per_hour: self.messages_per_hour, channels }
    }

    /// Files that are read to send something.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let mail = self.mail.iter().flat_map(|mail| [&mail.password_file, &mail.ca]);
        let webhook = self.webhook.iter().flat_map(|hook| [&hook.token_file, &hook.ca]);
        mail.chain(webhook).flatten()
    }
}

/// The least bad of what is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AlertLevel {
    Alarm,
    Warning,
    Notice,
}

/// How a mail server is talked to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MailTls {
    /// In clear text until both have agreed on TLS, without which nothing is sent.
    #[default]
    Starttls,
    /// By TLS from the first byte.
    Tls,
    /// In clear text.
    None,
}

/// `mail` in `[alerts]`.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(try_from = "MailText")]
pub(crate) struct MailConfig {
    /// The mail server.
    ///
    /// - Value: a name, or an IP address
    /// - Required
    /// - Example: `host = "mail.school.example"`
    pub(crate) host: String,
    /// Its port.
    ///
    /// - Value: a port number
    /// - Default: 587 with `tls = "starttls"`, 465 with `"tls"`, 25 with `"none"`
    /// - Example: `port = 2525`
    pub(crate) port: u16,
    /// Whether the connection is encrypted: `starttls` begins in clear text and sends nothing unless the server encrypts,
    /// `tls` does so from the first byte, and `none` does not.
    ///
    /// - Value: `starttls`, `tls` or `none`; with a password `none` is for this host only
    /// - Default: `tls = "starttls"`
    /// - Example: `tls = "tls"`
    pub(crate) tls: MailTls,
    /// The account at the mail server.
    ///
    /// - Value: as the server calls it
    /// - Default: none; it takes mail from this host without
    /// - Example: `user = "bootlace@school.example"`
    pub(crate) user: Option<String>,
    /// A file with the account's password in its first line, which the servers' user can read, and others should not. It is
    /// read for each message.
    ///
    /// - Value: the path of a file
    /// - Default: none
    /// - Example: `password_file = "/etc/bootlace/mail-password"`
    pub(crate) password_file: Option<PathBuf>,
    /// From whom messages come.
    ///
    /// - Value: a mail address, also with a name: `Bootlace <bootlace@school.example>`
    /// - Required
    /// - Example: `from = "bootlace@school.example"`
    pub(crate) from: Mailbox,
    /// To whom they go.
    ///
    /// - Value: a list of 1 to 20 mail addresses
    /// - Required
    /// - Example: `to = ["admin@school.example"]`
    pub(crate) to: Vec<Mailbox>,
    /// Authorities whose certificates are accepted beside those that this host trusts.
    ///
    /// - Value: the path of a PEM file
    /// - Default: none
    /// - Example: `ca = "/etc/bootlace/school-ca.pem"`
    pub(crate) ca: Option<PathBuf>,
}

/// As it is written.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct MailText {
    #[serde(deserialize_with = "host")]
    host: String,
    #[serde(default, deserialize_with = "port_or_usual")]
    port: Option<u16>,
    #[serde(default)]
    tls: MailTls,
    user: Option<String>,
    password_file: Option<PathBuf>,
    #[serde(deserialize_with = "mailbox")]
    from: Mailbox,
    #[serde(deserialize_with = "mailboxes")]
    to: Vec<Mailbox>,
    ca: Option<PathBuf>,
}

impl TryFrom<MailText> for MailConfig {
    type Error = &'static str;

    fn try_from(text: MailText) -> Result<Self, Self::Error> {
        let MailText { host, port, tls, user, password_file, from, to, ca } = text;
        if user.is_some() != password_file.is_some() {
            return Err("give both `user` and `password_file`, or leave both out");
        }
        if user.is_some() && tls == MailTls::None && !is_here(&host) {
            return Err(
                "the password would go over the network in clear text: write tls = \"starttls\" or \"tls\"",
            );
        }
        let port = port.unwrap_or(match tls {
            MailTls::Starttls => 587,
            MailTls::Tls => 465,
            MailTls::None => 25,
        });
        Ok(Self { host, port, tls, user, password_file, from, to, ca })
    }
}

/// `webhook` in `[alerts]`.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(try_from = "WebhookText")]
pub(crate) struct WebhookConfig {
    /// Where messages go, by POST.
    ///
    /// - Value: an address that begins with `https://` or `http://`
    /// - Required
    /// - Example: `url = "https://chat.school.example/hooks/bootlace"`
    pub(crate) url: Uri,
    /// A file with a token in its first line, which is sent as `Authorization: Bearer`. The servers' user must be able to read
    /// it, and others should not. It is read for each message.
    ///
    /// - Value: the path of a file; with `http://` for this host only
    /// - Default: none
    /// - Example: `token_file = "/etc/bootlace/webhook-token"`
    pub(crate) token_file: Option<PathBuf>,
    /// Authorities whose certificates are accepted beside those that this host trusts.
    ///
    /// - Value: the path of a PEM file
    /// - Default: none
    /// - Example: `ca = "/etc/bootlace/school-ca.pem"`
    pub(crate) ca: Option<PathBuf>,
}

/// As it is written.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct WebhookText {
    #[serde(deserialize_with = "url")]
    url: Uri,
    token_file: Option<PathBuf>,
    ca: Option<PathBuf>,
}

impl TryFrom<WebhookText> for WebhookConfig {
    type Error = &'static str;

    fn try_from(text: WebhookText) -> Result<Self, Self::Error> {
        let WebhookText { url, token_file, ca } = text;
        let is_clear = url.scheme_str() == Some("http") && !is_here(url.host().unwrap_or_default());
        match token_file {
            Some(_) if is_clear => Err(
                "the token would go over the network in clear text: write an address that begins with https://",
            ),
            token_file => Ok(Self { url, token_file, ca }),
        }
    }
}

/// Whether what is said to this host stays here.
pub(super) fn is_here(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}
