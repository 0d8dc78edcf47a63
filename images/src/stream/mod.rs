//! Image versions on their way: what one store sends and another receives.
//!
//! A stream is compressed with Zstandard. In it come a line that says what it is; a header, which says what the version is; the files that
//! are beside its disk; the disk's changes, in records of Ceph's "rbd diff v1", in the order of their places; and the BLAKE3 of all of that.
//! Nothing of it is believed: the disk that comes out must have the digest by which its version is known.

mod changes;
mod error;
mod header;
mod parse;
mod receive;
mod send;
mod sink;

pub use changes::write_changes;
pub use error::StreamError;
pub use receive::{ReceiveRequest, Received, about_stream, check_stream};
pub use send::{SendRequest, Sent};

/// What a stream is of, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamAbout {
    /// The image, as its sender calls it.
    pub image: model::ImageName,
    /// Its number there.
    pub version: u32,
    /// BLAKE3 of its disk.
    pub digest: String,
    /// Size of its disk.
    pub size_bytes: u64,
    /// The version of which it holds the differences, as its sender numbers it, and that one's digest.
    pub from: Option<(u32, String)>,
    /// Where of the disk it begins: not at 0 if it goes on with one that broke off.
    pub at_bytes: u64,
}

/// The first line.
const MAGIC: &[u8] = b"bootlace image stream 1\n";

/// Longest header: a description, and the names of a few files.
const HEADER_BYTES_MAX: u32 = 256 << 10;

/// The first line of the records.
const DIFF: &[u8] = b"rbd diff v1\n";

/// What a disk consists of: smaller parts of it are not told apart.
const BLOCK_BYTES: usize = 4096;

/// Files beside a disk: kernel, and what later ones add.
const FILES_MAX: usize = 16;

/// The largest of them: kernels have up to 80 MB, or 500 MB with all of their debug symbols.
const FILE_BYTES_MAX: u64 = 512 << 20;

/// Memory for what is compressed, as its logarithm: 8 MiB. Who sends takes 2 MiB.
const WINDOW_LOG_MAX: u32 = 23;
