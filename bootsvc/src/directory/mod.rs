//! Asks a directory by LDAP who somebody is.
//!
//! Each login opens a connection of its own: there are few, and one that is kept would be lost when it is needed.

mod connection;

use crate::config::LdapConfig;
use crate::outbound::{Failed, Patience, secret};
use connection::{Connection, Stream, open, said};
use ldap::{
    BUSY, Filter, INVALID_CREDENTIALS, NO_SUCH_OBJECT, Outcome, SIZE_LIMIT_EXCEEDED, SUCCESS,
    Scope, UNAVAILABLE,
};
use model::UserName;
use service::{Directory, DirectoryAnswer, DirectoryAsked, DirectoryOptions, DirectoryTrouble};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How long all of it may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// By what a group may know somebody who has no distinguished name in it.
const UID: &str = "uid";

/// No attribute at all (RFC 4511, 4.5.1.8).
const NOTHING: &str = "1.1";

/// The directory, for the site.
pub(crate) fn options(config: Option<&LdapConfig>) -> Option<DirectoryOptions> {
    let config = config?.clone();
    let groups = config.groups();
    Some(DirectoryOptions { directory: Arc::new(Ldap(config)), groups })
}

#[derive(Debug)]
struct Ldap(LdapConfig);

impl Directory for Ldap {
    fn prove<'a>(&'a self, name: &'a UserName, password: &'a str) -> DirectoryAsked<'a> {
        Box::pin(async move {
            match prove(&self.0, name, password, &mut Vec::new()).await {
                Ok(Answer::In { groups, .. }) => Ok(DirectoryAnswer::In(groups)),
                Ok(out) => Ok(DirectoryAnswer::Out(out.to_string())),
                Err(failed) => Err(DirectoryTrouble(format!("{failed}. {}", failed.help))),
            }
        })
    }
}

/// What the directory says of somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// He has this entry, and is in these groups, by index; in one at least.
    In { dn: String, groups: Vec<usize> },
    /// Nobody has this name.
    NoEntry,
    /// It can't be said who is meant.
    SeveralEntries,
    /// This entry has another password, or may not log in.
    WrongPassword { dn: String, said: String },
    /// He is in none of the groups.
    InNoGroup { dn: String },
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::In { dn, .. } => write!(f, "{dn} is let in"),
            Self::NoEntry => f.write_str("no entry has this name"),
            Self::SeveralEntries => f.write_str("several entries have this name"),
            Self::WrongPassword { dn, said } => {
                write!(f, "the directory refuses the password of {dn}: {said}")
            }
            Self::InNoGroup { dn } => write!(f, "{dn} is in none of the groups that are let in"),
        }
    }
}

/// Whether this is the password of who has this name, and in which groups he is. Notes each step that is done.
///
/// # Errors
/// A step failed, so that nothing is known of him.
pub(crate) async fn prove(
    config: &LdapConfig,
    name: &UserName,
    password: &str,
    done: &mut Vec<String>,
) -> Result<Answer, Failed> {
    let patience = Patience::all(DEADLINE);
    let mut connection = open(config, patience, done).await?;
    let answer = prove_by(config, &mut connection, (name.as_str(), password), done).await?;
    connection.close().await;
    Ok(answer)
}

