//! What the storage server says of machines' disks.

use crate::error::Error;
use crate::live::Answer;
use crate::service::Service;
use crate::storage_client;
use model::{Descriptors, FindingKind, MachineName, StallVerb, Subject};
use std::time::Duration;

/// How often the storage server is asked for its exports.
const EXPORTS_INTERVAL: Duration = Duration::from_secs(2);

impl Service {
    /// Asks the storage server for its exports. Pages show what it said last.
    pub async fn refresh_exports(&self) {
        let asked = Some(self.now().moment);
        let socket = &self.options().storage_socket;
        let answer = match storage_client::exports(socket).await {
            Ok(list) => {
                let space = storage_client::space(socket).await.ok();
                let descriptors = storage_client::descriptors(socket).await.ok();
                Answer { asked, list, space, descriptors, error: None }
            }
            Err(error) => {
                Answer { asked, error: Some(wire::error_chain(&error)), ..Answer::default() }
            }
        };
        let (error, descriptors) = (answer.error.clone(), answer.descriptors);
        let former = self.exports().put(answer);
        if let (Some(former), Some(Descriptors { limit, refused_connections })) =
            (former.descriptors, descriptors)
            && refused_connections > former.refused_connections
        {
            let cause = format!(
                "The storage server refuses NBD connections: it may have only {limit} file descriptors"
            );
            self.found(FindingKind::NoDescriptors, &Subject::Server, cause);
        }
        match (&former.error, error) {
            (former, Some(error)) if former.as_ref() != Some(&error) => {
                tracing::warn!(error, "storage server");
            }
            (Some(_), None) => tracing::info!("the storage server answers again"),
            _ => {}
        }
    }

    /// Why the storage server did not answer when it was asked last; `None` if it did.
    pub fn storage_error(&self) -> Option<String> {
        self.exports().last().error.clone()
    }

    /// Keeps what pages show of the storage server fresh. Never ends.
    pub(super) async fn keep_exports_fresh(&self) {
        loop {
            self.refresh_exports().await;
            self.note_exports().await;
            // So that it is known since when it is so, though nobody looks at a page.
            self.look_at_state();
            tokio::time::sleep(EXPORTS_INTERVAL).await;
        }
    }

    /// Asks the storage server if that was not done just now.
    pub(super) async fn look_at_exports(&self) {
        let now = self.now().moment;
        let asked = self.exports().last().asked;
        if asked.is_none_or(|asked| now.since(asked) > 2 * EXPORTS_INTERVAL) {
            self.refresh_exports().await;
        }
    }

    /// Decides what becomes of the machine's writes that wait, for instance for room on the storage
    /// server's disk; how many there are.
    ///
    /// # Errors
    /// There is no such machine, it has no disk at the storage server, or that does not answer.
    pub async fn decide_stall(&self, name: &MachineName, verb: StallVerb) -> Result<u32, Error> {
        if self.site().machine(name).is_none() {
            return Err(Error::NoMachine(name.clone()));
        }
        let decided = storage_client::decide_stall(&self.options().storage_socket, name, verb);
        let n_requests = decided.await?;
        self.refresh_exports().await;
        Ok(n_requests)
    }
}
