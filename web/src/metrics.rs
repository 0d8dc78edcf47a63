//! Figures for Prometheus, in its text format 0.0.4.

use askama::Template;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::{AddressPool, ExportStatus, Space, Stage, Times};
use service::jobs::{Job, JobState};
use service::{
    AlertCount, Certificate, FindingCount, MachineView, Refusals, StageTimes, StateWord,
    TftpPackets, Transfers, Viewer,
};

#[derive(Template)]
#[template(path = "metrics.txt", escape = "none")]
struct Metrics<'a> {
    storage_up: u8,
    space: Option<Space>,
    machines: Vec<(&'static str, usize)>,
    pool: Option<AddressPool>,
    findings: Vec<FindingCount>,
    alerts: Vec<AlertCount>,
    certificates: Vec<Ends>,
    families: Vec<Family<'a>>,
    dropped: Vec<Drops<'a>>,
    times: Vec<Latencies<'a>>,
    jobs: Vec<(&'static str, usize)>,
    transfers: Vec<Transfers>,
    tftp: TftpPackets,
    refusals: Vec<Refusals>,
    boots: [(&'static str, u64); 2],
    boot_seconds: Seconds,
    stages: Vec<(&'static str, Seconds)>,
}

/// When a certificate ends.
struct Ends {
    used_by: &'static str,
    file: String,
    unix: i64,
}

/// How long something took.
struct Seconds {
    /// Upper bounds in seconds, and how many took at most so long.
    buckets: Vec<(String, u64)>,
    sum: f64,
    count: u64,
}

impl Seconds {
    fn of(times: &StageTimes) -> Self {
        let mut n_within = 0;
        let buckets = StageTimes::bounds_ms().zip(times.counts).map(|(bound_ms, count)| {
            n_within += count;
            let bound = bound_ms.map(|ms| (ms as f64 / 1e3).to_string());
            (bound.unwrap_or_else(|| "+Inf".to_owned()), n_within)
        });
        let buckets = buckets.collect();
        Self { buckets, sum: times.sum_ms as f64 / 1e3, count: times.count() }
    }
}

/// One figure of all disks.
struct Family<'a> {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    values: Vec<(&'a str, u64)>,
}

struct Drops<'a> {
    machine: &'a str,
    why: &'static str,
    count: u64,
}

/// How long one machine's requests of a kind took.
struct Latencies<'a> {
    machine: &'a str,
    kind: &'static str,
    /// Upper bounds in seconds, and how many took at most so long.
    buckets: Vec<(String, u64)>,
    sum: f64,
    count: u64,
}

