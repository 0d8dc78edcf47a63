//! A network cable between a PC and the LAN that can be bad: it loses frames, delays them, and breaks where a test says so.

use crate::lan::Lan;
use crate::tap;
use anyhow::{Result, bail};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Room for a frame.
const FRAME_BYTES: usize = 2048;

/// Frames on their way. Beyond them a sender waits, as where a queue of a switch is full.
const FRAMES_MAX: usize = 4096;

/// How bad a cable is, in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quality {
    /// So many frames of a thousand are lost.
    pub lost_per_thousand: u64,
    /// How long each one takes.
    pub delay: Duration,
    /// Which ones are lost follows from this.
    pub seed: u64,
}

impl Quality {
    /// Nothing is lost, and nothing takes time.
    pub const GOOD: Self = Self { lost_per_thousand: 0, delay: Duration::ZERO, seed: 1 };
}

/// What the PC must have sent, one after the other, before the cable breaks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BreaksAfter {
    /// Each is looked for in a frame of its own.
    pub marks: &'static [&'static [u8]],
    /// So many more frames of the PC.
    pub n_frames: u32,
}

/// A cable. It is pulled out of the LAN when it is dropped.
pub struct Wire {
    shared: Arc<Shared>,
    netns: String,
    tap: String,
    folder: TempDir,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_broken: bool,
    marks: VecDeque<&'static [u8]>,
    n_frames: Option<u32>,
}

/// Where frames go.
trait Sink {
    fn put(&self, frame: &[u8]);
}

impl Sink for File {
    fn put(&self, frame: &[u8]) {
        let mut file = self;
        // The LAN's end is gone, or down.
        let _ = file.write(frame);
    }
}

/// The socket, and QEMU's.
struct Qemu(Arc<UnixDatagram>, std::path::PathBuf);

impl Sink for Qemu {
    fn put(&self, frame: &[u8]) {
        // The PC is off.
        let _ = self.0.send_to(frame, &self.1);
    }
}

impl Wire {
    /// Lays one, and plugs it into the LAN.
    ///
    /// # Errors
    /// Not root, or there are no tap interfaces.
    pub fn lay(lan: &Lan, quality: Quality) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("bootlace-wire-").tempdir()?;
        let tap = lan.add_tap()?;
        let file = Arc::new(lan.netns().inside(|| Ok(tap::open(&tap)?))?);
        let socket = Arc::new(UnixDatagram::bind(end(folder.path()))?);
        let shared = Arc::new(Shared::default());

