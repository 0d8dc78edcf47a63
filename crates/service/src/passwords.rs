//! Passwords: hashed by argon2id, at most two at once.

use crate::error::Error;
use argon2::Argon2;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use model::UserName;
use tokio::sync::Semaphore;

/// Passwords that are hashed at once: each takes 19 MiB and some 30 ms of a core, of which DHCP shall have one.
const AT_ONCE_MAX: usize = 2;

/// Who waits for that at most; others are told to come again.
const WAITING_MAX: usize = 16;

/// Shortest password, in characters.
const PASSWORD_CHARS_MIN: usize = 10;

/// Longest password, in bytes.
pub(crate) const PASSWORD_BYTES_MAX: usize = 1024;

/// Looks like the hash of a password that nobody has: who has no account is let wait as long as who has one.
const NOBODYS: &str = "$argon2id$v=19$m=19456,t=2,p=1$Ym9vdGxhY2Utbm9ib2R5$3Kv1Xr8eQ9o0y6cJ4m2b7sZtVwLqPnHdGfUaRiEk5T0";

/// A bound of how many passwords are looked at.
pub(crate) struct Places {
    at_once: Semaphore,
    waiting: Semaphore,
}

impl Places {
    /// So many are looked at, and as many as usual wait for that.
    pub(crate) fn new(at_once_max: usize) -> Self {
        Self {
            at_once: Semaphore::new(at_once_max),
            waiting: Semaphore::new(at_once_max + WAITING_MAX),
        }
    }

    /// Does work that is bounded.
    pub(crate) async fn bounded<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        let _waiting = self.waiting.try_acquire().map_err(|_| Error::TooManyLogins)?;
        let _place = self.at_once.acquire().await.map_err(|_| Error::Stopping)?;
        Ok(work.await)
    }
}

/// Bounds how many passwords are hashed.
pub(crate) struct Passwords(Places);

impl Default for Passwords {
    fn default() -> Self {
        Self(Places::new(AT_ONCE_MAX))
    }
}

impl Passwords {
    /// The hash of a new password.
    pub(crate) async fn hash(&self, password: String) -> Result<String, Error> {
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).map_err(|_| Error::NoRandomness)?;
        self.bounded(move || {
            let hashed = Argon2::default().hash_password_with_salt(password.as_bytes(), &salt);
            hashed.map(|hash| hash.to_string()).map_err(|_| Error::NoRandomness)
        })
        .await?
    }

    /// Whether the password has this hash; without one it takes as long, and it has not.
    pub(crate) async fn is_right(
        &self,
        password: String,
        hash: Option<String>,
    ) -> Result<bool, Error> {
        // Longer ones are nobody's, and would take longer.
        let password = if password.len() > PASSWORD_BYTES_MAX { String::new() } else { password };
        self.bounded(move || {
            let stored = hash.as_deref().unwrap_or(NOBODYS);
            let is_right = Argon2::default().verify_password(password.as_bytes(), stored).is_ok();
            is_right && hash.is_some()
        })
        .await
    }

    async fn bounded<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let work = async { tokio::task::spawn_blocking(work).await };
        self.0.bounded(work).await?.map_err(|_| Error::Stopping)
    }
}

/// Whether this is a password that the account may have.
///
/// # Errors
/// [`Error::BadPassword`], with the reason.
pub fn check(password: &str, user: &UserName) -> Result<(), Error> {
    let refused = |why| Err(Error::BadPassword(why));
    if password.chars().count() < PASSWORD_CHARS_MIN {
        return refused(
            "it must have at least 10 characters; three or four words that have nothing to do with each other do well",
        );
    }
    if password.len() > PASSWORD_BYTES_MAX {
        return refused("it must have at most 1024 bytes");
    }
    if password.to_lowercase().contains(user.as_str()) && user.as_str().len() > 3 {
        return refused("it must not contain the name of the account");
    }
    let first = password.chars().next();
    if password.chars().all(|letter| Some(letter) == first) {
        return refused("it must not be one character many times");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_has_no_account_waits_as_long_as_who_has_one() {
        let passwords = Passwords::default();
        let hash = passwords.hash("correct horse battery".to_owned()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        let right = |password: &str, hash: Option<&String>| {
            passwords.is_right(password.to_owned(), hash.cloned())
        };
        assert!(right("correct horse battery", Some(&hash)).await.unwrap());
        assert!(!right("correct horse batterx", Some(&hash)).await.unwrap());
        assert!(!right("correct horse battery", None).await.unwrap());
        // The same work is done for both: the cost is in the hash, and that is one which can be compared with.
        let cost = |hash: &str| hash.split('$').take(4).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(cost(NOBODYS), cost(&hash));
        let compared = Argon2::default().verify_password(b"wrong", NOBODYS);
        assert_eq!(compared, Err(argon2::password_hash::Error::PasswordInvalid));
    }

    #[tokio::test]
    async fn beyond_the_queue_people_are_told_to_come_again() {
        let passwords = Passwords::default();
        let tries = (0..40).map(|_| passwords.is_right("wrong".to_owned(), None));
        let mut tries: Vec<_> = tries.map(Box::pin).collect();
        // Each is looked at once: those that find a place wait in it.
        let mut refused = 0;
        let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
        for one in &mut tries {
            let looked_at = one.as_mut().poll(context);
            refused +=
                u32::from(matches!(looked_at, std::task::Poll::Ready(Err(Error::TooManyLogins))));
        }
        assert_eq!(refused, 40 - (AT_ONCE_MAX + WAITING_MAX) as u32);
    }

    #[test]
    fn bad_passwords_are_refused_with_the_reason() {
        let anna: UserName = "anna".parse().unwrap();
        assert!(check("three blue doors", &anna).is_ok());
        for (password, why) in
            [("short", "10 characters"), ("aaaaaaaaaaaa", "many times"), ("i-am-Anna-here", "name")]
        {
            let error = check(password, &anna).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
