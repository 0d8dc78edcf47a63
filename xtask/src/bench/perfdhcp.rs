//! Kea's `perfdhcp`: a crowd of DHCP clients behind a relay, and what it says of them.

use anyhow::{Context, Result, ensure};
use lab::Client;

/// PXE firmware of a BIOS says that it is, in options 60 and 93.
const FIRMWARE: [&str; 4] =
    ["-o", "60,505845436c69656e743a417263683a30303030303a554e44493a303032303031", "-o", "93,0000"];

/// So many clients may come that hardly any comes twice: each takes one at random.
const CLIENTS: &str = "1000000000";

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Clients {
    Any,
    Firmware,
}

/// What is asked of a server.
pub(super) struct Load {
    pub(super) clients: Clients,
    /// Exchanges that are begun each second.
    pub(super) rate: u32,
    pub(super) seconds: u32,
    pub(super) first_mac: [u8; 6],
    pub(super) server: &'static str,
}

/// One half of all exchanges.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Half {
    /// Requests without an answer.
    pub(super) n_missing: u64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

/// What perfdhcp says at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Said {
    /// Exchanges a second, from the first request to the last ACK.
    pub(super) reached: f64,
    pub(super) offers: Half,
    pub(super) acks: Half,
}

impl Load {
    pub(super) fn run(&self, crowd: &Client) -> Result<Said> {
        let [rate, seconds] = [self.rate, self.seconds].map(|number| number.to_string());
        let mac = self.first_mac.map(|byte| format!("{byte:02x}")).join(":");
        let mut command = crowd.command("perfdhcp");
        // It waits a second for the last answers.
        command.args(["-4", "-l", "eth0", "-x", "t", "-W", "1000000", "-r", &rate, "-p", &seconds]);
        command.args(["-R", CLIENTS, "-b", &format!("mac={mac}")]);
        if self.clients == Clients::Firmware {
            command.args(FIRMWARE);
        }
        let output = command.arg(self.server).output().context("can't start perfdhcp")?;
        // It fails if there are drops, too.
        let text = String::from_utf8_lossy(&output.stdout);
        said(&text).with_context(|| {
            let complaint = String::from_utf8_lossy(&output.stderr);
            format!(
                "perfdhcp ({}) said {complaint}{}",
                output.status,
                &text[..text.len().min(2000)]
            )
        })
    }
}

fn said(text: &str) -> Result<Said> {
    let part = |title: &str| {
        let (_, part) =
            text.split_once(&format!("***{title}***")).with_context(|| format!("no {title}"))?;
        anyhow::Ok(part.split("***").next().unwrap_or_default())
    };
    let half = |name: &str| -> Result<(Half, Vec<[f64; 2]>)> {
        let about = part(&format!("Statistics for: {name}"))?;
        let number = |name: &str| {
            let line = about.lines().find_map(|line| line.strip_prefix(name));
            anyhow::Ok(line.context("a line is missing")?.trim().parse::<u64>()?)
        };
        let times: Vec<[f64; 2]> = part(&format!("Timestamps for packets: {name}"))?
            .lines()
            .filter_map(|line| times(line.strip_prefix("sent / received: ")?))
            .collect();
        let mut delays: Vec<f64> = times.iter().map(|[sent, got]| (got - sent) * 1e3).collect();
        delays.sort_unstable_by(f64::total_cmp);
        let percentile = |share: f64| {
            let index = (delays.len() as f64 * share) as usize;
            delays.get(index.min(delays.len().saturating_sub(1))).copied().unwrap_or_default()
        };
        let n_missing = number("sent packets:")?.saturating_sub(number("received packets:")?);
        Ok((Half { n_missing, p50_ms: percentile(0.5), p99_ms: percentile(0.99) }, times))
    };
    let (offers, discovered) = half("DISCOVER-OFFER")?;
    let (acks, acknowledged) = half("REQUEST-ACK")?;
    ensure!(!discovered.is_empty(), "nobody got an offer");
    let first = discovered.iter().map(|[sent, _]| *sent).fold(f64::INFINITY, f64::min);
    let last = acknowledged.iter().map(|[_, got]| *got).fold(first, f64::max);
    let reached = acknowledged.len() as f64 / (last - first).max(1e-3);
    Ok(Said { reached, offers, acks })
}

/// `000001.500000 / 000001.500250`, in seconds.
fn times(line: &str) -> Option<[f64; 2]> {
    let (sent, got) = line.split_once(" / ")?;
    Some([sent.trim().parse().ok()?, got.trim().parse().ok()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_perfdhcp_says_is_read() {
        let text = "***Statistics for: DISCOVER-OFFER***\nsent packets: 3\nreceived packets: 2\ndrops: 1\n\n\
                    ***Statistics for: REQUEST-ACK***\nsent packets: 2\nreceived packets: 2\n\n\
                    ***Timestamps for packets: DISCOVER-OFFER***\n\
                    sent / received: 000000.000000 / 000000.001000\nsent / received: 000001.000000 / 000001.003000\n\n\
                    ***Timestamps for packets: REQUEST-ACK***\n\
                    sent / received: 000000.001000 / 000000.002000\nsent / received: 000001.003000 / 000002.000000\n\n";
        let said = said(text).unwrap();
        assert_eq!((said.reached, said.offers.n_missing, said.acks.n_missing), (1.0, 1, 0));
        assert!((said.offers.p99_ms - 3.0).abs() < 1e-6, "{said:?}");
        assert!((said.acks.p50_ms - 997.0).abs() < 1e-6, "{said:?}");
    }
}
