//! TFTP of the boot server: boot files, and what transfers mean for boots.

use crate::boot::doorkeeper::FilesDoorkeeper;
use crate::boot::files::BootFiles;
use crate::net::tftp_server::{Tftp, TftpEvent, TftpEventKind};
use model::{Fetch, FindingKind};
use std::net::SocketAddrV4;
use std::time::Duration;
use tftp::{NotServed, Sent};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Events that wait to be noted. Beyond, they are dropped: a boot goes on without its time line.
const EVENTS_MAX: usize = 1024;

/// Stages that wait for the disk.
const NOTES_MAX: usize = 256;

/// A client that says nothing for so long is worth a word.
const LONG_WAIT: Duration = Duration::from_secs(1);

/// Serves until `stop`.
pub(crate) async fn serve(tftp: Tftp, files: BootFiles, stop: CancellationToken) {
    let (sender, mut events) = mpsc::channel(EVENTS_MAX);
    let content = {
        let files = files.clone();
        move |path: String, peer: SocketAddrV4| {
            let files = files.clone();
            async move {
                let item = files.get(&path, *peer.ip(), Fetch::Itself).await;
                item.map(|item| item.bytes).ok_or(NotServed::NotFound)
            }
        }
    };
    let noting = async {
        // Stages are queued in the order of the events; those that come together are stored together.
        let mut notes = JoinSet::new();
        loop {
            tokio::select! {
                Some(_) = notes.join_next() => {}
                event = events.recv(), if notes.len() < NOTES_MAX => match event {
                    Some(event) => {
                        if let Some(noted) = note(&files, event) {
                            notes.spawn(noted);
                        }
                    }
                    None => break,
                },
            }
        }
        while notes.join_next().await.is_some() {}
    };
    let mtu_of = {
        let files = files.clone();
        move |peer| files.mtu_at(peer)
    };
    let doorkeeper = FilesDoorkeeper::of_tftp(files.clone());
    tokio::join!(tftp.run(content, doorkeeper, mtu_of, sender, stop), noting);
}

/// What an event means for a boot is queued when this returns; the future waits until it is stored.
fn note(files: &BootFiles, event: TftpEvent) -> Option<impl Future<Output = ()> + Send + use<>> {
    let TftpEvent { peer, path, kind } = event;
    match kind {
        TftpEventKind::Done { size_bytes, ms, sent } => {
            files.traffic().sent("tftp", true, size_bytes);
            files.traffic().sent_by_tftp(sent.packets, sent.again);
            let Sent { packets, bytes, again, longest_wait } = sent;
            let longest_wait_ms = longest_wait.as_millis() as u64;
            tracing::info!(%peer, path, ms, packets, bytes, again, longest_wait_ms, "sent by TFTP");
            let stage = files.stage_of(&path)?;
            return files.fetched(
                stage,
                *peer.ip(),
                files.detail(&path, detail(size_bytes, ms, sent)),
            );
        }
        TftpEventKind::Ended { sent } => files.traffic().sent_by_tftp(sent.packets, sent.again),
        TftpEventKind::GaveUp { acked_bytes, sent } => {
            files.traffic().sent("tftp", false, acked_bytes);
            files.traffic().sent_by_tftp(sent.packets, sent.again);
            let Sent { packets, bytes, again, .. } = sent;
            tracing::warn!(%peer, path, acked_bytes, packets, bytes, again, "TFTP client fell silent");
        }
        // GRUB asks for these lists although all its modules are inside of it.
        TftpEventKind::Refused(NotServed::NotFound) if path.ends_with(".lst") => {}
        TftpEventKind::Refused(reason) => {
            files.traffic().refused("tftp", reason.word());
            tracing::info!(%peer, path, %reason, "TFTP refused");
        }
        TftpEventKind::GoesOn { acked_bytes, size_bytes } => {
            if files.stage_of(&path).is_some() {
                files.goes_on(*peer.ip(), acked_bytes, size_bytes);
            }
        }
        TftpEventKind::BlocksLost { block_size } => {
            files.found(
                FindingKind::LargePacketsLost,
                &files.subject((*peer.ip()).into()),
                lost(block_size),
            );
        }
        TftpEventKind::BlocksArrive => {
            files.resolved(FindingKind::LargePacketsLost, &files.subject((*peer.ip()).into()));
        }
        TftpEventKind::Started { .. } => {}
    }
    None
}

/// What is said of blocks that don't arrive.
fn lost(block_size: u16) -> String {
    format!(
        "It answers, but a TFTP block of {block_size} bytes did not come though it was sent three times: probably a tunnel, a VPN or \
         PPPoE on the way carries smaller packets only. Its next requests are answered with blocks that are small enough"
    )
}

/// How it went, for the time line of a boot.
fn detail(size_bytes: u64, ms: u64, sent: Sent) -> String {
    let mut detail =
        format!("{:.1} MB by TFTP in {:.1} s", size_bytes as f64 / 1e6, ms as f64 / 1e3);
    if sent.again > 0 {
        detail += &format!(", {} of {} packets sent again", sent.again, sent.packets);
    }
    if sent.longest_wait >= LONG_WAIT {
        detail += &format!(", silent for {:.1} s", sent.longest_wait.as_secs_f64());
    }
    detail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_line_tells_what_was_sent_again_and_how_long_nothing_came() {
        let sent = |packets, again, ms| Sent {
            packets,
            again,
            bytes: 0,
            longest_wait: Duration::from_millis(ms),
        };
        assert_eq!(detail(1_000_000, 200, sent(701, 0, 20)), "1.0 MB by TFTP in 0.2 s");
        assert_eq!(
            detail(1_000_000, 200, sent(702, 1, 20)),
            "1.0 MB by TFTP in 0.2 s, 1 of 702 packets sent again"
        );
        assert_eq!(
            detail(1_000_000, 5000, sent(705, 4, 2500)),
            "1.0 MB by TFTP in 5.0 s, 4 of 705 packets sent again, silent for 2.5 s"
        );
    }
}
