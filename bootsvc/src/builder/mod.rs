//! Images that are built of packages: what they are made of ([`Recipe`]), who makes the system ([`worker`], as root), and who takes
//! it from there as an archive ([`Built`], as the servers' user).

mod frames;
pub(crate) mod worker;

use frames::{Frame, read_frame};
use images::Recipe;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::File;
use std::io::{self, PipeWriter, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// The end of an archive has at least this, and is given only to what was made without a fault.
const HELD_BACK_BYTES: usize = 1024;

/// A system that is being built by another process.
pub(crate) struct Built {
    /// The archive of its files. It ends without its mark if that fails.
    pub(crate) archive: File,
    /// Where it is, in words, until all is there.
    pub(crate) told: Receiver<Told>,
    worker: Worker,
    reader: JoinHandle<Option<String>>,
}

/// What is to be built.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Ordered {
    /// This.
    Recipe(Recipe),
    /// What comes along, with what was chosen.
    Named { name: String, set: Vec<(String, String)> },
}

/// Who does it: it ends when nobody listens any more.
enum Worker {
    /// A process of this one, with its standard input.
    Child(Child),
    /// One that systemd has started for whoever connects.
    Elsewhere(UnixStream),
}

/// What is heard of the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// A line for the log.
    Line(String),
    /// A step, and how much of it is done.
    Step { step: String, done: u64, total: u64 },
}

impl Built {
    /// Starts the worker, which needs root; this process may become another user afterwards.
    ///
    /// # Errors
    /// It can't be started.
    pub(crate) fn begin(ordered: &Ordered, root: &Path) -> io::Result<Self> {
        let mut worker = Command::new(std::env::current_exe()?)
            .arg("--root")
            .arg(root)
            .args(["image", "build-worker"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        if let Some(stdin) = &mut worker.stdin {
            send(ordered, stdin)?;
        }
        let frames = worker.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Self::hear(Worker::Child(worker), frames)
    }

    /// Has it done by whoever listens there.
    ///
    /// # Errors
    /// Nobody does.
    pub(crate) fn ask(ordered: &Ordered, socket: &Path) -> io::Result<Self> {
        let mut worker = UnixStream::connect(socket)?;
        send(ordered, &mut worker)?;
        let frames = worker.try_clone()?;
        Self::hear(Worker::Elsewhere(worker), frames)
    }

    fn hear(worker: Worker, frames: impl io::Read + Send + 'static) -> io::Result<Self> {
        let (archive, into) = io::pipe()?;
        let (teller, told) = channel();
        let reader = std::thread::spawn(move || pass_on(frames, HeldBack::new(into), &teller));
        Ok(Self { archive: File::from(OwnedFd::from(archive)), told, worker, reader })
    }

    /// Whether the first files are there, or will never come.
    ///
    /// # Errors
    /// The operating system does not tell.
    pub(crate) fn has_archive(&self) -> io::Result<bool> {
        let mut pipe = [PollFd::new(&self.archive, PollFlags::IN)];
        Ok(poll(&mut pipe, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? > 0)
    }

    /// Why it was not made, if that is so, for people: to be asked when the archive was read, or is not wanted any more. That it was
    /// not wanted is no reason.
    pub(crate) fn end(self) -> Option<String> {
        let Self { archive, told, mut worker, reader } = self;
        // Whoever works hears of it by this, and ends.
        drop((archive, told));
        match &mut worker {
            Worker::Child(child) => drop(child.stdin.take()),
            Worker::Elsewhere(stream) => drop(stream.shutdown(Shutdown::Write)),
        }
        let why = reader.join().unwrap_or_else(|_| Some("its reader has failed".to_owned()));
        if let Worker::Child(child) = &mut worker {
            let _ = child.wait();
        }
        why
    }
}

fn send(ordered: &Ordered, to: &mut impl Write) -> io::Result<()> {
    let mut order = serde_json::to_vec(ordered).map_err(io::Error::other)?;
    order.push(b'\n');
    to.write_all(&order)
}

/// Splits what the worker says: files into the archive, all else to whoever looks. Returns why there is no whole archive.
fn pass_on(mut frames: impl io::Read, mut into: HeldBack, teller: &Sender<Told>) -> Option<String> {
    loop {
        match read_frame(&mut frames) {
            Err(error) => return Some(error.to_string()),
            Ok(None) => return Some("who builds it was ended".to_owned()),
            Ok(Some(Frame::Archive(bytes))) => {
                // Who reads it has had enough, and says why.
                if into.write_all(&bytes).is_err() {
                    return None;
                }
            }
            Ok(Some(Frame::Line(line))) => drop(teller.send(Told::Line(line))),
            Ok(Some(Frame::Step { step, done, total })) => {
                drop(teller.send(Told::Step { step, done, total }));
            }
            Ok(Some(Frame::Failed(why))) => return Some(why),
            Ok(Some(Frame::Done)) => {
                let _ = into.finish();
                return None;
            }
        }
    }
}

/// The way of an archive into an import, which lets its end pass only when it is known that all was well.
pub(crate) struct HeldBack {
    into: PipeWriter,
    end: Vec<u8>,
}

impl HeldBack {
    pub(crate) fn new(into: PipeWriter) -> Self {
        Self { into, end: Vec::new() }
    }

    /// All was well.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.into.write_all(&self.end)
    }
}

impl Write for HeldBack {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.end.extend(bytes);
        let ready = self.end.len().saturating_sub(HELD_BACK_BYTES);
        self.into.write_all(&self.end[..ready])?;
        self.end.drain(..ready);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.into.flush()
    }
}
