//! What a machine that is captured sends, which becomes an image version while it comes.

use super::words::Belief;
use crate::error::Error;
use crate::jobs::{JobKind, JobState, NewJob, Worker};
use crate::piped::{Coming, Piece};
use crate::service::Service;
use crate::store::AuditEntry;
use bytes::Bytes;
use images::{
    FixChoice, Import, ImportError, ImportRequest, Progress, Severity, Source, Step, Stop, Store,
};
use initcfg::{CaptureAbout, CaptureOpener, CaptureProof, Token};
use model::{BootId, Capture, MachineName, Size};
use std::fs::File;
use std::io::{self, PipeWriter, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError, mpsc as threads};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Pieces of a stream that wait to be taken.
const PIECES_MAX: usize = 16;

/// What is read of it at once.
const READ_BYTES: usize = 256 << 10;

/// The disk has this much more than what the files take, and a quarter of that: room to work with.
const ROOM_BYTES: u64 = 2 << 30;

/// A stream that a machine sends. One that is dropped before its end has broken off.
pub struct Capturing {
    pieces: mpsc::Sender<Piece>,
    /// Hears when all has come, or why no more is taken.
    received: oneshot::Receiver<Came>,
}

impl Capturing {
    /// How long it is waited for the next bytes.
    pub const SILENCE_MAX: Duration = Duration::from_secs(60);

    /// The next bytes. `false`: nobody wants more of them, and [`finish`](Self::finish) tells why.
    pub async fn write(&self, bytes: Bytes) -> bool {
        self.pieces.send(Piece::Bytes(bytes)).await.is_ok()
    }

    /// All was sent. Returns when it has come to its end and the machine is not captured any more; the version is made afterwards.
    ///
    /// # Errors
    /// Why it was not taken, for the person in front of the machine.
    pub async fn finish(self) -> Result<(), String> {
        let _ = self.pieces.send(Piece::End).await;
        drop(self.pieces);
        let stopping = || "the boot server is being stopped".to_owned();
        self.received.await.unwrap_or_else(|_| Err(stopping()))
    }
}

impl Service {
    /// Begins to take what the machine at this address sends; `None`: nobody has ordered that, or it does not show that it is the boot that
    /// it says.
    ///
    /// # Errors
    /// The database can't be written, or others are sending.
    pub async fn capture(
        &self,
        address: Ipv4Addr,
        proof: CaptureProof,
    ) -> Result<Option<Capturing>, Error> {
        let CaptureProof { boot, tag } = proof;
        let view = self.view();
        let Some(mac) = view.owner(address) else { return Ok(None) };
        let Some(known) = view.boot(mac, boot) else { return Ok(None) };
        let text = CaptureProof::text(boot);
        // Who listens has the first secret, if another is exchanged inside of TLS.
        let token = known.proof.mixed().or(known.proof.token);
        let Some(token) = token.filter(|token| token.tag(&text) == tag) else {
            self.refuse_words(mac, boot, "a disk is sent without the secret of its boot");
            return Ok(None);
        };
        if self.believe(mac, boot, &text, Some(tag)) != Belief::Proven {
            return Ok(None);
        }
        let Some(machine) = view.site.machine_by_mac(mac).map(|it| it.name.clone()) else {
            return Ok(None);
        };
        let place = Arc::clone(self.uploads()).try_acquire_owned();
        let place = place.map_err(|_| crate::incoming::IncomingError::TooMany)?;
        let Some(capture) = self.take_capture(&machine, boot).await? else {
            self.refuse_words(mac, boot, "a disk is sent that nobody has asked for");
            return Ok(None);
        };
        tracing::info!(%machine, boot, image = %capture.image, "sends what is on its disks");
        let (pieces, coming) = Coming::new(PIECES_MAX);
        let (told, received) = oneshot::channel();
        let taking = Taking { service: self.clone(), machine, boot, token, capture };
        tokio::spawn(async move {
            let _place = place;
            taking.run(coming, told).await;
        });
        Ok(Some(Capturing { pieces, received }))
    }

