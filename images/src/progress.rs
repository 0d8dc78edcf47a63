//! What import and copy report while they work.

/// How far an import is: a step at a time, in the order of [`Step`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub step: Step,
    /// Bytes of the step that are done, from 0 to `total_bytes`.
    pub done_bytes: u64,
    /// Bytes that the step has to do.
    pub total_bytes: u64,
}

/// A step of an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The disk is copied or converted into the store.
    Copy,
    /// File systems are checked.
    Check,
    /// A converted disk is read to compute its digest; a copy is digested while it is made.
    Digest,
    /// The version is made durable.
    Sync,
}
