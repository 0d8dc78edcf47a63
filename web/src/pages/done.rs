//! What was just done: a word in the address (`?done=saved`) and a sentence on the page.

/// What was just done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    Adopted,
    CardAdded,
    Saved,
    Rebooting,
    ShuttingDown,
    DiskReset,
    DiskKept,
    NextChosen,
    NextForgotten,
    RescueWanted,
    RescueForgotten,
    CaptureOrdered,
    CaptureCancelled,
    WritesResumed,
    WritesFailed,
    Removed,
    RemovedDiskLater,
    PasswordChanged,
    SessionEnded,
    TokenRemoved,
    UserAdded,
    RoleChanged,
    ReachChanged,
    OtherPasswordSet,
    UserRemoved,
    JobCancelled,
    ImportOrdered,
    BuildOrdered,
    FileReceived,
    FileRemoved,
    FileLaid,
    FileLaidNoMore,
    DiskPut,
    DiskRemoved,
    DiskThrownAway,
    AddressFreed,
    AddressFixed,
    AddressNotFixed,
    VersionReleased,
    VersionFixed,
    VersionToTest,
    VersionRetired,
    VersionDraft,
    RolledBack,
    RingBegun,
    RingWithout,
    RingStopped,
    VersionRemoved,
    SnapshotMade,
    NothingWritten,
    SnapshotRemoved,
    RollbackAsked,
    RollbackWithdrawn,
    EditBegun,
    PublishOrdered,
    EditDiscarded,
}