        let (from_pc, to_lan) = sync_channel(FRAMES_MAX);
        let (from_lan, to_pc) = sync_channel(FRAMES_MAX);
        let (reader, mut random) = (Arc::clone(&socket), Random(quality.seed));
        let of_pc = Arc::clone(&shared);
        std::thread::spawn(move || {
            let mut buffer = [0; FRAME_BYTES];
            while let Ok(length) = reader.recv(&mut buffer)
                && let Some(frame) = buffer.get(..length).filter(|frame| !frame.is_empty())
            {
                of_pc.on_frame_of_pc(frame);
                pass(frame, quality, &mut random, &from_pc);
            }
        });
        let (mut reader, mut random) = (file.try_clone()?, Random(!quality.seed));
        std::thread::spawn(move || {
            let mut buffer = [0; FRAME_BYTES];
            while let Ok(length) = reader.read(&mut buffer)
                && let Some(frame) = buffer.get(..length)
            {
                pass(frame, quality, &mut random, &from_lan);
            }
        });
        let (lan_side, state) = (Arc::clone(&file), Arc::clone(&shared));
        std::thread::spawn(move || deliver(&to_lan, &*lan_side, &state));
        let (pc_side, state) = (Qemu(socket, pc_end(folder.path())), Arc::clone(&shared));
        std::thread::spawn(move || deliver(&to_pc, &pc_side, &state));
        Ok(Self { shared, netns: lan.netns().name().to_owned(), tap, folder })
    }

    /// Lets it break at that moment of a boot.
    pub fn break_after(&self, moment: &BreaksAfter) {
        let mut state = self.shared.state();
        state.marks = moment.marks.iter().copied().collect();
        state.n_frames = Some(moment.n_frames);
    }

    /// Breaks it now.
    pub fn cut(&self) {
        self.shared.state().is_broken = true;
    }

    /// Whether it is broken.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.shared.state().is_broken
    }

    /// Waits until it is.
    ///
    /// # Errors
    /// It is not in time.
    pub fn wait_until_broken(&self, timeout: Duration) -> Result<()> {
        let state = self.shared.state();
        let waited = self.shared.changed.wait_timeout_while(state, timeout, |it| !it.is_broken);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if !state.is_broken {
            bail!("the PC never sent {} more things", state.marks.len());
        }
        Ok(())
    }

    /// Mends it. What was on its way is lost.
    pub fn mend(&self) {
        self.shared.state().is_broken = false;
    }

    /// The PC's end, as QEMU's `-netdev` wants it.
    pub(crate) fn netdev(&self) -> String {
        let (pc, wire) = (pc_end(self.folder.path()), end(self.folder.path()));
        format!(
            "dgram,id=n0,local.type=unix,local.path={},remote.type=unix,remote.path={}",
            pc.display(),
            wire.display()
        )
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // Which ends the threads: nothing comes any more.
        let mut ip = std::process::Command::new("ip");
        let _ = crate::command::run(ip.args(["-n", &self.netns, "link", "del", &self.tap]));
        if let Ok(socket) = UnixDatagram::unbound() {
            let _ = socket.send_to(&[], end(self.folder.path()));
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn on_frame_of_pc(&self, frame: &[u8]) {
        let mut state = self.state();
        let Some(mut left) = state.n_frames else { return };
        match state.marks.front() {
            Some(mark) if frame.windows(mark.len()).any(|bytes| bytes == *mark) => {
                state.marks.pop_front();
            }
            Some(_) => return,
            None => left = left.saturating_sub(1),
        }
        state.n_frames = Some(left);
        if state.marks.is_empty() && left == 0 {
            state.n_frames = None;
            state.is_broken = true;
            drop(state);
            self.changed.notify_all();
        }
    }
}

/// Sends a frame on its way, if it is not lost.
fn pass(frame: &[u8], quality: Quality, random: &mut Random, to: &SyncSender<(Instant, Vec<u8>)>) {
    if random.next() % 1000 >= quality.lost_per_thousand {
        // The other end is gone, and this one will be.
        let _ = to.send((Instant::now() + quality.delay, frame.to_vec()));
    }
}

fn deliver(frames: &Receiver<(Instant, Vec<u8>)>, to: &impl Sink, shared: &Shared) {
    for (due, frame) in frames {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if !shared.state().is_broken {
            to.put(&frame);
        }
    }
}

fn end(folder: &Path) -> std::path::PathBuf {
    folder.join("wire")
}

fn pc_end(folder: &Path) -> std::path::PathBuf {
    folder.join("pc")
}

/// Numbers without a pattern (xorshift), the same for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.max(1);
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_breaks_behind_the_last_mark_and_so_many_frames() {
        let shared = Shared::default();
        let broken_after = |frames: &[&str]| -> Vec<bool> {
            let mut broken = Vec::new();
            for frame in frames {
                shared.on_frame_of_pc(frame.as_bytes());
                broken.push(shared.state().is_broken);
            }
            shared.state().is_broken = false;
            broken
        };
        let set = |n_frames| {
            let mut state = shared.state();
            state.marks = [&b"GET "[..], b"ACK"].into();
            state.n_frames = Some(n_frames);
        };
        assert_eq!(broken_after(&["GET x", "ACK"]), [false; 2]);
        set(0);
        assert_eq!(
            broken_after(&["ACK", "GET ACK", "GET", "ACK", "ACK"]),
            [false, false, false, true, true]
        );
        set(2);
        assert_eq!(
            broken_after(&["GET x", "ACK", "one", "two", "x"]),
            [false, false, false, true, true]
        );
    }

    #[test]
    fn as_many_are_lost_as_is_said() {
        let mut random = Random(42);
        let lost = (0..100_000).filter(|_| random.next() % 1000 < 10).count();
        assert!((800..1200).contains(&lost), "{lost}");
    }
}