    /// What is ordered of the machine, of which this boot is the one that sends from now on; `None`: nothing is, or another boot does.
    async fn take_capture(
        &self,
        machine: &MachineName,
        boot: BootId,
    ) -> Result<Option<Capture>, Error> {
        let name = machine.clone();
        let taken = self.database().write(move |tables| {
            let capture = tables.machine(&name)?.and_then(|machine| machine.capture);
            let Some(capture) = capture.filter(|capture| capture.boot.is_none()) else {
                return Ok(None);
            };
            let capture = Capture { boot: Some(boot), ..capture };
            tables.put_capture(&name, &capture)?;
            Ok(Some(capture))
        });
        taken.await
    }

    /// A boot that was to be captured says that it has failed: the next one is as usual, and the failure stays to be read.
    pub(super) async fn capture_failed(&self, machine: &MachineName, boot: BootId, why: &str) {
        let ended = self.end_capture(machine, Some(boot)).await;
        let Ok(Some(capture)) = ended else { return };
        if capture.boot.is_some() {
            // There is a job, which ends by itself.
            return;
        }
        let (machine, why) = (machine.clone(), why.to_owned());
        let (jobs, clock) = (self.job_folder(), self.options().clock.clone());
        let noted = tokio::task::spawn_blocking(move || {
            let new = new_job(&machine, &capture);
            if let Ok(worker) = jobs.begin(new, clock, &Stop::default()) {
                worker.end(JobState::Failed, &why);
            }
        });
        let _ = noted.await;
    }
}

fn new_job(machine: &MachineName, capture: &Capture) -> NewJob {
    NewJob {
        kind: JobKind::ImageCapture,
        what: format!("{} of what is on {machine}", capture.image),
        by: capture.by.clone(),
    }
}

/// What takes a stream.
struct Taking {
    service: Service,
    machine: MachineName,
    boot: BootId,
    token: Token,
    capture: Capture,
}

impl Taking {
    async fn run(self, coming: Coming, told: oneshot::Sender<Came>) {
        let Self { service, machine, boot, token, capture } = self;
        let (jobs, clock) = (service.job_folder(), service.options().clock.clone());
        let store = Arc::clone(service.store());
        let (of, named) = (capture.clone(), machine.clone());
        let (answer, has_come) = Answer::new();
        let ending = {
            let (service, machine) = (service.clone(), machine.clone());
            tokio::spawn(async move {
                let stopping = || Err("the boot server is being stopped".to_owned());
                let came = has_come.await.unwrap_or_else(|_| stopping());
                // The machine restarts as soon as it hears that all has come: it must not be captured again.
                if let Err(error) = service.end_capture(&machine, Some(boot)).await {
                    tracing::warn!(%machine, error = error.chain(), "that it was captured can't be noted");
                }
                let _ = told.send(came);
            })
        };
        let work = tokio::task::spawn_blocking(move || {
            let stop = Stop::default();
            let mut worker = jobs.begin(new_job(&named, &of), clock, &stop).ok();
            let opener = CaptureOpener::new(&token, boot);
            let incoming = (coming, opener, answer);
            let imported = import(&store, &named, &of, incoming, &stop, &mut worker);
            (imported, worker, stop)
        });
        let Ok((imported, worker, stop)) = work.await else { return };
        let _ = ending.await;
        let ended = match imported {
            Ok(import) => service.record_captured(&machine, &capture, import).await,
            Err(why) => Err(why),
        };
        let Some(mut worker) = worker else { return };
        match ended {
            Ok(lines) => {
                lines.iter().for_each(|line| worker.log(line));
                worker.end(JobState::Done, lines.first().map_or("", String::as_str));
            }
            Err(_) if stop.is_stopping() => {
                let who = worker.cancelled_by().unwrap_or_else(|| "somebody".to_owned());
                worker.end(JobState::Cancelled, &format!("cancelled by {who}"));
            }
            Err(why) => worker.end(JobState::Failed, &why),
        }
    }
}

