//! Long work, as people see it.

use crate::error::Error;
use crate::jobs::{Job, JobKind, Jobs};
use crate::people::{Admin, Viewer};
use crate::service::Service;
use images::Store;
use model::{FindingKind, Right, Subject};

impl Viewer {
    /// Jobs, the newest first: all that run, and those that ended last; of those that only administrators are shown, none to others.
    ///
    /// # Errors
    /// This process is ending.
    pub async fn jobs(&self) -> Result<Vec<Job>, Error> {
        let mut jobs = self.service().with_jobs(|jobs| jobs.list()).await?;
        jobs.retain(|job| self.may_see(job.kind));
        Ok(jobs)
    }

    /// One job, and its log.
    ///
    /// # Errors
    /// There is none of this number, or only administrators are shown it.
    pub async fn job(&self, number: u64) -> Result<(Job, String), Error> {
        let read = move |jobs: &Jobs| jobs.get(number).map(|job| (job, jobs.log(number)));
        let (job, log) = self.service().with_jobs(read).await??;
        match self.may_see(job.kind) {
            true => Ok((job, log)),
            false => Err(Error::NotAllowed { needed: Right::Admin }),
        }
    }

    /// What the doctor has seen is the whole server, with its files, its other programs and its neighbours: for whoever could look
    /// at all of that himself.
    fn may_see(&self, kind: Option<JobKind>) -> bool {
        match kind {
            Some(JobKind::Doctor) => self.actor().right() >= Right::Admin,
            Some(
                JobKind::ImageImport
                | JobKind::ImageBuild
                | JobKind::ImageCapture
                | JobKind::ImagePublish
                | JobKind::ImageVerify
                | JobKind::ImageExport
                | JobKind::ImageSend
                | JobKind::ImageReceive,
            )
            | None => true,
        }
    }

    /// The newest job of a kind that has ended, and its log; `None`, too, if only administrators are shown it.
    ///
    /// # Errors
    /// This process is ending.
    pub async fn last_ended_job(&self, kind: JobKind) -> Result<Option<(Job, String)>, Error> {
        if !self.may_see(Some(kind)) {
            return Ok(None);
        }
        let read = move |jobs: &Jobs| {
            let job = jobs.last_ended(kind)?;
            let log = jobs.log(job.number);
            Some((job, log))
        };
        self.service().with_jobs(read).await
    }
}

impl Admin {
    /// Has a job stop. It does so within a second, but for a step that can't be left.
    ///
    /// # Errors
    /// There is none of this number, it has ended, or nothing can be written.
    pub async fn cancel_job(&self, number: u64) -> Result<Job, Error> {
        let (job, _) = self.job(number).await?;
        let who = self.actor().name().to_owned();
        let subject = format!("job {number}");
        let entry = self.actor().does("job.cancel", &subject, Vec::new(), self.now().unix_ms);
        let jobs = self.service().job_folder();
        let is_wanted_already = job.cancelled_by.is_some();
        let cancelled = self.service().database().write(move |tables| {
            if !is_wanted_already {
                tables.put_audit(&entry)?;
            }
            jobs.cancel(number, &who).map_err(|error| Error::from(error).into())
        });
        cancelled.await?;
        // One that waits ends at once.
        self.service().settle_jobs_now().await;
        Ok(self.job(number).await?.0)
    }
}

impl Service {
    pub(crate) fn job_folder(&self) -> Jobs {
        Jobs::in_folder(self.options().jobs.clone())
    }

    pub(super) async fn with_jobs<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Jobs) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let jobs = self.job_folder();
        tokio::task::spawn_blocking(move || read(&jobs)).await.map_err(|_| Error::Stopping)
    }

    /// Cleans up after jobs whose process has died, and says so.
    pub(super) async fn settle_jobs_now(&self) {
        let (now, images) = (self.now(), self.options().images.clone());
        let settled = self.with_jobs(move |jobs| {
            let settled = jobs.settle(now);
            let makes = |kind| {
                matches!(
                    kind,
                    JobKind::ImageImport
                        | JobKind::ImageCapture
                        | JobKind::ImagePublish
                        | JobKind::ImageReceive
                )
            };
            if settled.iter().any(|job| job.kind.is_some_and(makes)) {
                // Which removes what nobody works on any more.
                let _ = Store::open(&images);
            }
            settled
        });
        for job in settled.await.into_iter().flatten() {
            let Job { number, kind, what, .. } = job;
            let kind = kind.map_or("", JobKind::title);
            let cause = format!("Job {number} ({kind} {what}) ended without a word");
            self.found(FindingKind::JobDied, &Subject::Server, cause);
        }
    }
}
