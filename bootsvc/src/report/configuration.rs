//! The configuration without what is secret, or may be: of keys that are not known, and where a value must be a file and is
//! none, somebody may have written a password.

use super::censor::{Censor, REMOVED};
use std::path::Path;
use toml::{Table, Value};

/// What is done with the value of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Show,
    /// The path of a file that is there. What is in it is secret if the second says so.
    File {
        is_secret: bool,
    },
    /// Parameters of kernels.
    Arguments,
    /// An address that may be one that only we know.
    Url,
    /// It says who somebody is.
    Hide,
}

const RULES: &[(&str, Rule)] = &[
    ("network.interface", Rule::Show),
    ("network.subnet", Rule::Show),
    ("network.pool", Rule::Show),
    ("network.serve_everyone", Rule::Show),
    ("network.router", Rule::Show),
    ("network.routes", Rule::Show),
    ("network.dns", Rule::Show),
    ("network.ntp", Rule::Show),
    ("network.domain", Rule::Show),
    ("network.mtu", Rule::Show),
    ("network.vlan", Rule::Show),
    ("network.storage_network", Rule::Show),
    ("network.storage_mtu", Rule::Show),
    ("network.reserve", Rule::Show),
    ("network.address_by", Rule::Show),
    ("network.mode", Rule::Show),
    ("network.beside_others", Rule::Show),
    ("network.lease", Rule::Show),
    ("network.answer_router_solicitations", Rule::Show),
    ("boot.kernel_args", Rule::Arguments),
    ("boot.fitted_initrds", Rule::Show),
    ("boot.reboot_after_failure_seconds", Rule::Show),
    ("boot.ram", Rule::Show),
    ("boot.zram", Rule::Show),
    ("boot.rescue_busybox", Rule::File { is_secret: false }),
    ("boot.strangers", Rule::Show),
    ("boot.menu_password", Rule::Hide),
    ("boot.secure_boot", Rule::Show),
    ("boot.secure_boot_of", Rule::Show),
    ("boot.loader", Rule::Show),
    ("boot.loader_of", Rule::Show),
    ("boot.signed_loader", Rule::File { is_secret: false }),
    ("boot.arm64_grub", Rule::File { is_secret: false }),
    ("boot.arm64_signed_loader", Rule::File { is_secret: false }),
    ("web.listen", Rule::Show),
    ("web.names", Rule::Show),
    ("web.tls", Rule::Show),
    ("web.certificate", Rule::File { is_secret: false }),
    ("web.key", Rule::File { is_secret: true }),
    ("storage.nbd_port", Rule::Show),
    ("storage.nbd_addresses", Rule::Show),
    ("storage.aoe_interfaces", Rule::Show),
    ("storage.aoe_mac", Rule::Show),
    ("storage.layer_max", Rule::Show),
    ("storage.snapshots_kept", Rule::Show),
    ("storage.nbd_tls.certificate", Rule::File { is_secret: false }),
    ("storage.nbd_tls.key", Rule::File { is_secret: true }),
    ("storage.nbd_tls.client_ca", Rule::File { is_secret: false }),
    ("storage.nbd_tls.machine_ca", Rule::File { is_secret: false }),
    ("storage.nbd_tls.require", Rule::Show),
    ("service.user", Rule::Show),
    ("service.admin_group", Rule::Show),
    ("ldap.url", Rule::Show),
    ("ldap.starttls", Rule::Show),
    ("ldap.ca", Rule::File { is_secret: false }),
    ("ldap.user_dn", Rule::Hide),
    ("ldap.base", Rule::Hide),
    ("ldap.filter", Rule::Show),
    ("ldap.bind_dn", Rule::Hide),
    ("ldap.password_file", Rule::File { is_secret: true }),
    ("ldap.group", Rule::Hide),
    ("ldap.group.dn", Rule::Hide),
    ("ldap.group.role", Rule::Hide),
    ("ldap.group.rooms", Rule::Hide),
    ("alerts.level", Rule::Show),
    ("alerts.messages_per_hour", Rule::Show),
    ("alerts.mail.host", Rule::Show),
    ("alerts.mail.port", Rule::Show),
    ("alerts.mail.tls", Rule::Show),
    ("alerts.mail.user", Rule::Hide),
    ("alerts.mail.password_file", Rule::File { is_secret: true }),
    ("alerts.mail.from", Rule::Hide),
    ("alerts.mail.to", Rule::Hide),
    ("alerts.mail.ca", Rule::File { is_secret: false }),
    ("alerts.webhook.url", Rule::Url),
    ("alerts.webhook.token_file", Rule::File { is_secret: true }),
    ("alerts.webhook.ca", Rule::File { is_secret: false }),
];

