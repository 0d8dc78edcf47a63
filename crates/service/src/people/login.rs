//! Logging in: by name and password, or by a link that root of this server got.

use super::actor::{Actor, Via};
use super::directory::Known;
use super::rights::Admin;
use super::secret::{hash, new_secret};
use super::sessions::{SESSION_ENDS, SESSION_IDLE_MAX};
use crate::error::Error;
use crate::service::Service;
use crate::store::{LoginFailures, Session, Transaction, User};
use model::{Reach, Right, UserName};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// How long a link for logging in is good, if nobody uses it before.
pub const LOGIN_CODE_STAYS: Duration = Duration::from_secs(30 * 60);

/// Failures in a row after which each further attempt must wait, each twice as long as the one before.
const FAILURES_FREE: u32 = 4;

/// Longest wait of an address. It has two attempts each half an hour then.
const ADDRESS_WAIT_MAX: u64 = 15 * 60;

/// Longest wait of an account whose failures come from many addresses. Its owner is not to be kept out: he does not wait
/// where he has been logged in lately.
const ACCOUNT_WAIT_MAX: u64 = 60;

/// Failures are forgotten when there was none for so long.
const FAILURES_STAY: u64 = 24 * 3600;

/// As much of what a browser calls itself is kept.
const BROWSER_CHARS_MAX: usize = 120;

/// A browser that has just been logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSession {
    /// What the browser keeps. It is new with each login, so nobody can have given it to the browser before.
    pub secret: String,
    /// Who it is.
    pub actor: Actor,
}

/// Whose failures are counted for one attempt.
struct Subjects {
    account: Option<String>,
    address: Option<String>,
}

impl Subjects {
    fn new(user: Option<&UserName>, address: Option<IpAddr>) -> Self {
        Self {
            account: user.map(|user| format!("account {user}")),
            address: address.map(|address| format!("address {}", whose(address))),
        }
    }

    /// Of an account that has a session at this address: what others fail with there, or with this account elsewhere, does
    /// not count.
    fn of_known(user: &UserName, address: IpAddr) -> Self {
        Self { account: Some(format!("account {user} at {}", whose(address))), address: None }
    }

    fn all(&self) -> impl Iterator<Item = (&String, u64)> {
        let account = self.account.as_ref().map(|subject| (subject, ACCOUNT_WAIT_MAX));
        account.into_iter().chain(self.address.as_ref().map(|it| (it, ADDRESS_WAIT_MAX)))
    }
}

/// An attempt that is counted as failed until it is known that it did not.
struct Attempt {
    subjects: Subjects,
    at_unix: u64,
    /// What was counted before it.
    former: Vec<(String, LoginFailures)>,
    /// How often the account or the address has failed in a row, with it.
    n_failures: u32,
}

/// Who has one IPv6 address has all of its network.
fn whose(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        address => address,
    }
}

/// How long the next attempt must wait after so many failures, in seconds.
fn wait(n_failures: u32, max: u64) -> u64 {
    match n_failures.checked_sub(FAILURES_FREE) {
        None => 0,
        Some(n) => (1u64 << n.min(20)).min(max),
    }
}

impl Service {
    /// Logs a browser in by name and password. `address` is where it is. Who has no account here is asked of the directory,
    /// if there is one.
    ///
    /// # Errors
    /// Name or password are wrong, which of both is not said; earlier attempts failed just now; too many people log in
    /// now; the directory does not answer; or the database can't be written.
    pub async fn log_in(
        &self,
        name: &str,
        password: String,
        address: Option<IpAddr>,
        browser: &str,
    ) -> Result<NewSession, Error> {
        let name: Option<UserName> = name.trim().parse().ok();
        let known = match name.as_ref().filter(|name| self.directory_of(name).is_some()) {
            Some(name) => self.prove_by_directory(name, &password, address).await?,
            None => Known::Account(self.prove_password(name.as_ref(), password, address).await?),
        };
        self.begin_session(Some(known), address, browser).await
    }

    /// Who has this name and password in the directory. Attempts that fail make the next ones wait.
    async fn prove_by_directory(
        &self,
        name: &UserName,
        password: &str,
        address: Option<IpAddr>,
    ) -> Result<Known, Error> {
        let directory = self.directory_of(name).ok_or(Error::LoginRefused)?;
        let attempt = self.count_attempt(Some(name), address).await?;
        match self.ask_directory(directory, name, password).await {
            Ok(Ok(groups)) => {
                self.forgive(attempt).await?;
                Ok(Known::ByDirectory(name.clone(), groups))
            }
            Ok(Err(why)) => Err(self.refuse(&attempt, Some(name), address, &why).await?),
            Err(error) => {
                // Nobody has looked at it.
                self.take_back(attempt).await?;
                Err(error)
            }
        }
    }

