//! Rows of what alerts have told, and not told to be over.

use super::transaction::Transaction;
use model::FindingKind;
use rusqlite::params;

/// Something that was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ToldAlert {
    /// `mail` or `webhook`.
    pub(crate) channel: String,
    pub(crate) kind: FindingKind,
    /// What its subject is, and the subject's name.
    pub(crate) about: String,
    pub(crate) subject: String,
    pub(crate) cause: String,
    pub(crate) since_unix_ms: u64,
}

impl Transaction<'_> {
    /// What was told by each way. Of kinds that only another release knows nothing is said.
    pub(crate) fn told_alerts(&self) -> rusqlite::Result<Vec<ToldAlert>> {
        let mut query = self.sql().prepare(
            "SELECT channel, kind, about, subject, cause, since_unix_ms FROM alert_told",
        )?;
        let rows = query.query_map([], |row| {
            let kind: String = row.get(1)?;
            let Some(kind) = FindingKind::from_word(&kind) else { return Ok(None) };
            Ok(Some(ToldAlert {
                channel: row.get(0)?,
                kind,
                about: row.get(2)?,
                subject: row.get(3)?,
                cause: row.get(4)?,
                since_unix_ms: row.get(5)?,
            }))
        })?;
        rows.filter_map(Result::transpose).collect()
    }

    /// This was told.
    pub(crate) fn note_alert(&self, told: &ToldAlert) -> rusqlite::Result<()> {
        self.sql()
            .prepare_cached("INSERT OR REPLACE INTO alert_told VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
            .execute(params![
                told.channel,
                told.kind.word(),
                told.about,
                told.subject,
                told.cause,
                told.since_unix_ms
            ])
            .map(drop)
    }

    /// And that it is over.
    pub(crate) fn forget_alert(&self, told: &ToldAlert) -> rusqlite::Result<()> {
        self.sql()
            .prepare_cached(
                "DELETE FROM alert_told WHERE channel = ?1 AND kind = ?2 AND about = ?3 AND subject = ?4",
            )?
            .execute(params![told.channel, told.kind.word(), told.about, told.subject])
            .map(drop)
    }
}
