//! The log's lines are rationed: anybody on the network could fill the disk with them, and hide the others.

use crate::bucket::Bucket;
use std::collections::HashMap;
use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata};
use tracing_subscriber::layer::{Context, Filter};

/// Lines of a kind about strangers: so many at once, and then one in a while.
const STRANGERS_LINES_MAX: u32 = 30;
const STRANGERS_LINE_EVERY: Duration = Duration::from_secs(2);

/// Lines of a kind about one machine. It boots in some twenty, and is not to be silent because of others.
const MACHINE_LINES_MAX: u32 = 60;
const MACHINE_LINE_EVERY: Duration = Duration::from_secs(1);

/// Lines of a kind about nobody, such as one for each image at the start. Some of them can be caused from outside, too.
const OWN_LINES_MAX: u32 = 200;
const OWN_LINE_EVERY: Duration = Duration::from_secs(1);

/// Machines whose lines have a ration of their own, for each kind. Beyond, they share that of strangers.
const RATIONS_MAX: usize = 16_384;

/// How often the log says what was left out.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// Rations of the log's lines. A kind of lines is what one place in the code says; a field `machine`, `export`, `mac`,
/// `peer` or `finding` tells whom a line is about. Cheap to clone; all clones are the same rations.
#[derive(Clone, Default)]
pub(crate) struct Ration {
    kinds: Arc<Mutex<HashMap<Key, Kind>>>,
}

type Key = (Identifier, About);

/// Whom a line is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum About {
    /// Nobody on the network.
    #[default]
    Nobody,
    /// Anybody there.
    Strangers,
    /// This machine, or this kind of finding.
    Named(String),
}

struct Kind {
    bucket: Bucket,
    n_left_out: u64,
    message: String,
}

/// Lines that were not written.
#[derive(Debug, PartialEq, Eq)]
struct LeftOut {
    message: String,
    about: About,
    n_lines: u64,
}

impl Ration {
    /// Says now and then how many lines were left out, until `stop`.
    pub(crate) async fn tell(self, stop: CancellationToken) {
        loop {
            let is_over = tokio::time::timeout(TOLD_EVERY, stop.cancelled()).await.is_ok();
            for LeftOut { message, about, n_lines } in self.left_out(Instant::now()) {
                match about {
                    About::Named(name) => {
                        tracing::warn!(n_lines, about = name, "left out lines like: {message}");
                    }
                    About::Nobody | About::Strangers => {
                        tracing::warn!(n_lines, "left out lines like: {message}");
                    }
                }
            }
            if is_over {
                return;
            }
        }
    }

    fn may_write(&self, event: &Event<'_>, now: Instant) -> bool {
        let mut line = Line::default();
        event.record(&mut line);
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = (event.metadata().callsite(), line.about);
        if kinds.len() >= RATIONS_MAX && !kinds.contains_key(&key) {
            key.1 = About::Strangers;
        }
        let (lines_max, every) = match key.1 {
            About::Nobody => (OWN_LINES_MAX, OWN_LINE_EVERY),
            About::Strangers => (STRANGERS_LINES_MAX, STRANGERS_LINE_EVERY),
            About::Named(_) => (MACHINE_LINES_MAX, MACHINE_LINE_EVERY),
        };
        let bucket = Bucket::new(lines_max, every, now);
        let new = || Kind { bucket, n_left_out: 0, message: String::new() };
        let kind = kinds.entry(key).or_insert_with(new);
        let may = kind.bucket.take(now);
        if !may {
            kind.n_left_out += 1;
            kind.message = line.message;
        }
        may
    }

    /// What was left out since this was asked last.
    fn left_out(&self, now: Instant) -> Vec<LeftOut> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left_out = Vec::new();
        kinds.retain(|(_, about), kind| {
            if kind.n_left_out > 0 {
                left_out.push(LeftOut {
                    message: std::mem::take(&mut kind.message),
                    about: about.clone(),
                    n_lines: std::mem::take(&mut kind.n_left_out),
                });
            }
            !kind.bucket.is_full(now)
        });
        left_out.sort_by(|a, b| (&a.message, &a.about).cmp(&(&b.message, &b.about)));
        left_out
    }
}

impl<S> Filter<S> for Ration {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        // Who asks for more wants all of it.
        *event.metadata().level() > Level::INFO || self.may_write(event, Instant::now())
    }
}

/// What matters of a line.
#[derive(Default)]
struct Line {
    message: String,
    about: About,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => {
                let _ = write!(self.message, "{value:?}");
            }
            "machine" | "export" | "finding" => {
                let name = format!("{value:?}").trim_matches('"').to_owned();
                // A PC that is no machine is called by its MAC address.
                let is_mac = name.contains(':');
                self.about = if is_mac { About::Strangers } else { About::Named(name) };
            }
            "mac" | "peer" if self.about == About::Nobody => self.about = About::Strangers,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use tracing_subscriber::Layer as _;
    use tracing_subscriber::layer::SubscriberExt as _;

    /// What is written.
    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// How many lines of those that `work` writes have each of these words, and what was left out.
    fn log<const N: usize>(words: [&str; N], work: impl FnOnce()) -> ([usize; N], Vec<LeftOut>) {
        let (paper, ration) = (Paper::default(), Ration::default());
        let writer = paper.clone();
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .with_filter(ration.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), work);
        let bytes = paper.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        let count = |word: &str| text.lines().filter(|line| line.contains(word)).count();
        (words.map(count), ration.left_out(Instant::now()))
    }

    #[test]
    fn a_flood_of_strangers_is_cut_and_counted_and_hides_nobody() {
        let (written, left_out) = log(["stranger", "lab-07", "import"], || {
            for n in 0..1000_u32 {
                tracing::warn!(peer = %n, "a stranger");
                if n < 20 {
                    tracing::info!(machine = "lab-07", n, "reached a stage");
                }
                if n < 100 {
                    tracing::info!(image = "debian-12", n, "imported");
                }
            }
        });
        assert_eq!(written, [30, 20, 100]);
        let expected =
            LeftOut { message: "a stranger".into(), about: About::Strangers, n_lines: 970 };
        assert_eq!(left_out, [expected]);
    }

    #[test]
    fn each_machine_has_its_own_ration_and_a_mac_address_is_none() {
        let (written, left_out) = log(["lab-01", "lab-02", "52:54"], || {
            for n in 0..100_u32 {
                for machine in ["lab-01".to_owned(), format!("52:54:00:00:00:{n:02x}")] {
                    tracing::info!(machine, "boots");
                }
            }
            tracing::info!(machine = %"lab-02", "boots");
        });
        assert_eq!(written, [60, 1, 30]);
        let counts: Vec<_> = left_out.into_iter().map(|it| (it.about, it.n_lines)).collect();
        assert_eq!(counts, [(About::Strangers, 70), (About::Named("lab-01".into()), 40)]);
    }

    #[test]
    fn what_is_told_is_told_once() {
        let ration = Ration::default();
        let lines =
            tracing_subscriber::fmt::layer().with_writer(io::sink).with_filter(ration.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            (0..31).for_each(|n| tracing::info!(mac = n, "asks"));
        });
        let now = Instant::now();
        assert_eq!(ration.left_out(now).len(), 1);
        assert_eq!(ration.left_out(now).len(), 0);
        let later = now + STRANGERS_LINE_EVERY * STRANGERS_LINES_MAX;
        assert_eq!((ration.left_out(later).len(), ration.kinds.lock().unwrap().len()), (0, 0));
    }
}