    /// Who has this account and password. Attempts that fail make the next ones wait.
    pub(super) async fn prove_password(
        &self,
        name: Option<&UserName>,
        password: String,
        address: Option<IpAddr>,
    ) -> Result<User, Error> {
        let user = name.and_then(|name| self.view().people.users.get(name).cloned());
        let attempt = self.count_attempt(name, address).await?;
        let hash = user.as_ref().map(|user| user.password.clone());
        let is_right = match self.passwords().is_right(password, hash).await {
            Ok(is_right) => is_right,
            Err(error) => {
                // Nobody has looked at it.
                self.take_back(attempt).await?;
                return Err(error);
            }
        };
        if let Some(user) = user.filter(|_| is_right) {
            self.forgive(attempt).await?;
            return Ok(user);
        }
        Err(self.refuse(&attempt, name, address, "wrong name or password").await?)
    }

    /// An attempt was right: what the account has failed with before is forgotten.
    async fn forgive(&self, attempt: Attempt) -> Result<(), Error> {
        let account = attempt.subjects.account.clone();
        self.take_back(attempt).await?;
        let forgotten = self.database().write(move |tables| {
            Ok(account.iter().try_for_each(|it| tables.forget_login_failures(it))?)
        });
        forgotten.await
    }

    /// Tells the log that an attempt has failed, and returns what is told to who made it.
    async fn refuse(
        &self,
        attempt: &Attempt,
        name: Option<&UserName>,
        address: Option<IpAddr>,
        why: &str,
    ) -> Result<Error, Error> {
        let name = name.map_or("-", UserName::as_str);
        let from = address.map_or_else(String::new, |address| address.to_string());
        tracing::warn!(account = name, from, why, "login refused");
        // Few entries for many attempts: the log is never cut.
        let n_failures = attempt.n_failures;
        if n_failures >= FAILURES_FREE && n_failures.is_power_of_two() {
            let actor = Actor { via: Via::Session(0), address, ..Actor::watcher() };
            let mut entry = actor.does("login.refused", name, Vec::new(), self.now().unix_ms);
            "nobody".clone_into(&mut entry.who);
            self.database().write(move |tables| Ok(tables.put_audit(&entry)?)).await?;
        }
        Ok(Error::LoginRefused)
    }

    /// An attempt did not fail: what was counted before it counts on, as if it had not been.
    async fn take_back(&self, attempt: Attempt) -> Result<(), Error> {
        let written = self.database().write(move |tables| {
            let Attempt { former, at_unix, .. } = attempt;
            let mut former = former.into_iter();
            Ok(former.try_for_each(|(subject, former)| {
                tables.uncount_login_failure(&subject, at_unix, former)
            })?)
        });
        written.await
    }

    /// Counts an attempt as failed before it is made, so that many at once are no more than many one after the other.
    async fn count_attempt(
        &self,
        name: Option<&UserName>,
        address: Option<IpAddr>,
    ) -> Result<Attempt, Error> {
        let now = self.now().unix();
        let known = name.zip(address).filter(|(name, address)| {
            let address = address.to_string();
            let view = self.view();
            let mut sessions = view.people.sessions.values();
            sessions.any(|it| it.user.as_ref() == Some(*name) && it.address == address)
        });
        let subjects = match known {
            Some((name, address)) => Subjects::of_known(name, address),
            None => Subjects::new(name, address),
        };
        let counted = self.database().write(move |tables| {
            let mut wait_seconds = 0;
            for (subject, max) in subjects.all() {
                wait_seconds = wait_seconds.max(wait_left(tables, subject, max, now)?);
            }
            if wait_seconds > 0 {
                return Err(Error::LoginDelayed { seconds: wait_seconds }.into());
            }
            let (mut n_failures, mut former) = (0, Vec::new());
            for (subject, _) in subjects.all() {
                former.push((subject.clone(), tables.login_failures(subject)?));
                let n = tables.count_login_failure(subject, now)?;
                n_failures = n_failures.max(n);
            }
            Ok(Attempt { subjects, at_unix: now, former, n_failures })
        });
        counted.await
    }

    /// Logs a browser in by the code of a link that root of this server got. It is good once.
    ///
    /// # Errors
    /// The code is not good, or not any more; or the database can't be written.
    pub async fn log_in_by_code(
        &self,
        code: &str,
        address: Option<IpAddr>,
        browser: &str,
    ) -> Result<NewSession, Error> {
        let (code, now) = (hash(code), self.now().moment);
        let until = self.login_codes().take(&code, now).ok_or(Error::LoginCodeVoid)?;
        let begun = self.begin_session(None, address, browser).await;
        if begun.is_err() {
            // Nobody has used it.
            self.login_codes().put(code, until, now);
        }
        begun
    }