async fn prove_by(
    config: &LdapConfig,
    connection: &mut Connection<Box<dyn Stream>>,
    (name, password): (&str, &str),
    done: &mut Vec<String>,
) -> Result<Answer, Failed> {
    let mut known_as = None;
    let dn = match (&config.user_dn, &config.base) {
        (Some(pattern), _) => pattern.of(name),
        (None, base) => {
            bind_searcher(config, connection, done).await?;
            let found = (base.as_deref().unwrap_or_default(), Scope::Subtree);
            // Two are one too many.
            let searched = connection.search(found, 2, (&config.filter, name), &[UID]);
            let (mut entries, outcome) = searched.await?;
            match outcome.code {
                SUCCESS | SIZE_LIMIT_EXCEEDED => {}
                NO_SUCH_OBJECT if entries.is_empty() => {
                    let help = "Look at base, and whether bind_dn may read there.";
                    return Err(refused(config, "the search below base", &outcome, help));
                }
                _ => {
                    let help = "Look at base and filter, and whether bind_dn may read there: many directories let nobody search \
                                without it.";
                    return Err(refused(config, "the search below base", &outcome, help));
                }
            }
            let is_more = outcome.code == SIZE_LIMIT_EXCEEDED || entries.len() > 1;
            let Some(entry) = entries.pop() else { return Ok(Answer::NoEntry) };
            // One without a name would be nobody at all, as whom everybody may bind.
            if is_more || entry.dn.is_empty() {
                return Ok(Answer::SeveralEntries);
            }
            done.push(format!("found {}", entry.dn));
            known_as = uid(entry.attributes);
            entry.dn
        }
    };
    if password.is_empty() {
        let said = "nobody is let in without a password".to_owned();
        return Ok(Answer::WrongPassword { dn, said });
    }
    let outcome = connection.bind(&dn, password).await?;
    match outcome.code {
        SUCCESS => done.push(format!("the password of {dn} is right")),
        BUSY | UNAVAILABLE => {
            return Err(refused(config, "a login", &outcome, "Look at the directory's log."));
        }
        INVALID_CREDENTIALS => {
            let said = match outcome.text.trim() {
                "" => "it is wrong, or there is no such entry".to_owned(),
                text => text.to_owned(),
            };
            return Ok(Answer::WrongPassword { dn, said });
        }
        _ => return Ok(Answer::WrongPassword { dn, said: said(&outcome) }),
    }
    if config.user_dn.is_some() {
        // Who may not read his own entry is known by its name alone.
        let own = (dn.as_str(), Scope::Base);
        let (mut entries, _) = connection.search(own, 1, (&Filter::every(), ""), &[UID]).await?;
        known_as = entries.pop().and_then(|entry| uid(entry.attributes));
    }
    if config.bind_dn.is_some() {
        bind_searcher(config, connection, &mut Vec::new()).await?;
    }
    let mut members = vec![("member", dn.as_str()), ("uniqueMember", dn.as_str())];
    members.extend(known_as.as_deref().map(|uid| ("memberUid", uid)));
    let filter = Filter::any_of(&members);
    let mut groups = Vec::new();
    for (index, group) in config.group.iter().enumerate() {
        let place = (group.dn.as_str(), Scope::Base);
        let (entries, outcome) = connection.search(place, 1, (&filter, ""), &[NOTHING]).await?;
        match outcome.code {
            SUCCESS if entries.is_empty() => {}
            SUCCESS => {
                done.push(format!("in {}: {}", group.dn, group.role));
                groups.push(index);
            }
            // As for one that nobody may see: others may let him in.
            NO_SUCH_OBJECT => {
                tracing::warn!(group = group.dn, "the directory does not know this group");
                done.push(format!("{}: there is no such group, or it may not be read", group.dn));
            }
            _ => {
                let help =
                    "Look whether bind_dn, or who logs in if there is none, may read this group.";
                return Err(refused(config, &group.dn, &outcome, help));
            }
        }
    }
    Ok(match groups.is_empty() {
        true => Answer::InNoGroup { dn },
        false => Answer::In { dn, groups },
    })
}

/// The only value by which posix groups know somebody. Who has several is none of them for sure.
fn uid(attributes: Vec<(String, Vec<String>)>) -> Option<String> {
    let values = attributes.into_iter().filter(|(name, _)| name.eq_ignore_ascii_case(UID));
    let mut values: Vec<String> = values.flat_map(|(_, values)| values).collect();
    let value = values.pop()?;
    values.is_empty().then_some(value)
}

/// Becomes who searches, if it is not nobody.
async fn bind_searcher(
    config: &LdapConfig,
    connection: &mut Connection<Box<dyn Stream>>,
    done: &mut Vec<String>,
) -> Result<(), Failed> {
    let (Some(dn), Some(file)) = (&config.bind_dn, &config.password_file) else { return Ok(()) };
    let password = secret(file)?;
    let outcome = connection.bind(dn, &password).await?;
    if outcome.code != SUCCESS {
        let help = "Look at bind_dn and at the first line of password_file.";
        return Err(refused(config, &format!("the login as {dn}"), &outcome, help));
    }
    done.push(format!("logged in as {dn}"));
    Ok(())
}

fn refused(config: &LdapConfig, what: &str, outcome: &Outcome, help: &str) -> Failed {
    Failed::new(format!("{} refuses {what}", config.url), said(outcome), help)
}

/// Whether the directory answers, and lets in who searches. Returns what was done for that.
///
/// # Errors
/// The step that failed.
pub(crate) async fn check(config: &LdapConfig) -> Result<Vec<String>, Failed> {
    let mut done = Vec::new();
    let patience = Patience::all(DEADLINE);
    let mut connection = open(config, patience, &mut done).await?;
    bind_searcher(config, &mut connection, &mut done).await?;
    // Every directory tells about itself (RFC 4512, 5.1), or says that it does not: it answers.
    connection.search(("", Scope::Base), 1, (&Filter::every(), ""), &[NOTHING]).await?;
    connection.close().await;
    Ok(done)
}