/// Whether all has come, which is told once.
#[derive(Clone)]
struct Answer(Arc<Mutex<Option<oneshot::Sender<Came>>>>);

/// Whether all has come; or why no more is taken, for the person in front of the machine.
type Came = Result<(), String>;

impl Answer {
    fn new() -> (Self, oneshot::Receiver<Came>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Arc::new(Mutex::new(Some(sender)))), receiver)
    }

    fn give(&self, came: Came) {
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = sender {
            let _ = sender.send(came);
        }
    }
}

/// Imports what comes.
fn import(
    store: &Store,
    machine: &MachineName,
    capture: &Capture,
    (coming, opener, answer): (Coming, CaptureOpener, Answer),
    stop: &Stop,
    worker: &mut Option<Worker>,
) -> Result<Import, String> {
    let (read, write) = io::pipe().map_err(|error| format!("there is no pipe: {error}"))?;
    let (about, is_about) = threads::channel();
    let of_feeder = answer.clone();
    let feeding = std::thread::spawn(move || {
        let fed = feed(coming, opener, write, &about);
        if fed.is_ok() {
            of_feeder.give(Ok(()));
        }
        fed
    });
    let imported = match is_about.recv() {
        Ok(about) => import_from(store, (machine, capture), read, &about, stop, worker),
        Err(_) => Err("it ended before it began".to_owned()),
    };
    if let Err(why) = &imported {
        let stopped = "somebody has cancelled it".to_owned();
        answer.give(Err(if stop.is_stopping() { stopped } else { why.clone() }));
    }
    // It ends by itself: what reads from its pipe has ended.
    match (feeding.join(), imported) {
        // What was cut off is so for this reason.
        (Ok(Err(Some(why))), Err(_)) if !stop.is_stopping() => Err(why),
        (_, imported) => imported,
    }
}

/// Opens what comes, and passes it on. The error is `None` if nobody takes it.
fn feed(
    mut coming: Coming,
    mut opener: CaptureOpener,
    mut out: PipeWriter,
    about: &threads::Sender<CaptureAbout>,
) -> Result<(), Option<String>> {
    let broken = |why: &dyn std::error::Error| {
        format!("the machine has broken off: {}. Its page says more", wire::error_chain(why))
    };
    let mut is_first = true;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let n = coming.read(&mut buffer).map_err(|error| Some(broken(&error)))?;
        opener.push(&buffer[..n]);
        while let Some(piece) = opener.piece().map_err(|error| Some(broken(&error)))? {
            if std::mem::take(&mut is_first) {
                let described = CaptureAbout::parse(&piece);
                let described =
                    described.ok_or_else(|| Some("it does not say what it is".to_owned()))?;
                about.send(described).map_err(|_| None)?;
            } else {
                out.write_all(&piece).map_err(|_| None)?;
            }
        }
        match (n, opener.has_ended()) {
            (0, true) => return Ok(()),
            (0, false) => {
                return Err(Some("the machine has broken off. Its page says more".to_owned()));
            }
            _ => {}
        }
    }
}

