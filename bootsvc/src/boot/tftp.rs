//! TFTP of the boot server: boot files, and what transfers mean for boots.

use crate::boot::doorkeeper::FilesDoorkeeper;
use crate::boot::files::BootFiles;
use crate::net::tftp_server::{Tftp, TftpEvent, TftpEventKind};
use model::Fetch;
use std::net::SocketAddrV4;
use tftp::NotServed;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Events that wait to be noted. Beyond, they are dropped: a boot goes on without its time line.
const EVENTS_MAX: usize = 1024;

/// Stages that wait for the disk.
const NOTES_MAX: usize = 256;

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
    tokio::join!(tftp.run(content, FilesDoorkeeper::of_tftp(files.clone()), sender, stop), noting);
}

/// What an event means for a boot is queued when this returns; the future waits until it is stored.
fn note(files: &BootFiles, event: TftpEvent) -> Option<impl Future<Output = ()> + Send + use<>> {
    let TftpEvent { peer, path, kind } = event;
    match kind {
        TftpEventKind::Done { size_bytes, ms, n_retransmits } => {
            files.traffic().sent("tftp", true, size_bytes);
            let stage = files.stage_of(&path)?;
            let mut detail =
                format!("{:.1} MB by TFTP in {:.1} s", size_bytes as f64 / 1e6, ms as f64 / 1e3);
            if n_retransmits > 0 {
                let packets = if n_retransmits == 1 { "packet" } else { "packets" };
                detail = format!("{detail}, {n_retransmits} {packets} sent again");
            }
            return files.fetched(stage, *peer.ip(), files.detail(&path, detail));
        }
        TftpEventKind::GaveUp { acked_bytes } => {
            files.traffic().sent("tftp", false, acked_bytes);
            tracing::warn!(%peer, path, acked_bytes, "TFTP client fell silent");
        }
        // GRUB asks for these lists although all its modules are inside of it.
        TftpEventKind::Refused(NotServed::NotFound) if path.ends_with(".lst") => {}
        TftpEventKind::Refused(reason) => {
            files.traffic().refused("tftp", reason.word());
            tracing::info!(%peer, path, %reason, "TFTP refused");
        }
        TftpEventKind::Started { .. } | TftpEventKind::Aborted => {}
    }
    None
}