/// Largest file with a secret that is read.
const SECRET_BYTES_MAX: u64 = 256 << 10;

/// The configuration as it may be shown; what is left out is learned. Comments are left out as well.
pub(super) fn censored(text: &str, censor: &mut Censor) -> String {
    match toml::from_str::<Table>(text) {
        Ok(table) => {
            let shown = shown("", table, censor);
            let text = toml::to_string(&shown)
                .unwrap_or_else(|error| format!("can't be shown: {error}\n"));
            censor.text(&text)
        }
        Err(_) => keys_only(text, censor),
    }
}

fn shown(path: &str, table: Table, censor: &mut Censor) -> Table {
    let entry = |(name, value): (String, Value)| {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let rule = RULES.iter().find(|(key, _)| *key == path).map(|(_, rule)| *rule);
        let is_section = RULES.iter().any(|(key, _)| key.starts_with(&format!("{path}.")));
        let value = match (rule, value) {
            (Some(Rule::Show), value) => value,
            (None, Value::Table(table)) if is_section => Value::Table(shown(&path, table, censor)),
            // A `[[network]]` for each of several.
            (None, Value::Array(all)) if is_section && all.iter().all(Value::is_table) => {
                let each = all.into_iter().map(|one| match one {
                    Value::Table(table) => Value::Table(shown(&path, table, censor)),
                    other => other,
                });
                Value::Array(each.collect())
            }
            (Some(Rule::Arguments), Value::String(text)) => censor.arguments(&text).into(),
            (Some(Rule::Url), Value::String(text)) => url(&text, censor).into(),
            (Some(Rule::File { is_secret }), Value::String(text)) => {
                file(&text, is_secret, censor).into()
            }
            (Some(Rule::Hide), _) => REMOVED.into(),
            (_, value) => {
                learn(&value, censor);
                REMOVED.into()
            }
        };
        (name, value)
    };
    table.into_iter().map(entry).collect()
}

fn learn(value: &Value, censor: &mut Censor) {
    match value {
        Value::String(text) => censor.learn(text),
        Value::Integer(number) => censor.learn(&number.to_string()),
        Value::Array(values) => values.iter().for_each(|value| learn(value, censor)),
        Value::Table(table) => table.values().for_each(|value| learn(value, censor)),
        _ => {}
    }
}

fn url(text: &str, censor: &mut Censor) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        censor.learn(text);
        return REMOVED.to_owned();
    };
    // Chats let in who knows the path.
    match rest.split_once('/') {
        Some((host, path)) => {
            censor.learn(path);
            path.split(['/', '?', '&', '=']).for_each(|part| censor.learn(part));
            censor.text(&format!("{scheme}://{host}/{REMOVED}"))
        }
        None => censor.text(text),
    }
}

fn file(text: &str, is_secret: bool, censor: &mut Censor) -> String {
    use std::io::Read as _;
    let path = Path::new(text);
    if !path.is_absolute() || !path.is_file() {
        censor.learn(text);
        return REMOVED.to_owned();
    }
    if is_secret && let Ok(file) = std::fs::File::open(path) {
        let mut bytes = Vec::new();
        // What we can't read is in nothing that we write.
        let _ = file.take(SECRET_BYTES_MAX).read_to_end(&mut bytes);
        censor.learn(&String::from_utf8_lossy(&bytes));
    }
    text.to_owned()
}

