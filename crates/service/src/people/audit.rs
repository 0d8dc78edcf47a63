//! The audit log, as people read it.

use super::rights::Admin;
use crate::error::Error;
use crate::store::AuditEntry;

/// Entries that are read at once.
const ENTRIES_MAX: u32 = 1000;

/// Some entries of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct AuditPage {
    /// The last first.
    pub entries: Vec<AuditEntry>,
    /// There are older ones: ask for those before this number.
    pub before: Option<u64>,
}

impl Admin {
    /// Entries of the audit log with numbers below `before`, the last first: about one subject, or about all.
    ///
    /// # Errors
    /// The database can't be read.
    pub async fn audit(
        &self,
        before: Option<u64>,
        subject: Option<String>,
        n_entries: u32,
    ) -> Result<AuditPage, Error> {
        let n_entries = n_entries.min(ENTRIES_MAX);
        let read = self.service().database().read(move |tables| {
            // One more tells whether there are others.
            tables.audit(before, subject.as_deref(), n_entries + 1)
        });
        let mut entries = read.await?;
        let has_more = entries.len() > n_entries as usize;
        entries.truncate(n_entries as usize);
        let before = has_more.then(|| entries.last().map(|entry| entry.id)).flatten();
        Ok(AuditPage { entries, before })
    }
}
