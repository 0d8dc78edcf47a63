//! Clients that connect all the time, and notice when nobody is at the door.

use crate::netns::Netns;
use anyhow::{Context, Result};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// An answer must be there by then.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(5);

/// What came of knocking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Knocked {
    /// Who was answered.
    pub n_answered: u32,
    /// Who was refused, or sent away without an answer; who speaks first is so if that happens twice.
    pub n_refused: u32,
    /// What the first of these met, and how long it waited for that.
    pub first_refused: Option<(String, Duration)>,
    /// The longest that anybody waited for the answer.
    pub longest: Duration,
}

/// A client that knocks until it is stopped.
pub struct Knocker {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Knocked>,
}

impl Knocker {
    /// Begins to connect there. Who says `question` is answered by somebody who is well.
    ///
    /// # Errors
    /// The namespace is gone.
    pub fn start(netns: &Netns, address: SocketAddr, question: &'static [u8]) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = netns.inside(|| {
            let stop = Arc::clone(&stop);
            // What is started inside stays inside.
            Ok(std::thread::spawn(move || {
                let mut knocked = Knocked::default();
                while !stop.load(Ordering::SeqCst) {
                    let began = Instant::now();
                    // A browser asks once more if the server had no word for it before it stopped.
                    let again = |error| match question.is_empty() {
                        true => Err(error),
                        false => knock(address, question),
                    };
                    match knock(address, question).or_else(again) {
                        Ok(()) => {
                            knocked.n_answered += 1;
                            knocked.longest = knocked.longest.max(began.elapsed());
                        }
                        Err(error) => {
                            knocked.n_refused += 1;
                            let met = || (error.to_string(), began.elapsed());
                            knocked.first_refused.get_or_insert_with(met);
                        }
                    }
                    std::thread::sleep(PAUSE);
                }
                knocked
            }))
        })?;
        Ok(Self { stop, thread })
    }

    /// Ends it.
    ///
    /// # Errors
    /// Nobody has ever answered.
    pub fn stop(self) -> Result<Knocked> {
        self.stop.store(true, Ordering::SeqCst);
        let knocked = self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (knocked.n_answered > 0).then_some(knocked).context("nobody has ever answered")
    }
}

fn knock(address: SocketAddr, question: &[u8]) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(question)?;
    stream.read_exact(&mut [0; 8])
}
