//! What the kernel tells of processes.

use anyhow::{Context, Result};

/// Clock ticks of `/proc/PID/stat` in a second: fixed by the kernel's interface.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor time that a process and its children used so far.
pub(super) fn cpu_seconds(process: u32) -> f64 {
    let ticks: u64 = with_children(process).into_iter().map(ticks).sum();
    ticks as f64 / TICKS_PER_SECOND
}

/// The process and those below it.
pub(super) fn with_children(process: u32) -> Vec<u32> {
    let mut all = vec![process];
    let mut index = 0;
    while let Some(&parent) = all.get(index) {
        index += 1;
        let path = format!("/proc/{parent}/task/{parent}/children");
        let children = std::fs::read_to_string(path).unwrap_or_default();
        all.extend(children.split_ascii_whitespace().filter_map(|word| word.parse::<u32>().ok()));
    }
    all
}

/// utime, stime, cutime and cstime of `/proc/PID/stat` (proc(5): fields 14 to 17).
fn ticks(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    ticks_of(&stat)
}

fn ticks_of(stat: &str) -> u64 {
    // The name, field 2, is in parentheses and may hold spaces.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields = after_name.split_ascii_whitespace().skip(11).take(4);
    fields.filter_map(|field| field.parse::<u64>().ok()).sum()
}

/// The most memory that the process ever had, in bytes.
pub(super) fn memory_max(process: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")).context("no VmHWM")?;
    Ok(kib.trim().parse::<u64>()? << 10)
}

#[cfg(test)]
mod tests {
    use super::ticks_of;

    #[test]
    fn processor_time_is_read_whatever_the_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 5 6 7 8 100 20 3 4 20 0 1 0 9 9";
        assert_eq!(ticks_of(stat), 127);
    }
}