/// Of one that is no TOML: which keys it has, and in which line.
fn keys_only(text: &str, censor: &mut Censor) -> String {
    let mut lines = vec!["# It is no TOML; only its keys are shown.".to_owned()];
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        let is_name = |it: char| it.is_ascii_alphanumeric() || "._-".contains(it);
        let section = line.trim_matches(['[', ']']);
        if line.starts_with('[') && line.ends_with(']') && section.chars().all(is_name) {
            lines.push(line.to_owned());
        } else if let Some((key, value)) = line.split_once('=') {
            for part in value.split(['"', '\'']).chain([value]) {
                censor.learn(part.trim());
                // They may be parameters of kernels, of which logs show one at a time.
                let _ = censor.arguments(part);
            }
            let key = key.trim();
            let key = if key.chars().all(is_name) { key } else { REMOVED };
            lines.push(format!("{key} = {REMOVED} # line {}", number + 1));
        } else if !line.is_empty() && !line.starts_with('#') {
            censor.learn(line);
        }
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_of_the_book_has_a_rule() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
        let page = std::fs::read_to_string(page).unwrap();
        let names: Vec<&str> =
            RULES.iter().map(|(key, _)| key.rsplit('.').next().unwrap()).collect();
        let keys = page.lines().filter_map(|line| line.strip_prefix("### "));
        let tables = ["nbd_tls", "mail", "webhook"];
        let mut n_keys = 0;
        for key in keys {
            n_keys += 1;
            let key = key.rsplit('.').next().unwrap();
            assert!(names.contains(&key) || tables.contains(&key), "what is done with {key}?");
        }
        assert!(n_keys > 30, "{n_keys}");
    }

    #[test]
    fn each_of_several_networks_is_shown() {
        let block = "[[network]]\ninterface = \"br0\"\n";
        let text =
            format!("{block}{block}subnet = \"10.20.0.0/16\"\npasword = \"unknown-secret\"\n");
        let mut censor = Censor::default();
        let shown = censored(&text, &mut censor);
        assert_eq!(shown.matches(block).count(), 2, "{shown}");
        assert!(
            shown.contains("subnet = \"10.20.0.0/16\"") && !shown.contains("secret"),
            "{shown}"
        );
        assert_eq!(censor.text("br0 unknown-secret").matches("secret").count(), 0);
        assert!(censor.text("br0").contains("br0"));
    }

    #[test]
    fn what_may_be_secret_goes_and_the_rest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token");
        std::fs::write(&token, "abracadabra\n").unwrap();
        let text = format!(
            "# the old one was comment-secret\n[network]\ninterface = \"br0\"\npool = \"10.0.5.2-10.0.5.9\"\n\
             [boot]\nkernel_args = \"quiet pin=args-secret\"\n\
             [alerts.mail]\nhost = \"mail.lab\"\npasword = \"unknown-secret\"\npassword_file = \"/file-secret\"\n\
             user = \"tom\"\n[alerts.webhook]\nurl = \"https://chat.lab/hooks/path-secret\"\ntoken_file = {token:?}\n[new]\nx = \"new-secret\"\n"
        );
        let mut censor = Censor::default();
        let shown = censored(&text, &mut censor);
        let log = "comment-secret args-secret unknown-secret /file-secret path-secret abracadabra new-secret";
        let log = censor.text(log);
        for secret in [
            "args-secret",
            "unknown-secret",
            "file-secret",
            "path-secret",
            "abracadabra",
            "new-secret",
        ] {
            assert!(!shown.contains(secret) && !log.contains(secret), "{secret}: {shown}{log}");
        }
        assert!(!shown.contains("comment-secret"), "{shown}");
        for kept in
            ["interface = \"br0\"", "mail.lab", "https://chat.lab/", "quiet pin=", "pasword"]
        {
            assert!(shown.contains(kept), "{kept} is not in {shown}");
        }
    }

    #[test]
    fn one_that_is_broken_shows_its_keys() {
        let mut censor = Censor::default();
        let shown = censored(
            "[network\ninterface = \"br0\"\nkey = “typed-secret”\nloose-secret\n",
            &mut censor,
        );
        assert!(
            shown.contains("interface = [removed] # line 2") && !shown.contains("secret"),
            "{shown}"
        );
        assert_eq!(censor.text("it says loose-secret"), "it says [removed]");
    }
}