type Figure = (&'static str, &'static str, &'static str, fn(&ExportStatus) -> u64);

/// Names as Prometheus wants them: base units, `_total` for what only grows.
const FIGURES: [Figure; 12] = [
    ("bootlace_disk_reads_total", "counter", "Reads answered.", |disk| disk.counters.reads),
    ("bootlace_disk_read_bytes_total", "counter", "Bytes read.", |disk| disk.counters.read_bytes),
    ("bootlace_disk_writes_total", "counter", "Writes answered.", |disk| disk.counters.writes),
    ("bootlace_disk_written_bytes_total", "counter", "Bytes written.", |disk| {
        disk.counters.written_bytes
    }),
    ("bootlace_disk_flushes_total", "counter", "Flushes done.", |disk| disk.counters.flushes),
    ("bootlace_disk_errors_total", "counter", "Requests answered with an error.", |disk| {
        disk.counters.errors
    }),
    ("bootlace_disk_refused_total", "counter", "Attempts by others to open the disk.", |disk| {
        disk.counters.refused
    }),
    ("bootlace_disk_resends_total", "counter", "AoE frames received more than once.", |disk| {
        disk.counters.coalesced + disk.counters.dropped_stale
    }),
    ("bootlace_disk_in_flight", "gauge", "Requests waiting for a disk now.", |disk| {
        disk.counters.in_flight
    }),
    ("bootlace_disk_stalled", "gauge", "Writes waiting for room on the server's disk.", |disk| {
        disk.stall.as_ref().map_or(0, |stall| stall.requests.into())
    }),
    ("bootlace_disk_connections", "gauge", "Open NBD connections.", |disk| disk.connections.into()),
    (
        "bootlace_disk_layer_bytes",
        "gauge",
        "Bytes taken by what the machine has written.",
        |disk| disk.layer_bytes,
    ),
];

/// Answers a Prometheus server.
pub(crate) async fn show(service: Viewer) -> Response {
    let status = service.status().await;
    let machines = service.machines().await;
    let disks: Vec<(&str, &ExportStatus)> = machines.iter().filter_map(disk).collect();
    let stages = service.stage_times();
    let n_reached = |wanted| {
        let found = stages.iter().find(|(stage, _)| *stage == wanted);
        found.map_or(0, |(_, times)| times.count())
    };
    let jobs: Vec<Job> = service.jobs().await.unwrap_or_default();
    let n_jobs = |state: JobState| jobs.iter().filter(|job| job.state == state).count();
    let metrics = Metrics {
        jobs: JobState::ALL.map(|state| (state.word(), n_jobs(state))).to_vec(),
        storage_up: status.storage_error.is_none().into(),
        space: status.space,
        machines: StateWord::ALL
            .map(|word| (word.word(), status.machines.get(&word).copied().unwrap_or(0)))
            .to_vec(),
        pool: status.pool,
        findings: service.finding_counts(),
        alerts: service.alert_counts(),
        certificates: service.certificates().iter().filter_map(ends).collect(),
        families: FIGURES
            .map(|(name, kind, help, figure)| {
                let values = disks.iter().map(|&(machine, disk)| (machine, figure(disk)));
                Family { name, kind, help, values: values.collect() }
            })
            .into(),
        dropped: disks.iter().flat_map(|&(machine, disk)| drops(machine, disk)).collect(),
        times: disks.iter().flat_map(|&(machine, disk)| latencies(machine, disk)).collect(),
        transfers: service.traffic().transfers(),
        tftp: service.traffic().tftp_packets(),
        refusals: service.traffic().refusals(),
        boots: [("up", n_reached(Stage::Up)), ("failed", n_reached(Stage::Failed))],
        boot_seconds: Seconds::of(&service.whole_boot_times()),
        stages: stages
            .iter()
            .filter(|(stage, _)| *stage != Stage::Failed)
            .map(|(stage, times)| (stage.word(), Seconds::of(times)))
            .collect(),
    };
    match metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn ends(certificate: &Certificate) -> Option<Ends> {
    let used_by = if certificate.is_for_pages { "web" } else { "nbd" };
    let file = certificate.file.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    Some(Ends { used_by, file, unix: certificate.ends_unix? })
}

fn disk(view: &MachineView) -> Option<(&str, &ExportStatus)> {
    Some((view.machine.name.as_str(), view.export.as_ref()?))
}

fn drops<'a>(machine: &'a str, disk: &ExportStatus) -> [Drops<'a>; 4] {
    let counters = &disk.counters;
    [
        ("full", counters.dropped_full),
        ("old", counters.dropped_old),
        ("stale", counters.dropped_stale),
        ("vlan", counters.dropped_vlan),
    ]
    .map(|(why, count)| Drops { machine, why, count })
}

fn latencies<'a>(machine: &'a str, disk: &ExportStatus) -> [Latencies<'a>; 3] {
    let counters = &disk.counters;
    [
        ("read", &counters.read_times),
        ("write", &counters.write_times),
        ("flush", &counters.flush_times),
    ]
    .map(|(kind, times)| Latencies {
        machine,
        kind,
        buckets: buckets(times),
        sum: times.sum_us as f64 / 1e6,
        count: times.count(),
    })
}

fn buckets(times: &Times) -> Vec<(String, u64)> {
    let mut sum = 0;
    let entries = times.counts.iter().enumerate();
    entries
        .map(|(index, count)| {
            sum += count;
            let bound = Times::bound_us(index)
                .map_or_else(|| "+Inf".to_owned(), |us| (us as f64 / 1e6).to_string());
            (bound, sum)
        })
        .collect()
}
