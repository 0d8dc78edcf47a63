//! Rows of logins that failed, by account and by address.

use super::transaction::Transaction;
use rusqlite::{OptionalExtension as _, params};

/// Accounts and addresses whose failures are remembered. Who has many addresses can't fill the disk; those that failed
/// longest ago go first.
const LOGIN_FAILURES_MAX: u32 = 4096;

/// How often logins of one kind have failed in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LoginFailures {
    pub(crate) n: u32,
    /// When the last one was, seconds since 1970.
    pub(crate) last_unix: u64,
}

impl Transaction<'_> {
    /// Failures of an account or of an address.
    pub(crate) fn login_failures(&self, of: &str) -> rusqlite::Result<LoginFailures> {
        let mut query = self
            .sql()
            .prepare_cached("SELECT n, last_unix FROM login_failure WHERE subject = ?1")?;
        let failures = query
            .query_row([of], |row| Ok(LoginFailures { n: row.get(0)?, last_unix: row.get(1)? }));
        Ok(failures.optional()?.unwrap_or_default())
    }

    /// One more. Returns how many there are.
    pub(crate) fn count_login_failure(&self, of: &str, now_unix: u64) -> rusqlite::Result<u32> {
        let n = self
            .sql()
            .prepare_cached(
                "INSERT INTO login_failure VALUES (?1, 1, ?2) ON CONFLICT (subject) DO UPDATE \
                 SET n = min(n + 1, 1000), last_unix = excluded.last_unix RETURNING n",
            )?
            .query_row(params![of, now_unix], |row| row.get(0))?;
        self.sql()
            .prepare_cached(
                "DELETE FROM login_failure WHERE subject IN \
                 (SELECT subject FROM login_failure ORDER BY last_unix DESC, subject LIMIT -1 OFFSET ?1)",
            )?
            .execute([LOGIN_FAILURES_MAX])?;
        Ok(n)
    }

    /// The attempt of `at_unix` did not fail after all: all is as it would be without it. Before it, it was `former`.
    pub(crate) fn uncount_login_failure(
        &self,
        of: &str,
        at_unix: u64,
        former: LoginFailures,
    ) -> rusqlite::Result<()> {
        // Others may have failed since.
        self.sql()
            .prepare_cached(
                "UPDATE login_failure SET n = n - 1, last_unix = iif(last_unix = ?2, ?3, last_unix) \
                 WHERE subject = ?1 AND n > 0",
            )?
            .execute(params![of, at_unix, former.last_unix])?;
        self.sql()
            .prepare_cached("DELETE FROM login_failure WHERE subject = ?1 AND n = 0")?
            .execute([of])
            .map(drop)
    }

    /// Somebody has logged in.
    pub(crate) fn forget_login_failures(&self, of: &str) -> rusqlite::Result<()> {
        self.sql()
            .prepare_cached("DELETE FROM login_failure WHERE subject = ?1")?
            .execute([of])
            .map(drop)
    }
}
