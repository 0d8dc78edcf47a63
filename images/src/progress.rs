//! What import and copy report while they work.

/// How far an import is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub step: Step,
    /// Of this step.
    pub done_bytes: u64,
    /// Of this step.
    pub total_bytes: u64,
}

/// A step of an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The bits come into the store.
    Copy,
    /// They are read to compute their digest.
    Digest,
    /// They are written to the disk for good.
    Sync,
}