    async fn begin_session(
        &self,
        known: Option<Known>,
        address: Option<IpAddr>,
        browser: &str,
    ) -> Result<NewSession, Error> {
        let (secret, hash) = new_secret("")?;
        let now = self.now();
        let now_unix = now.unix();
        let is_shown = |letter: &char| letter.is_ascii_graphic() || *letter == ' ';
        let session = Session {
            id: 0,
            user: known.as_ref().map(|known| known.name().clone()),
            directory_groups: match &known {
                Some(Known::ByDirectory(_, groups)) => Some(groups.clone()),
                Some(Known::Account(_)) | None => None,
            },
            created_unix: now_unix,
            last_unix: now_unix,
            address: address.map_or_else(String::new, |address| address.to_string()),
            browser: browser.chars().filter(is_shown).take(BROWSER_CHARS_MAX).collect(),
        };
        let name = session.user.clone();
        let (right, reach) = match &known {
            Some(Known::Account(user)) => user.limits(),
            Some(Known::ByDirectory(..)) => {
                self.limits_of_session(&session).ok_or(Error::LoginRefused)?
            }
            None => (Right::Admin, Reach::EVERYWHERE),
        };
        let via: fn(u64) -> Via = match session.directory_groups {
            Some(_) => Via::Directory,
            None => Via::Session,
        };
        let mut actor = Actor { user: name, right, reach, via: via(0), address };
        let entry = actor.does("login", actor.name(), Vec::new(), now.unix_ms);
        let ended = (
            now_unix.saturating_sub(SESSION_IDLE_MAX.as_secs()),
            now_unix.saturating_sub(SESSION_ENDS.as_secs()),
        );
        let written = self.database().write(move |tables| {
            // The password may have been changed while it was looked at, or an account made of this name.
            let is_void = match known {
                Some(Known::Account(user)) => {
                    tables.user(&user.name)?.is_none_or(|now| now.password != user.password)
                }
                Some(Known::ByDirectory(name, _)) => tables.user(&name)?.is_some(),
                None => false,
            };
            if is_void {
                return Err(Error::LoginRefused.into());
            }
            let id = tables.put_session(&hash, &session, ended)?;
            tables.put_audit(&entry)?;
            Ok(id)
        });
        actor.via = via(written.await?);
        tracing::info!(account = actor.name(), "logged in");
        Ok(NewSession { secret, actor })
    }
}

/// How long an attempt must wait, in seconds.
fn wait_left(
    tables: &Transaction<'_>,
    subject: &str,
    max: u64,
    now: u64,
) -> crate::store::Result<u64> {
    let failures = tables.login_failures(subject)?;
    // A failure of the future tells of a clock that was ahead.
    let Some(elapsed) = now.checked_sub(failures.last_unix) else { return Ok(0) };
    if elapsed >= FAILURES_STAY {
        tables.forget_login_failures(subject)?;
        return Ok(0);
    }
    Ok(wait(failures.n, max).saturating_sub(elapsed))
}

impl Admin {
    /// A code that logs a browser in as root, once, within [`LOGIN_CODE_STAYS`]. Only commands on the server get one.
    ///
    /// # Errors
    /// Somebody asks who is not on the server, the database can't be written, or the kernel gives no random bytes.
    pub async fn new_login_code(&self) -> Result<String, Error> {
        if !matches!(self.actor().via(), Via::Command(_)) {
            return Err(Error::OnlyOnServer);
        }
        let (code, hash) = new_secret("")?;
        let now = self.service().now();
        let entry = self.actor().does("login.link", self.actor().name(), Vec::new(), now.unix_ms);
        self.service().database().write(move |tables| Ok(tables.put_audit(&entry)?)).await?;
        let now = now.moment;
        self.service().login_codes().put(hash, now + LOGIN_CODE_STAYS, now);
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_networks_count_as_one_address() {
        let waits: Vec<u64> = (0..9).map(|n| wait(n, 60)).collect();
        assert_eq!(waits, [0, 0, 0, 0, 1, 2, 4, 8, 16]);
        assert_eq!((wait(12, 60), wait(1000, 900)), (60, 900));
        let address = |text: &str| whose(text.parse().unwrap()).to_string();
        assert_eq!(address("2001:db8::1:2:3:4"), "2001:db8::");
        assert_eq!(
            (address("::ffff:10.0.0.7"), address("10.0.0.7")),
            ("10.0.0.7".into(), "10.0.0.7".into())
        );
    }
}