impl Done {
    /// All of them, with their words and sentences.
    const TABLE: [(Self, &str, &str); 56] = [
        (
            Self::EditBegun,
            "edit",
            "From its next boot on the machine boots that image, and keeps what is changed.",
        ),
        (
            Self::PublishOrdered,
            "publish",
            "The boot server makes a version of it; this page may be closed meanwhile.",
        ),
        (
            Self::EditDiscarded,
            "discarded",
            "What was changed is thrown away. The machine boots what it has booted before.",
        ),
        (Self::SnapshotMade, "snapshot", "The snapshot is made."),
        (
            Self::NothingWritten,
            "unwritten",
            "Nothing was written since its last snapshot, so none was made.",
        ),
        (
            Self::SnapshotRemoved,
            "snapshot-gone",
            "The snapshot is deleted. Its room comes back in the background.",
        ),
        (
            Self::RollbackAsked,
            "rollback",
            "Its disk goes back to that snapshot the next time it boots.",
        ),
        (Self::RollbackWithdrawn, "no-rollback", "Its disk stays as it is."),
        (
            Self::Adopted,
            "adopted",
            "Adopted. If it is waiting in the loader, it goes on by itself within ten seconds.",
        ),
        (
            Self::CardAdded,
            "card",
            "The network card is added. If it is waiting in the loader, it goes on by itself within ten seconds.",
        ),
        (Self::Saved, "saved", "Saved. It takes effect the next time the machine boots."),
        (Self::Rebooting, "reboot", "The machine is being asked to restart."),
        (Self::ShuttingDown, "poweroff", "The machine is being asked to shut down."),
        (Self::DiskReset, "reset", "Its disk will be reset the next time it boots."),
        (Self::DiskKept, "kept", "Its disk stays as it is."),
        (Self::NextChosen, "next", "It starts that the next time, once."),
        (Self::NextForgotten, "no-next", "It starts what it always does."),
        (Self::RescueWanted, "rescue", "It will stop in a rescue shell the next time it boots."),
        (Self::RescueForgotten, "no-rescue", "It boots as usual the next time."),
        (Self::CaptureOrdered, "capture", "Its next boot sends what is on its own disks."),
        (Self::CaptureCancelled, "no-capture", "It boots as usual the next time."),
        (Self::WritesResumed, "resumed", "Its writes are being tried again."),
        (
            Self::WritesFailed,
            "failed",
            "Its writes fail until there is room again, or it boots again.",
        ),
        (Self::Removed, "removed", "Removed. If its PC asks again, it appears under Discovered."),
        (
            Self::RemovedDiskLater,
            "removed-later",
            "Removed. The storage server has not deleted its disk yet: that is tried again until it has, and nobody gets \
             that disk.",
        ),
        (
            Self::PasswordChanged,
            "password",
            "The password is changed; all other sessions have ended.",
        ),
        (Self::SessionEnded, "ended", "That browser is logged out."),
        (Self::TokenRemoved, "token-removed", "The token is void."),
        (Self::UserAdded, "added", "The account is added."),
        (Self::RoleChanged, "role", "The role is changed, with effect at once."),
        (Self::ReachChanged, "reach", "Rooms and hours are changed, with effect at once."),
        (
            Self::OtherPasswordSet,
            "password-set",
            "The password is set; all sessions of the account have ended.",
        ),
        (Self::UserRemoved, "user-removed", "The account is removed."),
        (Self::JobCancelled, "cancelled", "The job is being cancelled."),
        (
            Self::ImportOrdered,
            "import",
            "The boot server imports it; this page may be closed meanwhile.",
        ),
        (
            Self::BuildOrdered,
            "build",
            "The server builds it, which takes some minutes; this page may be closed meanwhile.",
        ),
        (Self::FileReceived, "received", "The file is here. It can be imported now."),
        (Self::FileRemoved, "file-removed", "The file is removed."),
        (
            Self::FileLaid,
            "laid",
            "It is laid over the roots of these machines from their next boot on.",
        ),
        (
            Self::FileLaidNoMore,
            "laid-no-more",
            "It is laid no more: from their next boot on machines have again what their image has.",
        ),
        (Self::DiskPut, "disk", "These machines have the disk from their next boot on."),
        (
            Self::DiskRemoved,
            "no-disk",
            "They have it no more from their next boot on. What they have written to it stays.",
        ),
        (Self::DiskThrownAway, "disk-reset", "What was written to it is gone."),
        (Self::AddressFreed, "freed", "The address can be given to others now."),
        (Self::AddressFixed, "fixed", "The address is fixed: nobody else gets it."),
        (Self::AddressNotFixed, "unfixed", "The address is leased as others are."),
        (Self::VersionFixed, "laid-over", "Done. Machines have it from their next boot on."),
        (
            Self::RingBegun,
            "ring",
            "The room's machines get it at their next boot, and all others when it has proven itself there.",
        ),
        (Self::RingWithout, "ring-without", "Nobody waits for that machine any more."),
        (Self::RingStopped, "ring-stopped", "Done. The room gets again what its machines follow."),
        (Self::VersionReleased, "released", "Released. Machines get it at their next boot."),
        (
            Self::VersionToTest,
            "to-test",
            "Machines that follow what is to be tested get it at their next boot.",
        ),
        (
            Self::VersionDraft,
            "draft",
            "A draft again: it is for nobody who is not told to boot it.",
        ),
        (
            Self::VersionRetired,
            "retired",
            "Retired. Machines that run it go on until they boot again.",
        ),
        (Self::RolledBack, "back", "Gone back. Machines get the older version at their next boot."),
        (Self::VersionRemoved, "version-removed", "The version is removed."),
    ];

    /// The word in an address.
    pub(crate) fn word(self) -> &'static str {
        Self::TABLE.into_iter().find(|entry| entry.0 == self).map_or("", |entry| entry.1)
    }

    /// The sentence for the word of an address; `None` if no page of ours wrote that address.
    pub(crate) fn sentence(word: &str) -> Option<&'static str> {
        Self::TABLE.into_iter().find(|entry| entry.1 == word).map(|entry| entry.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_word_has_its_sentence_and_a_strange_word_has_none() {
        let words: BTreeSet<&str> = Done::TABLE.iter().map(|entry| entry.0.word()).collect();
        assert_eq!(words.len(), Done::TABLE.len());
        for (_, word, sentence) in Done::TABLE {
            assert_eq!(Done::sentence(word), Some(sentence));
        }
        assert_eq!((Done::sentence(""), Done::sentence("<b>")), (None, None));
    }
}
