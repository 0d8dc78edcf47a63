//! A kernel without its compression: an emulated processor takes 3 s to unpack it, in each boot again. QEMU
//! starts what is inside by its PVH entry, which distributions build in for Xen.

use crate::image::{CACHE, fnv1a};
use anyhow::{Context, Result, ensure};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How data begin that are compressed by xz, as Debian's kernels are.
const XZ: &[u8] = b"\xfd7zXZ\0";

/// The program inside of a kernel, which is kept for the next time; the kernel itself if it is not compressed
/// by xz.
pub(crate) fn unpacked(kernel: &Path) -> Result<PathBuf> {
    let bytes = std::fs::read(kernel).with_context(|| kernel.display().to_string())?;
    let Some(start) = bytes.windows(XZ.len()).position(|window| window == XZ) else {
        return Ok(kernel.to_owned());
    };
    let path = Path::new(CACHE).join(format!("vmlinux-{:016x}", fnv1a(&bytes)));
    if path.exists() {
        return Ok(path);
    }
    std::fs::create_dir_all(CACHE).with_context(|| format!("can't make {CACHE}"))?;
    let file = tempfile::Builder::new().prefix("new-").tempfile_in(CACHE)?;
    // Behind the compressed part comes more of the kernel.
    let mut command = Command::new("xz");
    command.args(["--decompress", "--single-stream", "--stdout"]);
    command.stdin(Stdio::piped()).stdout(file.reopen()?);
    let mut xz = command.spawn().context("can't start xz")?;
    let mut input = xz.stdin.take().context("xz's input was asked for")?;
    // It reads no further than to the end of what it understands.
    let _ = input.write_all(&bytes[start..]);
    drop(input);
    let status = xz.wait()?;
    ensure!(status.success(), "xz can't unpack the kernel ({status})");
    file.persist(&path)?;
    Ok(path)
}