fn import_from(
    store: &Store,
    (machine, capture): (&MachineName, &Capture),
    read: io::PipeReader,
    about: &CaptureAbout,
    stop: &Stop,
    worker: &mut Option<Worker>,
) -> Result<Import, String> {
    let CaptureAbout { used_bytes, what, remarks } = about;
    if let Some(worker) = worker {
        worker.log(&format!("{what}: its files take {}", Size(*used_bytes)));
        remarks.iter().for_each(|remark| worker.log(&format!("left out: {remark}")));
    }
    let model::Space { free_bytes, reserve_bytes, .. } =
        images::space(store.dir()).map_err(|error| format!("can't see what is free: {error}"))?;
    if free_bytes.saturating_sub(reserve_bytes) < *used_bytes {
        return Err(format!(
            "there is no room for it: {} are wanted, and {} are free, of which {} are kept for machines that start",
            Size(*used_bytes),
            Size(free_bytes),
            Size(reserve_bytes)
        ));
    }
    let in_words = |error: ImportError| wire::error_chain(&error);
    let name = format!("what is on {machine}");
    let source = Source::pipe(File::from(OwnedFd::from(read)), &name).map_err(in_words)?;
    let wanted_bytes = used_bytes.saturating_add(used_bytes / 4).saturating_add(ROOM_BYTES);
    let request = ImportRequest {
        source,
        disk_bytes: Some(wanted_bytes.max(images::DISK_BYTES)),
        name: capture.image.clone(),
        note: capture.note.clone(),
        state: capture.state,
        fix: capture.fixes.then(FixChoice::default),
        is_data: false,
    };
    let mut progress = |it: Progress| {
        let Some(worker) = worker else { return };
        match it.step {
            Step::Copy => {
                worker.on_progress("receiving", it.done_bytes.min(*used_bytes), *used_bytes);
            }
            Step::Check => worker.on_progress("checking", it.done_bytes, it.total_bytes),
            Step::Digest => {
                worker.on_progress("computing its digest", it.done_bytes, it.total_bytes)
            }
            Step::Sync => worker.on_progress("writing to disk", it.done_bytes, it.total_bytes),
        }
    };
    store.import(&request, stop, &mut progress).map_err(in_words)
}

impl Service {
    /// What was captured is a version from now on. Returns what there is to say, the most important first.
    async fn record_captured(
        &self,
        machine: &MachineName,
        capture: &Capture,
        import: Import,
    ) -> Result<Vec<String>, String> {
        let Import { version, warnings, left_out, harms, laid_over, .. } = import;
        let named = format!("{}/v{}", version.image, version.version);
        let entry = AuditEntry {
            id: 0,
            at_unix_ms: self.now().unix_ms,
            who: capture.by.clone(),
            via: format!("capture of {machine}"),
            address: None,
            action: "image.add".to_owned(),
            subject: named.clone(),
            changes: Vec::new(),
        };
        let recorded = self.record_version(version.image.clone(), version.version, entry).await;
        let (_, initrd) = recorded.map_err(|error| error.chain())?;
        if let Err(error) = initrd {
            let why = error.chain();
            return Err(format!("{named} was made, but its initrd could not be built: {why}"));
        }
        let mut lines = vec![format!(
            "{named} made of what is on {machine}: kernel {}",
            version.kernel_version
        )];
        lines.extend(warnings.into_iter().map(|warning| format!("warning: {warning}")));
        let open = harms.iter().filter(|harm| harm.dealt_with.is_none());
        let (mut n_open, mut n_fixable) = (0, 0);
        for harm in open {
            n_open += 1;
            n_fixable += u32::from(harm.can_be_fixed);
            if harm.severity != Severity::Annoys {
                let place = harm.path.as_ref().map(|path| format!("{path}: ")).unwrap_or_default();
                let (severity, check, what, effect) =
                    (&harm.severity, &harm.check, &harm.what, &harm.effect);
                lines.push(format!("warning: {severity} ({check}): {place}{what}: {effect}"));
            }
        }
        if !laid_over.is_empty() {
            let paths = laid_over.join(", ");
            lines.push(format!("laid over it at each boot, the version stays as it is: {paths}"));
        }
        if n_fixable > 0 && laid_over.is_empty() {
            lines.push(format!(
                "bootlace image check {named} says what helps; bootlace image fix {named} lays files over it against {n_fixable} of them"
            ));
        } else if n_open > 0 {
            lines.push(format!("bootlace image check {named} says what helps"));
        }
        lines.extend(left_out.into_iter().map(|left_out| format!("left out: {left_out}")));
        Ok(lines)
    }
}
